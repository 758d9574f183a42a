"""What days came to: for a range of days in India, by day, by UPI handle, by reason, and as a file."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from flask import request
from markupsafe import Markup

from api.admin import asking, charts, exporting, records
from api.admin.page import Page, opens
from shared.clock import INDIA
from shared.errors import BadRequest
from shared.roles import Role
from shared.totals import counting, keeping, summing
from shared.totals.counting import Line
from shared.totals.keeping import Days
from shared.totals.summing import Sum

MOST_DAYS = 366
USUAL_DAYS = 30
MOST_HANDLES = 30
CHUNK_DAYS = 31
MOST_TYPED = 10  # a day
COLUMNS = (
    "day_ist", "upi_handle", "what", "reason", "withdrawals", "coins", "rupees", "fees_rupees", "tax_rupees",
    "request_to_paid_p50_seconds", "request_to_paid_p95_seconds",
)  # fmt: skip


class Analytics(Page):
    """`/admin/analytics/`."""

    title, endpoint_name = "Analytics", "analytics"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """The range, in sums."""
        typed = {name: request.args.get(name, "").strip()[: MOST_TYPED + 1] for name in ("from", "to")}
        try:
            first, last = _range()
        except BadRequest as error:
            fault = f"{error.error}: {error.details}."
            return self.render("analytics.html", title=self.title, typed=typed, fault=fault), 400
        found = keeping.of_days(first, last)
        days = _each(found, first, last)
        return self.render(
            "analytics.html",
            title=self.title,
            typed={"from": first.isoformat(), "to": last.isoformat()},
            all=found.all,
            days=days,
            handles=summing.top(found.by_handle, MOST_HANDLES),
            money_chart=_money(days) if found.by_day else None,
            times_chart=_times(days) if any(came_to.paid for _, came_to in days) else None,
        )

    @opens("/export.csv", Role.VIEWER)
    def export(self) -> Any:
        """The range as a file: a line for each day, handle, end and reason. It names no user."""
        first, last = _range()
        keeping.catch_up(first, last)
        records.write("export_totals", since=first.isoformat(), until=last.isoformat())
        return exporting.as_file("totals.csv", _file(first, last))


def _range() -> tuple[date, date]:
    """What is asked for, both days included. Raises BadRequest."""
    today = datetime.now(INDIA).date()
    last = _day("to", today)
    first = _day("from", last - timedelta(days=min(USUAL_DAYS, last.toordinal()) - 1))
    if last < first:
        raise BadRequest("Invalid range", "It ends before it begins", code="bad_range")
    if (last - first).days >= MOST_DAYS:
        raise BadRequest("Invalid range", f"At most {MOST_DAYS} days", code="bad_range")
    return first, last


def _day(name: str, default: date) -> date:
    typed = request.args.get(name, "").strip()
    found = asking.day(name, typed or None)
    return default if found is None else found.date()


def _each(found: Days, first: date, last: date) -> list[tuple[date, Sum]]:
    """The days up to today, also those on which nothing happened."""
    end = min(last, datetime.now(INDIA).date())
    days = [first + timedelta(days=ahead) for ahead in range((end - first).days + 1)]
    return [(day, found.by_day.get(day) or Sum()) for day in days]


def _money(days: list[tuple[date, Sum]]) -> Markup:
    series = [
        ("asked for", [float(came_to.paise[counting.ASKED]) for _, came_to in days]),
        ("paid", [float(came_to.paise[counting.PAID]) for _, came_to in days]),
        ("refunded", [float(came_to.refunded_paise) for _, came_to in days]),
    ]
    return charts.lines("Rupees asked for, paid and refunded, by day", _labels(days), series)


def _times(days: list[tuple[date, Sum]]) -> Markup:
    series = [
        ("half of them within", [came_to.p50_seconds for _, came_to in days]),
        ("95 of 100 within", [came_to.p95_seconds for _, came_to in days]),
    ]
    return charts.lines("Time from request to paid, by day", _labels(days), series, unit="seconds")


def _labels(days: list[tuple[date, Sum]]) -> list[str]:
    return [f"{day:%d %b}" for day, _ in days]


def _file(first: date, last: date) -> Iterator[str]:
    yield exporting.written([COLUMNS])
    while first <= last:
        until = min(last, first + timedelta(days=CHUNK_DAYS - 1))
        yield exporting.written(_cells(line) for line in keeping.lines_of(first, until))
        first = until + timedelta(days=1)


def _cells(line: Line) -> tuple[str, ...]:
    times = summing.total([line])
    return (
        line.slot.date().isoformat(),
        line.handle,
        line.came_to,
        line.reason,
        str(line.number),
        str(line.coins),
        exporting.rupees(line.paise),
        exporting.rupees(line.fees_paise),
        exporting.rupees(line.tax_paise),
        "" if times.p50_seconds is None else f"{times.p50_seconds:.1f}",
        "" if times.p95_seconds is None else f"{times.p95_seconds:.1f}",
    )
