"""How far the comparison with RazorpayX's books has come, in whole days of India."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import text
from sqlalchemy.orm import Session

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
YESTERDAY = text("SELECT (now() AT TIME ZONE interval '05:30')::date - 1")


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


def yesterday(session: Session) -> str:
    """Whether yesterday was compared, in a line."""
    day, last = session.execute(YESTERDAY).scalar_one(), last_compared(session)
    if last is None:
        return f"yesterday, {day}: NOT compared, nor was any day before"
    if last.day < day:
        return f"yesterday, {day}: NOT compared; the last day that was: {last.day}"
    many = "" if last.exceptions == 1 else "s"
    return f"yesterday, {day}: " + (
        "clean" if last.outcome == "clean" else f"{last.exceptions} exception{many}"
    )
