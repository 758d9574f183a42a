"""The front page: where the money is, how it goes, and what waits for a person."""

from collections.abc import Sequence
from typing import Any

from flask_admin import AdminIndexView
from markupsafe import Markup
from sqlalchemy import Row

from api.admin import charts, dashboard
from api.admin.facts import Facts, look
from api.admin.page import opens, shut
from api.admin.ruling import with_refusals
from shared import adjusting, blocks, exception_records, severities
from shared.db import transaction
from shared.overview import AGES
from shared.roles import Role
from shared.settings import settings
from shared.totals import counting, summing
from shared.withdrawals import resolving, reviewing

SHOWN = 20


class Home(AdminIndexView):
    """`/admin/`."""

    def __init__(self) -> None:
        super().__init__(name="Dashboard", url="/admin")

    @opens("/", Role.VIEWER)
    def index(self) -> str:
        """The dashboard; below it proposals that wait for a second person, and open exceptions."""
        with transaction() as session:
            facts = look(session)
            people = {
                "proposals": resolving.all_waiting(session, limit=SHOWN),
                "awaiting": reviewing.waiting(session, limit=SHOWN),
                "adjustments": adjusting.waiting(session, limit=SHOWN),
                "removals": with_refusals(session, blocks.waiting(session, limit=SHOWN)),
                "records": [
                    (record, severities.of_kind(record.kind))
                    for record in exception_records.listing(session, limit=SHOWN)
                ],
            }
            number = {
                "proposals": resolving.number_waiting(session),
                "awaiting": reviewing.number_waiting(session),
                "adjustments": adjusting.number_waiting(session),
                "removals": blocks.number_waiting(session),
                "records": sum(facts.exceptions.values()),
            }
        return self.render(
            "home.html",
            title="Dashboard",
            facts=facts,
            boxes=dashboard.boxes(facts),
            ages=AGES,
            day=summing.total(facts.lines),
            held_chart=_held(facts.waiting),
            hours_chart=_hours(facts),
            handles_chart=_handles(facts),
            idle_seconds=settings().admin_idle_seconds,
            attempts={f"@{row.handle}": row for row in facts.handles},
            number=number,
            **people,
        )

    def _handle_view(self, name: str, **_: Any) -> Any:
        return shut(getattr(self, name))


def _held(waiting: Sequence[Row[Any]]) -> Markup | None:
    if not waiting:
        return None
    series = [
        (age, [float(row.paise_by_age[place] or 0) for row in waiting]) for place, age in enumerate(AGES)
    ]
    labels = [f"{row.status}, {row.status_reason}" for row in waiting]
    return charts.lying("Rupees held, by reason and age", labels, series)


def _hours(facts: Facts) -> Markup | None:
    if not facts.lines:
        return None
    hours = facts.by_hour
    series = [
        ("paid", [float(came_to.paise[counting.PAID]) for _, came_to in hours]),
        ("refunded", [float(came_to.refunded_paise) for _, came_to in hours]),
    ]
    return charts.standing("Rupees paid and refunded, by hour", [f"{hour:%H}" for hour, _ in hours], series)


def _handles(facts: Facts) -> Markup | None:
    ended = [(handle, came_to) for handle, came_to in facts.by_handle if came_to.refund_rate is not None]
    if not ended:
        return None
    rates = [100 * (came_to.refund_rate or 0) for _, came_to in ended]
    return charts.lying(
        "Refunded, of those that ended, by UPI handle",
        [handle for handle, _ in ended],
        [("refunded", rates)],
        unit="percent",
    )
