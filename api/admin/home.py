"""The front page: what waits for a person."""

from typing import Any

from flask_admin import AdminIndexView
from sqlalchemy import select

from api.admin.page import opens, shut
from shared import adjusting, exception_records, switches
from shared.db import transaction
from shared.models import Resolution, Withdrawal
from shared.roles import Role
from shared.withdrawals import reviewing

SHOWN = 20


class Home(AdminIndexView):
    """`/admin/`."""

    def __init__(self) -> None:
        super().__init__(name="Home", url="/admin")

    @opens("/", Role.VIEWER)
    def index(self) -> str:
        """Proposals that wait for a second person, open exceptions, pauses."""
        waiting = (
            select(Resolution, Withdrawal)
            .join(Withdrawal, Withdrawal.id == Resolution.withdrawal_id)
            .where(Resolution.decided_at.is_(None))
            .order_by(Resolution.proposed_at)
            .limit(SHOWN)
        )
        with transaction() as session:
            return self.render(
                "home.html",
                title="What waits for a person",
                proposals=session.execute(waiting).all(),
                awaiting=reviewing.waiting(session, limit=SHOWN),
                adjustments=adjusting.waiting(session, limit=SHOWN),
                records=exception_records.listing(session, limit=SHOWN),
                off=[switch for switch in switches.listing(session) if not switch.is_on],
            )

    def _handle_view(self, name: str, **_: Any) -> Any:
        return shut(getattr(getattr(self, name), "needs", None))
