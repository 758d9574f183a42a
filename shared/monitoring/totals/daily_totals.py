"""Totals of finished days, stored as rows.

A day is counted an hour after its end, when all of its rows are visible (as in `sealing.py`). Concurrent
counts are safe: each day is one transaction, and the second finds the day counted. Events never change, so a
day's numbers do not either, except for fees that the provider reports days later: an event records that, and
the day is deleted and counted again. Payments do not depend on this data, and all of it may be deleted.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta

import structlog
from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.errors import Unavailable
from shared.models import CountedDay
from shared.monitoring.totals.counts import (
    TOTALS_QUERY,
    TotalsRow,
    count_totals,
    day_bounds,
    query_values,
    to_rows,
)
from shared.monitoring.totals.sums import WithdrawalTotals

MAX_DAYS_PER_CALL = 100
READER_TIMEOUT_SECONDS = 2.0  # a reader counts missing days for at most this long
MAX_LIVE_DAYS = 2  # uncounted days that are counted for a reader without being stored: today and yesterday

SELECT_MISSING_DAYS = text("""
    SELECT each.day::date
    FROM (SELECT (min(created_at) AT TIME ZONE interval '05:30')::date AS first,
                 ((now() - interval '1 hour') AT TIME ZONE interval '05:30')::date - 1 AS last
          FROM withdrawals) known,
         generate_series(known.first + greatest(0, CAST(:first AS date) - known.first),
                         least(known.last, CAST(:last AS date)), interval '1 day') AS each (day)
    WHERE NOT EXISTS (SELECT FROM counted_days WHERE counted_days.day = each.day::date)
    ORDER BY 1 DESC LIMIT :most
""")
INSERT_DAY = text("INSERT INTO counted_days (day) VALUES (:day) ON CONFLICT DO NOTHING RETURNING day")
INSERT_TOTALS = text(f"""
    INSERT INTO day_totals (day, handle, what, reason, number, coins, paise, fees_paise, tax_paise, times)
    {TOTALS_QUERY}
""")
# Two transactions that delete the same days could deadlock.
LOCK = text("SELECT pg_advisory_xact_lock(hashtext('totals: who may forget'))")
# Days with an event after their payment, since the last count and two hours before it: an event may become
# visible some time after it was written, so it counts as late for an hour longer.
DELETE_CHANGED_DAYS = text("""
    DELETE FROM counted_days d USING (
        SELECT (paid.created_at AT TIME ZONE interval '05:30')::date AS day, max(late.created_at) AS moved_at
        FROM withdrawal_events late JOIN withdrawal_events paid ON paid.withdrawal_id = late.withdrawal_id
             AND paid.to_status = 'completed' AND paid.from_status <> paid.to_status
        WHERE late.from_status = 'completed'
          AND late.created_at >= (SELECT max(counted_at) FROM counted_days) - interval '2 hours'
        GROUP BY 1) moved
    WHERE d.day = moved.day AND d.counted_at <= moved.moved_at + interval '1 hour'
""")
SELECT_STORED = text("""
    SELECT day::timestamp AS slot, handle, what, reason, number, coins, paise, fees_paise, tax_paise, times
    FROM day_totals WHERE day BETWEEN :first AND :last ORDER BY 1, 2, 3, 4
""")
# The same, summed by the database: by day, and by handle.
SELECT_SUMS = text("""
    SELECT day::timestamp AS slot, handle, what, reason, sum(number)::bigint, sum(coins)::bigint,
           sum(paise)::bigint, sum(fees_paise)::bigint, sum(tax_paise)::bigint
    FROM day_totals WHERE day BETWEEN :first AND :last
    GROUP BY GROUPING SETS ((day, what, reason), (handle, what, reason))
""")
SELECT_TIMES = text("""
    SELECT day, handle, times FROM day_totals WHERE what = 'completed' AND day BETWEEN :first AND :last
""")
SELECT_COUNTED_DAYS = select(CountedDay.day).where(
    CountedDay.day.between(bindparam("first"), bindparam("last"))
)

log = structlog.get_logger()


def store_finished_days(*, most: int = MAX_DAYS_PER_CALL) -> int:
    """Count and store finished days that are missing, newest first. Returns their number. Raises
    Unavailable.
    """
    with transaction() as session:
        _delete_changed_days(session)
        missing = _missing_days(session, date.min, date.max, most)
    for day in missing:
        store_day(day)
    return len(missing)


def store_day(day: date) -> bool:
    """Count and store a day. Returns False if it is stored already. Raises Unavailable."""
    with transaction() as session:
        if session.scalar(INSERT_DAY, {"day": day}) is None:
            return False
        session.execute(INSERT_TOTALS, query_values(*day_bounds(day), "day"))
    log.info("[TOTALS] counted", day=day.isoformat())
    return True


@dataclass(slots=True)
class PeriodTotals:
    """Totals of a period up to now: for each day with any event, and for each handle."""

    by_day: dict[date, WithdrawalTotals] = field(default_factory=lambda: defaultdict(WithdrawalTotals))
    by_handle: dict[str, WithdrawalTotals] = field(default_factory=lambda: defaultdict(WithdrawalTotals))

    def add(self, row: TotalsRow) -> None:
        """Add a row to its day and its handle."""
        self.by_day[row.slot.date()].add(row)
        self.by_handle[f"@{row.handle}"].add(row)

    @property
    def all(self) -> WithdrawalTotals:
        period = WithdrawalTotals()
        for day in self.by_day.values():
            period.merge(day)
        return period


def totals_between(first: date, last: date) -> PeriodTotals:
    """Totals of the days from `first` to `last`, both included, up to now.

    Raises Unavailable, also if so many days are missing that a reader would wait too long.
    """
    catch_up(first, last)
    period = PeriodTotals()
    days = {"first": first, "last": last}
    with _snapshot() as session:
        for slot, handle, *values in session.execute(SELECT_SUMS, days):
            row = TotalsRow(slot, handle, *values)
            (period.by_handle[f"@{handle}"] if slot is None else period.by_day[slot.date()]).add(row)
        for day, handle, times in session.execute(SELECT_TIMES, days):
            period.by_day[day].add_times(times)
            period.by_handle[f"@{handle}"].add_times(times)
        for row in _live_rows(session, first, last):
            period.add(row)
    return period


def rows_between(first: date, last: date) -> list[TotalsRow]:
    """The rows of the days from `first` to `last`, both included. Raises Unavailable."""
    catch_up(first, last)
    with _snapshot() as session:
        stored = to_rows(session.execute(SELECT_STORED, {"first": first, "last": last}).all())
        return stored + _live_rows(session, first, last)


def catch_up(first: date, last: date) -> None:
    """Count and store the missing finished days of this period. Raises Unavailable, also if it takes too
    long.
    """
    deadline = time.monotonic() + READER_TIMEOUT_SECONDS
    with transaction() as session:
        _delete_changed_days(session)
        missing = _missing_days(session, first, last, (last - first).days + 1)
    for counted, day in enumerate(missing):
        if time.monotonic() > deadline:
            raise Unavailable(
                "Not counted yet",
                f"{len(missing) - counted} days are still being counted. Please retry in a minute",
                code="days_uncounted",
            )
        store_day(day)


@contextmanager
def _snapshot() -> Iterator[Session]:
    """A session with one snapshot for all reads, so a day is either stored or counted now, never both."""
    with transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def _live_rows(session: Session, first: date, last: date) -> list[TotalsRow]:
    """Rows of the days that are not stored yet: today, and yesterday until it can be counted."""
    counted = set(session.scalars(SELECT_COUNTED_DAYS, {"first": first, "last": last}))
    today = session.execute(text("SELECT (now() AT TIME ZONE interval '05:30')::date")).scalar_one()
    recent = [today - timedelta(days=back) for back in range(MAX_LIVE_DAYS, -1, -1)]
    live_days = [day for day in recent if first <= day <= last and day not in counted]
    return [row for day in live_days for row in count_totals(session, *day_bounds(day))]


def _delete_changed_days(session: Session) -> None:
    session.execute(LOCK)
    session.execute(DELETE_CHANGED_DAYS)


def _missing_days(session: Session, first: date, last: date, most: int) -> list[date]:
    return list(session.scalars(SELECT_MISSING_DAYS, {"first": first, "last": last, "most": most}))
