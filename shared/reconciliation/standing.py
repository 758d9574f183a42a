"""How far the comparison with RazorpayX's books has come, in whole days of India, and which days are missing.

Here alone it is decided when a day is due. It is compared from 02:00 IST on, and not missing before 03:00: a
comparison takes its time, and one that could not be read to the end is tried again each quarter of an hour.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.models import Withdrawal

# After midnight the provider's lists still fill up.
SETTLED_SECONDS, GRACE_SECONDS = 2 * 3600, 3600
DAYS_BACK = 10  # older days than these are compared only when people ask for it

Day = tuple[datetime, datetime]

# The whole days in India for which a run counts: they lie in its period, and were over when it began.
RUNS = """WITH india AS (
    SELECT id, outcome, exceptions, from_at AT TIME ZONE interval '05:30' AS begins,
           least(to_at, started_at) AT TIME ZONE interval '05:30' AS ends
    FROM reconciliation_runs WHERE outcome IN ('clean', 'exceptions')
), runs AS (
    SELECT id, outcome, exceptions, date_trunc('day', begins + interval '1 day - 1 microsecond') AS begins,
           date_trunc('day', ends) AS ends
    FROM india
)"""
LAST = text(f"""{RUNS}
    SELECT (ends - interval '1 day')::date AS day, outcome, exceptions,
           extract(epoch FROM now() - ends AT TIME ZONE interval '05:30') AS seconds_ago
    FROM runs WHERE begins < ends ORDER BY ends DESC, id DESC LIMIT 1
""")
AMONG = text(f"""{RUNS}
    SELECT day FROM unnest(CAST(:days AS date[])) day
    WHERE EXISTS (SELECT FROM runs WHERE begins <= day AND ends > day)
""")


@dataclass(frozen=True, slots=True)
class Compared:
    """The last day that was compared, what its last run came to, and how long ago it ended."""

    day: date
    outcome: str
    exceptions: int
    seconds_ago: float


def last_compared(session: Session) -> Compared | None:
    """None until a day was compared."""
    row = session.execute(LAST).one_or_none()
    return Compared(row.day, row.outcome, row.exceptions, float(row.seconds_ago)) if row else None


def compared(session: Session, days: Iterable[date]) -> set[date]:
    """Those of these days in India that were compared."""
    return set(session.scalars(AMONG, {"days": list(days)}))


def seconds_ago(session: Session) -> list[float]:
    """How long ago the last day that was compared ended; empty until one was."""
    last = last_compared(session)
    return [last.seconds_ago] if last else []


def days_over(session: Session, now: datetime, *, seconds: float) -> list[Day]:
    """The last days in India that are over for so long, from the first withdrawal on, oldest first."""
    first = session.scalar(select(func.min(Withdrawal.created_at))) or now
    today = _midnight(now)
    begins = [today - timedelta(days=back) for back in range(DAYS_BACK, 0, -1)]
    days = [(day, day + timedelta(days=1)) for day in begins]
    before, last = now - timedelta(seconds=seconds), days[-1]
    return [day for day in days if day[1] <= before and (day[1] > first or day == last)]


def missing(session: Session, now: datetime | None = None) -> list[date]:
    """The days that should have been compared by now and were not, oldest first."""
    now = now or session.scalars(select(func.now())).one()
    days = [begins.date() for begins, _ in days_over(session, now, seconds=SETTLED_SECONDS + GRACE_SECONDS)]
    done = compared(session, days)
    return [day for day in days if day not in done]


def yesterday(session: Session, now: datetime | None = None) -> str:
    """How it stands with yesterday, in a line: what it came to, when it is due, or that it is missing."""
    now = now or session.scalars(select(func.now())).one()
    day, last = _midnight(now).date() - timedelta(days=1), last_compared(session)
    if last is not None and last.day >= day:
        many = "" if last.exceptions == 1 else "s"
        came_to = "clean" if last.outcome == "clean" else f"{last.exceptions} exception{many}"
        return f"yesterday, {day}: {came_to}"
    late = missing(session, now)
    if day in late:
        return f"yesterday, {day}: NOT compared" + (
            f"; the last day that was: {last.day}" if last else ", nor was any day before"
        )
    due = _midnight(now) + timedelta(seconds=SETTLED_SECONDS)
    before = f"; NOT compared before it: {', '.join(map(str, late))}" if late else ""
    return f"yesterday, {day}: due at {due:%H:%M} IST{before}"


def _midnight(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(INDIA).date(), time(), INDIA)
