"""Reconcile each day with the provider, or a period on request."""

from datetime import datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.clock import INDIA
from shared.db.transactions import transaction
from shared.models import ReconciliationRun
from shared.people import exception_records
from shared.providers.port import ProviderClient
from shared.reconciliation import coverage, owed_coins
from shared.reconciliation.coverage import MAX_DAYS_BACK, SETTLED_SECONDS, Day
from shared.reconciliation.run import Result, reconcile

RUN_TIMEOUT_SECONDS = 3600  # no second run of the same day starts within this time
LATE_SECONDS = 24 * 3600  # a day that is this late gets an exception record
NOT_RECONCILED = "not_reconciled"  # kind of that record; its subject is the date


def run(client: ProviderClient, from_at: datetime | None = None, to_at: datetime | None = None) -> Result:
    """Reconcile a period, by default yesterday in India. Raises BadRequest, Unavailable."""
    since, until = period(from_at, to_at)
    result = reconcile(client, since, until)
    if result.outcome != "incomplete":
        _close_compared_days(since, until)
    return result


def nightly(client: ProviderClient) -> Result | None:
    """Reconcile one day that is due and not compared yet. Returns None if there is none.

    Days that could not be read completely are retried, least recently tried first. A late day gets an
    exception record. Concurrent calls are safe: the second finds the same records. Raises Unavailable.
    """
    with transaction() as session:
        now = session.scalars(select(func.now())).one()
        last_tries = _last_tries(session, now)
        _report_late_days(session, now, last_tries)
        owed_coins.open_records(session)
    if not last_tries:
        return None
    return run(client, *min(last_tries, key=lambda day: (last_tries[day] or day[0], day)))


def _last_tries(session: Session, now: datetime) -> dict[Day, datetime | None]:
    """The due days that are not compared and have no run in progress, each with the time of its last try."""
    days = coverage.finished_days(session, now, seconds=SETTLED_SECONDS)
    compared = coverage.compared_days(session, (begins.date() for begins, _ in days))
    last_tries: dict[Day, datetime | None] = {day: None for day in days if day[0].date() not in compared}
    runs = select(ReconciliationRun).where(
        ReconciliationRun.from_at >= now - timedelta(days=MAX_DAYS_BACK + 2)
    )
    for past in session.scalars(runs.order_by(ReconciliationRun.started_at)):
        day = (past.from_at.astimezone(INDIA), past.to_at.astimezone(INDIA))
        if past.outcome is None and past.started_at > now - timedelta(seconds=RUN_TIMEOUT_SECONDS):
            last_tries.pop(day, None)
        elif day in last_tries:
            last_tries[day] = past.started_at
    return last_tries


def _report_late_days(session: Session, now: datetime, last_tries: dict[Day, datetime | None]) -> None:
    for (begins, ends), tried_at in last_tries.items():
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
    """The period to reconcile: as given, one day from or up to the given time, or yesterday in India."""
    day = timedelta(days=1)
    if from_at is not None:
        return from_at, to_at or from_at + day
    if to_at is not None:
        return to_at - day, to_at
    with transaction() as session:
        now = session.scalars(select(func.now())).one()
    today = datetime.combine(now.astimezone(INDIA).date(), time(), INDIA)
    return today - day, today


def _close_compared_days(since: datetime, until: datetime) -> None:
    """Close the records of late days in this period that are now compared."""
    count = (min(until, datetime.now(INDIA)) - since).days + 2
    days = [since.astimezone(INDIA).date() + timedelta(days=offset) for offset in range(count)]
    with transaction() as session:
        for day in coverage.compared_days(session, days):
            exception_records.close_all(
                session,
                kind=NOT_RECONCILED,
                subject=str(day),
                resolution="the day was compared",
                actor="system",
            )
