"""The dashboard: integrity, money, results, queues, and items that need a decision."""

from collections.abc import Sequence
from typing import Any

from flask_admin import AdminIndexView
from markupsafe import Markup
from sqlalchemy import Row

from api.admin import charts, dashboard_boxes
from api.admin.dashboard_data import Facts, load
from api.admin.page import check_access, route
from api.admin.user_actions import with_refusals
from shared.coins import adjustments
from shared.db.transactions import transaction
from shared.monitoring.overview import AGE_LABELS
from shared.monitoring.totals import counts, sums
from shared.people import exception_records, severities
from shared.roles import Role
from shared.settings import settings
from shared.withdrawals import blocks, resolve, review

MAX_SHOWN = 20  # rows of each list


class Home(AdminIndexView):
    """`/admin/`."""

    def __init__(self) -> None:
        super().__init__(name="Dashboard", url="/admin")

    @route("/", Role.VIEWER)
    def index(self) -> str:
        """The dashboard, proposals that await a second person, and open exception records."""
        with transaction() as session:
            facts = load(session)
            lists = {
                "proposals": resolve.open_proposals(session, limit=MAX_SHOWN),
                "awaiting": review.awaiting_approval(session, limit=MAX_SHOWN),
                "adjustments": adjustments.open_proposals(session, limit=MAX_SHOWN),
                "removals": with_refusals(session, blocks.open_removals(session, limit=MAX_SHOWN)),
                "records": [
                    (record, severities.severity_of(record.kind))
                    for record in exception_records.listing(session, limit=MAX_SHOWN)
                ],
            }
            number = {
                "proposals": resolve.count_open(session),
                "awaiting": review.count_awaiting(session),
                "adjustments": adjustments.count_open(session),
                "removals": blocks.count_open(session),
                "records": sum(facts.exceptions.values()),
            }
        return self.render(
            "dashboard.html",
            title="Dashboard",
            facts=facts,
            boxes=dashboard_boxes.boxes(facts),
            ages=AGE_LABELS,
            day=sums.total(facts.totals),
            held_chart=_held_chart(facts.waiting),
            hours_chart=_hours_chart(facts),
            handles_chart=_handles_chart(facts),
            idle_seconds=settings().admin_idle_seconds,
            attempts={f"@{row.handle}": row for row in facts.handles},
            number=number,
            **lists,
        )

    def _handle_view(self, name: str, **_: Any) -> Any:
        return check_access(getattr(self, name))


def _held_chart(waiting: Sequence[Row[Any]]) -> Markup | None:
    if not waiting:
        return None
    series = [
        (age, [float(row.paise_by_age[place] or 0) for row in waiting])
        for place, age in enumerate(AGE_LABELS)
    ]
    labels = [f"{row.status}, {row.status_reason}" for row in waiting]
    return charts.horizontal_bars("Rupees held, by reason and age", labels, series)


def _hours_chart(facts: Facts) -> Markup | None:
    if not facts.totals:
        return None
    hours = facts.by_hour
    series = [
        ("paid", [float(totals.paise[counts.PAID]) for _, totals in hours]),
        ("refunded", [float(totals.refunded_paise) for _, totals in hours]),
    ]
    labels = [f"{hour:%H}" for hour, _ in hours]
    return charts.vertical_bars("Rupees paid and refunded, by hour", labels, series)


def _handles_chart(facts: Facts) -> Markup | None:
    ended = [(handle, totals) for handle, totals in facts.by_handle if totals.refund_rate is not None]
    if not ended:
        return None
    rates = [100 * (totals.refund_rate or 0) for _, totals in ended]
    return charts.horizontal_bars(
        "Refund rate by UPI handle",
        [handle for handle, _ in ended],
        [("refunded", rates)],
        unit="percent",
    )
