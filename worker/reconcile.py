"""Reconciliation with the provider itself: for each day, or for a period that people ask about."""

from datetime import datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import db, exception_records
from shared.clock import INDIA
from shared.models import ReconciliationRun
from shared.razorpayx.client import RazorpayX
from shared.reconciliation import Result, owed, reconcile, standing
from shared.reconciliation.standing import DAYS_BACK, SETTLED_SECONDS, Day
from shared.settings import settings

RUNNING_SECONDS = 3600  # a run that is under way is left to its end for so long
LATE_SECONDS = 24 * 3600  # a day that could not be compared is told to people when it is this late
NOT_RECONCILED = "not_reconciled"  # of a day: its date is the subject


def run(from_at: datetime | None = None, to_at: datetime | None = None) -> Result:
    """Compare a period; by default yesterday in India. Raises BadRequest, Unavailable."""
    begins, ends = period(from_at, to_at)
    result = reconcile(RazorpayX(settings()), begins, ends)
    if result.outcome != "incomplete":
        _close_what_is_compared(begins, ends)
    return result


def nightly() -> Result | None:
    """Compare a day that is over for long enough and was not compared; None when there is none.

    What could not be read completely is tried again, the one that has waited longest for a try first. A day
    that is late is told to people. Two at once do no harm: the second finds the same records. Raises
    Unavailable.
    """
    with db.transaction() as session:
        now = session.scalars(select(func.now())).one()
        tries = _tries(session, now)
        _tell_what_is_late(session, now, tries)
        owed.tell(session)
    if not tries:
        return None
    return run(*min(tries, key=lambda day: (tries[day] or day[0], day)))


def _tries(session: Session, now: datetime) -> dict[Day, datetime | None]:
    """The days that are not compared and that nobody compares now, with when that was last tried."""
    days = standing.days_over(session, now, seconds=SETTLED_SECONDS)
    compared = standing.compared(session, (begins.date() for begins, _ in days))
    tries: dict[Day, datetime | None] = {day: None for day in days if day[0].date() not in compared}
    runs = select(ReconciliationRun).where(ReconciliationRun.from_at >= now - timedelta(days=DAYS_BACK + 2))
    for one in session.scalars(runs.order_by(ReconciliationRun.started_at)):
        day = (one.from_at.astimezone(INDIA), one.to_at.astimezone(INDIA))
        if one.outcome is None and one.started_at > now - timedelta(seconds=RUNNING_SECONDS):
            tries.pop(day, None)
        elif day in tries:
            tries[day] = one.started_at
    return tries


def _tell_what_is_late(session: Session, now: datetime, tries: dict[Day, datetime | None]) -> None:
    for (begins, ends), tried_at in tries.items():
        if now - ends > timedelta(seconds=SETTLED_SECONDS + LATE_SECONDS):
            day = str(begins.date())
            exception_records.open_record(
                session,
                kind=NOT_RECONCILED,
                subject=day,
                source="watch",
                ours={"day": day, "last_tried_at": tried_at.isoformat() if tried_at else None},
                theirs={},
            )


def period(from_at: datetime | None, to_at: datetime | None) -> tuple[datetime, datetime]:
    """The period that is meant: yesterday in India, or the day that begins or ends with what is given."""
    day = timedelta(days=1)
    if from_at is not None:
        return from_at, to_at or from_at + day
    if to_at is not None:
        return to_at - day, to_at
    with db.transaction() as session:
        now = session.scalars(select(func.now())).one()
    today = datetime.combine(now.astimezone(INDIA).date(), time(), INDIA)
    return today - day, today


def _close_what_is_compared(begins: datetime, ends: datetime) -> None:
    """The days in India of this period that are compared need nobody any more."""
    number = (min(ends, datetime.now(INDIA)) - begins).days + 2
    days = [begins.astimezone(INDIA).date() + timedelta(days=day) for day in range(number)]
    with db.transaction() as session:
        for day in standing.compared(session, days):
            exception_records.close_all(
                session,
                kind=NOT_RECONCILED,
                subject=str(day),
                resolution="it was compared",
                actor="system",
            )
