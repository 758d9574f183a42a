"""Analytics: totals of a range of days in India, by day, UPI handle and reason, on a page or as CSV."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from markupsafe import Markup

from api.admin import audit_writer, charts, csv_export
from api.admin.list_filters import DayRangeForm
from api.admin.page import Page, route
from shared.clock import INDIA
from shared.errors import BadRequest
from shared.monitoring.totals import counts, daily_totals, sums
from shared.monitoring.totals.counts import TotalsRow
from shared.monitoring.totals.daily_totals import PeriodTotals
from shared.monitoring.totals.sums import WithdrawalTotals
from shared.roles import Role

MAX_DAYS = 366
DEFAULT_DAYS = 30
MAX_HANDLES = 30
EXPORT_CHUNK_DAYS = 31
COLUMNS = (
    "day_ist", "upi_handle", "what", "reason", "withdrawals", "coins", "rupees", "fees_rupees", "tax_rupees",
    "request_to_paid_p50_seconds", "request_to_paid_p95_seconds",
)  # fmt: skip


class Analytics(Page):
    """`/admin/analytics/`."""

    title = "Analytics"
    endpoint_name = "analytics"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """The totals of the range."""
        form = DayRangeForm.submitted()
        try:
            first, last = _range(form)
        except BadRequest as error:
            fault = f"{error.error}: {error.details}."
            return self.render("analytics.html", title=self.title, form=form, fault=fault), 400
        period = daily_totals.totals_between(first, last)
        days = _totals_by_day(period, first, last)
        return self.render(
            "analytics.html",
            title=self.title,
            form=DayRangeForm(since=first, until=last),
            typed={"from": first.isoformat(), "to": last.isoformat()},
            all=period.all,
            days=days,
            handles=sums.largest(period.by_handle, MAX_HANDLES),
            money_chart=_money_chart(days) if period.by_day else None,
            times_chart=_times_chart(days) if any(totals.paid for _, totals in days) else None,
        )

    @route("/export.csv", Role.VIEWER)
    def export(self) -> Any:
        """The range as CSV: one row for each day, handle, outcome and reason. It names no user."""
        first, last = _range(DayRangeForm.submitted())
        daily_totals.catch_up(first, last)
        audit_writer.write("export_totals", since=first.isoformat(), until=last.isoformat())
        return csv_export.csv_response("totals.csv", _csv_chunks(first, last))


def _range(form: DayRangeForm) -> tuple[date, date]:
    """The requested range, both days included. Raises BadRequest."""
    form.require_valid()
    last = form.until.data or datetime.now(INDIA).date()
    first = form.since.data or last - timedelta(days=min(DEFAULT_DAYS, last.toordinal()) - 1)
    if last < first:
        raise BadRequest("Invalid range", "The range ends before it begins", code="bad_range")
    if (last - first).days >= MAX_DAYS:
        raise BadRequest("Invalid range", f"Choose at most {MAX_DAYS} days", code="bad_range")
    return first, last


def _totals_by_day(period: PeriodTotals, first: date, last: date) -> list[tuple[date, WithdrawalTotals]]:
    """Totals of every day up to today, including days without events."""
    end = min(last, datetime.now(INDIA).date())
    days = [first + timedelta(days=offset) for offset in range((end - first).days + 1)]
    return [(day, period.by_day.get(day) or WithdrawalTotals()) for day in days]


def _money_chart(days: list[tuple[date, WithdrawalTotals]]) -> Markup:
    series = [
        ("requested", [float(totals.paise[counts.REQUESTED]) for _, totals in days]),
        ("paid", [float(totals.paise[counts.PAID]) for _, totals in days]),
        ("refunded", [float(totals.refunded_paise) for _, totals in days]),
    ]
    return charts.lines("Rupees requested, paid and refunded, by day", _labels(days), series)


def _times_chart(days: list[tuple[date, WithdrawalTotals]]) -> Markup:
    series = [
        ("median", [totals.p50_seconds for _, totals in days]),
        ("95 % within", [totals.p95_seconds for _, totals in days]),
    ]
    return charts.lines("Time from request to paid, by day", _labels(days), series, unit="seconds")


def _labels(days: list[tuple[date, WithdrawalTotals]]) -> list[str]:
    return [f"{day:%d %b}" for day, _ in days]


def _csv_chunks(first: date, last: date) -> Iterator[str]:
    yield csv_export.csv_text([COLUMNS])
    while first <= last:
        until = min(last, first + timedelta(days=EXPORT_CHUNK_DAYS - 1))
        yield csv_export.csv_text(_cells(row) for row in daily_totals.rows_between(first, until))
        first = until + timedelta(days=1)


def _cells(row: TotalsRow) -> tuple[str, ...]:
    times = sums.total([row])
    return (
        row.slot.date().isoformat(),
        row.handle,
        row.outcome,
        row.reason,
        str(row.number),
        str(row.coins),
        csv_export.rupees(row.paise),
        csv_export.rupees(row.fees_paise),
        csv_export.rupees(row.tax_paise),
        "" if times.p50_seconds is None else f"{times.p50_seconds:.1f}",
        "" if times.p95_seconds is None else f"{times.p95_seconds:.1f}",
    )
