"""Reconciliation with the provider itself: for yesterday, or for a period that people ask about."""

from datetime import datetime, time, timedelta

from sqlalchemy import func, select

from shared import db
from shared.clock import INDIA
from shared.models import ReconciliationRun
from shared.razorpayx.client import RazorpayX
from shared.reconciliation import Result, reconcile
from shared.settings import settings

# After midnight the provider's lists still fill up. A run that is under way is left to its end for so long.
SETTLED_SECONDS, RUNNING_SECONDS = 2 * 3600, 3600


def run(from_at: datetime | None = None, to_at: datetime | None = None) -> Result:
    """Compare a period; by default yesterday in India. Raises BadRequest, Unavailable."""
    begins, ends = period(from_at, to_at)
    return reconcile(RazorpayX(settings()), begins, ends)


def nightly() -> Result | None:
    """Compare yesterday, late enough in the night and once; None when there is nothing to do.

    What could not be read completely is tried again at the next call. Two at once do no harm: the second
    finds the same records. Raises Unavailable.
    """
    begins, ends = period(None, None)
    done = select(ReconciliationRun.id).where(
        ReconciliationRun.from_at == begins,
        ReconciliationRun.to_at == ends,
        ReconciliationRun.outcome.in_(("clean", "exceptions"))
        | (ReconciliationRun.started_at > func.now() - timedelta(seconds=RUNNING_SECONDS))
        & ReconciliationRun.outcome.is_(None),
    )
    with db.transaction() as session:
        too_early = session.scalars(select(func.now() < ends + timedelta(seconds=SETTLED_SECONDS))).one()
        if too_early or session.scalar(done.limit(1)):
            return None
    return run(begins, ends)


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
