"""Which whole days in India are reconciled with the provider, and which are missing.

Only this module decides when a day is due: from 02:00 IST. It is missing from 03:00, because a run takes time
and one that could not read everything is retried every quarter of an hour.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.models import Withdrawal

SETTLED_SECONDS = 2 * 3600  # after midnight: the provider's lists still fill up
GRACE_SECONDS = 3600  # for the run itself, before a day counts as missing
MAX_DAYS_BACK = 10  # older days are compared only on request

Day = tuple[datetime, datetime]

# The whole days in India that a run covers: they are within its period and were over when it started.
RUN_DAYS = """WITH india AS (
    SELECT id, outcome, exceptions, from_at AT TIME ZONE interval '05:30' AS begins,
           least(to_at, started_at) AT TIME ZONE interval '05:30' AS ends
    FROM reconciliation_runs WHERE outcome IN ('clean', 'exceptions')
), runs AS (
    SELECT id, outcome, exceptions, date_trunc('day', begins + interval '1 day - 1 microsecond') AS begins,
           date_trunc('day', ends) AS ends
    FROM india
)"""
SELECT_LAST_DAY = text(f"""{RUN_DAYS}
    SELECT (ends - interval '1 day')::date AS day, outcome, exceptions,
           extract(epoch FROM now() - ends AT TIME ZONE interval '05:30') AS seconds_ago
    FROM runs WHERE begins < ends ORDER BY ends DESC, id DESC LIMIT 1
""")
SELECT_COMPARED_DAYS = text(f"""{RUN_DAYS}
    SELECT day FROM unnest(CAST(:days AS date[])) day
    WHERE EXISTS (SELECT FROM runs WHERE begins <= day AND ends > day)
""")


@dataclass(frozen=True, slots=True)
class LastComparedDay:
    """The last day that was compared, the outcome of its last run, and the time since the day ended."""

    day: date
    outcome: str
    exceptions: int
    seconds_ago: float


def last_compared(session: Session) -> LastComparedDay | None:
    """The last compared day. None if there is none yet."""
    row = session.execute(SELECT_LAST_DAY).one_or_none()
    return LastComparedDay(row.day, row.outcome, row.exceptions, float(row.seconds_ago)) if row else None


def compared_days(session: Session, days: Iterable[date]) -> set[date]:
    """The subset of these days in India that was compared."""
    return set(session.scalars(SELECT_COMPARED_DAYS, {"days": list(days)}))


def seconds_since_compared(session: Session) -> list[float]:
    """Seconds since the end of the last compared day. Empty if there is none yet."""
    last = last_compared(session)
    return [last.seconds_ago] if last else []


def finished_days(session: Session, now: datetime, *, seconds: float) -> list[Day]:
    """The last days in India that ended `seconds` ago or earlier, since the first withdrawal,
    oldest first.
    """
    first = session.scalar(select(func.min(Withdrawal.created_at))) or now
    today = _midnight(now)
    starts = [today - timedelta(days=back) for back in range(MAX_DAYS_BACK, 0, -1)]
    days = [(start, start + timedelta(days=1)) for start in starts]
    cutoff = now - timedelta(seconds=seconds)
    return [day for day in days if day[1] <= cutoff and (day[1] > first or day == days[-1])]


def missing_days(session: Session, now: datetime | None = None) -> list[date]:
    """The days that should have been compared by now but were not, oldest first."""
    now = now or session.scalars(select(func.now())).one()
    days = [
        begins.date() for begins, _ in finished_days(session, now, seconds=SETTLED_SECONDS + GRACE_SECONDS)
    ]
    compared = compared_days(session, days)
    return [day for day in days if day not in compared]


def yesterday_summary(session: Session, now: datetime | None = None) -> str:
    """Yesterday's state in one line: its result, when it is due, or that it is missing."""
    now = now or session.scalars(select(func.now())).one()
    day = _midnight(now).date() - timedelta(days=1)
    last = last_compared(session)
    if last is not None and last.day >= day:
        plural = "" if last.exceptions == 1 else "s"
        result = "clean" if last.outcome == "clean" else f"{last.exceptions} exception{plural}"
        return f"yesterday, {day}: {result}"
    missing = missing_days(session, now)
    if day in missing:
        last_day = f"; last compared day: {last.day}" if last else "; no day was compared yet"
        return f"yesterday, {day}: NOT compared{last_day}"
    due_at = _midnight(now) + timedelta(seconds=SETTLED_SECONDS)
    earlier = f"; NOT compared: {', '.join(map(str, missing))}" if missing else ""
    return f"yesterday, {day}: due at {due_at:%H:%M} IST{earlier}"


def _midnight(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(INDIA).date(), time(), INDIA)
