"""An action on a withdrawal: who may take it, when it is possible, its effects, and what does it."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.admin import sessions
from api.admin.forms import ActionForm
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.money import grouped, rupees_text
from shared.roles import REQUIRED_ROLE, Permission, Role
from shared.states import LIVE
from shared.text.upi import mask
from shared.withdrawals import find, resolve

REASON = "Reason"
EVIDENCE = "Evidence: what you saw, and where"


@dataclass(frozen=True, slots=True)
class ActionContext:
    """A withdrawal while an operator decides: the row, its live attempt and its open proposal."""

    session: Session
    withdrawal: Withdrawal
    attempt: PayoutAttempt | None
    proposal: Resolution | None
    actor: str

    @property
    def rupees(self) -> str:
        return rupees_text(self.withdrawal.amount_paise)

    @property
    def coins(self) -> str:
        return grouped(self.withdrawal.coins_amount)

    @property
    def payee(self) -> str:
        return mask(self.withdrawal.upi_id)


@dataclass(frozen=True, slots=True)
class ActionInput:
    """What an operator entered, and the version of the row that they saw."""

    reason: str
    version: int
    actor: str
    proposal: UUID | None = None
    utr: str = ""
    paid_via: str = ""
    paid_at: str = ""  # as typed, in IST


@dataclass(frozen=True, slots=True)
class Action:
    """Something that an operator can do to a withdrawal."""

    code: str  # in addresses and in the audit log
    title: str  # of its button
    prompt: str  # the label of the reason
    why_not: Callable[[ActionContext], str | None]  # None if it is possible
    describe: Callable[[ActionContext], list[str]]  # its effects, in sentences
    run: Callable[[UUID, ActionInput], str]  # returns the message
    needs: Permission = Permission.WITHDRAWALS
    form: type[ActionForm] = ActionForm
    bulk_title: str = ""  # on the button of the list; empty if it is for one withdrawal only

    @property
    def role(self) -> Role:
        """The role that it needs."""
        return REQUIRED_ROLE[self.needs]


def load_context(session: Session, withdrawal_id: UUID, *, version: int | None = None) -> ActionContext:
    """The withdrawal as it is now; a `version` must still be the row's. Raises NotFound, Stale."""
    withdrawal = find(session, withdrawal_id, version=version)
    live = select(PayoutAttempt).where(
        PayoutAttempt.withdrawal_id == withdrawal_id, PayoutAttempt.state.in_(LIVE)
    )
    proposal = resolve.open_proposal(session, withdrawal_id)
    return ActionContext(session, withdrawal, session.scalar(live), proposal, sessions.actor())
