"""Totals of days that are over, kept as rows.

A day is counted an hour after its end: whatever was written on it can be seen by then, as in `sealing.py`.
Counting twice does no harm, for a day is one transaction, and whoever comes second finds it counted. Events
never change, so a day's numbers do not either, but for the fees of its payouts, which the provider may tell
days later: an event says so, and then the day is forgotten and counted again. Nothing that pays reads this,
and it may all be deleted.
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

from shared.db import transaction
from shared.errors import Unavailable
from shared.models import CountedDay
from shared.totals.counting import LINES, Line, as_lines, count, values, whole_day
from shared.totals.summing import Sum

DAYS_PER_CALL = 100
# A reader counts what is missing, so long and no longer.
READER_SECONDS = 2.0
# So many uncounted days are counted for a reader without being kept: today, and yesterday for an hour.
LIVE_DAYS = 2

MISSING = text("""
    SELECT each.day::date
    FROM (SELECT (min(created_at) AT TIME ZONE interval '05:30')::date AS first,
                 ((now() - interval '1 hour') AT TIME ZONE interval '05:30')::date - 1 AS last
          FROM withdrawals) known,
         generate_series(known.first + greatest(0, CAST(:first AS date) - known.first),
                         least(known.last, CAST(:last AS date)), interval '1 day') AS each (day)
    WHERE NOT EXISTS (SELECT FROM counted_days WHERE counted_days.day = each.day::date)
    ORDER BY 1 DESC LIMIT :most
""")
CLAIM = text("INSERT INTO counted_days (day) VALUES (:day) ON CONFLICT DO NOTHING RETURNING day")
KEEP = text(f"""
    INSERT INTO day_totals (day, handle, what, reason, number, coins, paise, fees_paise, tax_paise, times)
    {LINES}
""")
# Two who forget the same days could wait for each other.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('totals: who may forget'))")
# What came after a payment, since the last count and two hours more: an event may be seen some time after it
# was written, and so it counts as late for an hour longer.
FORGET_MOVED = text("""
    DELETE FROM counted_days d USING (
        SELECT (paid.created_at AT TIME ZONE interval '05:30')::date AS day, max(late.created_at) AS moved_at
        FROM withdrawal_events late JOIN withdrawal_events paid ON paid.withdrawal_id = late.withdrawal_id
             AND paid.to_status = 'completed' AND paid.from_status <> paid.to_status
        WHERE late.from_status = 'completed'
          AND late.created_at >= (SELECT max(counted_at) FROM counted_days) - interval '2 hours'
        GROUP BY 1) moved
    WHERE d.day = moved.day AND d.counted_at <= moved.moved_at + interval '1 hour'
""")
KEPT = text("""
    SELECT day::timestamp AS slot, handle, what, reason, number, coins, paise, fees_paise, tax_paise, times
    FROM day_totals WHERE day BETWEEN :first AND :last ORDER BY 1, 2, 3, 4
""")
# The same, added up by the database: by day, and by handle.
SUMMED = text("""
    SELECT day::timestamp AS slot, handle, what, reason, sum(number)::bigint, sum(coins)::bigint,
           sum(paise)::bigint, sum(fees_paise)::bigint, sum(tax_paise)::bigint
    FROM day_totals WHERE day BETWEEN :first AND :last
    GROUP BY GROUPING SETS ((day, what, reason), (handle, what, reason))
""")
TIMES = text("""
    SELECT day, handle, times FROM day_totals WHERE what = 'completed' AND day BETWEEN :first AND :last
""")
COUNTED = select(CountedDay.day).where(CountedDay.day.between(bindparam("first"), bindparam("last")))

log = structlog.get_logger()


def keep(*, most: int = DAYS_PER_CALL) -> int:
    """Count days that are over and not counted, the newest first; returns how many. Raises Unavailable."""
    with transaction() as session:
        _forget_moved(session)
        missing = _missing(session, date.min, date.max, most)
    for day in missing:
        keep_day(day)
    return len(missing)


def keep_day(day: date) -> bool:
    """Count a day and keep it, unless it is kept. Raises Unavailable."""
    with transaction() as session:
        if session.scalar(CLAIM, {"day": day}) is None:
            return False
        session.execute(KEEP, values(*whole_day(day), "day"))
    log.info("[TOTALS] counted", day=day.isoformat())
    return True


@dataclass(slots=True)
class Days:
    """What some days came to, up to this moment: each day on which something happened, and each handle."""

    by_day: dict[date, Sum] = field(default_factory=lambda: defaultdict(Sum))
    by_handle: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))

    def add(self, line: Line) -> None:
        """Add a line to its day and its handle."""
        self.by_day[line.slot.date()].add(line)
        self.by_handle[f"@{line.handle}"].add(line)

    @property
    def all(self) -> Sum:
        whole = Sum()
        for of_day in self.by_day.values():
            whole.take(of_day)
        return whole


def of_days(first: date, last: date) -> Days:
    """What the days from `first` to `last`, both included, came to, up to this moment.

    Raises Unavailable, also while so many days are not counted yet that somebody would wait for too long.
    """
    catch_up(first, last)
    days, span = Days(), {"first": first, "last": last}
    with _snapshot() as session:
        for slot, handle, *rest in session.execute(SUMMED, span):
            line = Line(slot, handle, *rest)
            (days.by_handle[f"@{handle}"] if slot is None else days.by_day[slot.date()]).add(line)
        for day, handle, times in session.execute(TIMES, span):
            days.by_day[day].add_times(times)
            days.by_handle[f"@{handle}"].add_times(times)
        for line in _live(session, first, last):
            days.add(line)
    return days


def lines_of(first: date, last: date) -> list[Line]:
    """The same, line by line and day by day. Raises Unavailable."""
    catch_up(first, last)
    with _snapshot() as session:
        kept = as_lines(session.execute(KEPT, {"first": first, "last": last}).all())
        return kept + _live(session, first, last)


def catch_up(first: date, last: date) -> None:
    """Count what is over and not counted of these days. Raises Unavailable, also when it takes too long."""
    give_up = time.monotonic() + READER_SECONDS
    with transaction() as session:
        _forget_moved(session)
        missing = _missing(session, first, last, (last - first).days + 1)
    for done, day in enumerate(missing):
        if time.monotonic() > give_up:
            left = len(missing) - done
            raise Unavailable(
                "Not counted yet",
                f"{left} days of these are still being counted; try again in a minute",
                code="days_uncounted",
            )
        keep_day(day)


@contextmanager
def _snapshot() -> Iterator[Session]:
    """One moment for all that is read: a day is either kept or counted now, never both."""
    with transaction() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def _live(session: Session, first: date, last: date) -> list[Line]:
    """What the days came to that nobody keeps yet: today, and yesterday until it can be counted."""
    counted = set(session.scalars(COUNTED, {"first": first, "last": last}))
    today = session.execute(text("SELECT (now() AT TIME ZONE interval '05:30')::date")).scalar_one()
    near = [today - timedelta(days=back) for back in range(LIVE_DAYS, -1, -1)]
    open_days = [day for day in near if first <= day <= last and day not in counted]
    return [line for day in open_days for line in count(session, *whole_day(day))]


def _forget_moved(session: Session) -> None:
    session.execute(ONE_AT_A_TIME)
    session.execute(FORGET_MOVED)


def _missing(session: Session, first: date, last: date, most: int) -> list[date]:
    return list(session.scalars(MISSING, {"first": first, "last": last, "most": most}))
