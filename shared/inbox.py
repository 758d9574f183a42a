"""The provider's webhooks: kept once as they came, taken afterwards as the hints that they are."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import metrics, queues
from shared.db import one_statement, told_plainly, transaction
from shared.errors import Unavailable
from shared.ids import parse_id
from shared.models import PayoutAttempt, WebhookEvent
from shared.razorpayx.answers import PayoutReport, parse_event
from shared.withdrawals import take_hint

MAX_EVENT_ID = 200
# The nudge comes at once; the sweep needs to look only at what its worker did not finish.
GRACE_SECONDS, RETRY_SECONDS, MAX_TRIES = 5, 30, 20

WAITING = (
    select(WebhookEvent)
    .where(WebhookEvent.event_id == bindparam("event_id"), WebhookEvent.applied_at.is_(None))
    .with_for_update(skip_locked=True)
)

log = structlog.get_logger()


def receive(event_id: str | None, body: bytes) -> bool:
    """Keep an event, whose signature has been checked, and nudge a worker. False when we had it already.

    Raises Unavailable; the provider then sends it again.
    """
    digest, done = hashlib.sha256(body).hexdigest(), _done_already(body)
    key = event_id if event_id and _is_storable(event_id) else digest
    with told_plainly(), one_statement() as connection:
        is_new = _keep(connection, key, body, done)
        if not is_new and not _is_kept(connection, key, body):
            # The id is not signed, the body is: another body under a known id is another event.
            key = f"{key}#{digest[:16]}"
            is_new = _keep(connection, key, body, done)
    metrics.WEBHOOKS_RECEIVED.labels("new" if is_new else "known").inc()
    log.info("[WEBHOOK] received", event_id=key, is_new=is_new)
    if is_new and not done:
        queues.nudge(queues.APPLY, key)
    return is_new


def apply(event_id: str) -> str | None:
    """Apply a kept event and write down its outcome, in one transaction. None when there was nothing to do.

    An event that raises is tried again by the sweep and after MAX_TRIES set aside as `poison`.
    Raises Unavailable, and whatever the event provoked.
    """
    try:
        with transaction() as session:
            event = session.scalar(WAITING, {"event_id": event_id})
            if event is None:
                return None
            event.outcome = _apply(session, event)
            event.applied_at = func.now()
    except Unavailable:
        raise  # the database is away, which says nothing against the event: the sweep comes back to it
    except Exception:
        _try_again_later(event_id)
        raise
    _count(event)
    log.info("[WEBHOOK] applied", event_id=event_id, outcome=event.outcome)
    return event.outcome


def _count(event: WebhookEvent) -> None:
    metrics.WEBHOOKS_APPLIED.labels(event.outcome).inc()
    if event.occurred_at is not None:
        lag = (event.received_at - event.occurred_at).total_seconds()
        metrics.WEBHOOK_LAG_SECONDS.observe(max(0.0, lag))


def _keep(connection: Connection, key: str, body: bytes, done: dict[str, Any]) -> bool:
    due_at = func.now() + timedelta(seconds=GRACE_SECONDS)
    statement = (
        upsert(WebhookEvent)
        .values(event_id=key, body=body, due_at=due_at, **done)
        .on_conflict_do_nothing()
        .returning(WebhookEvent.event_id)
    )
    return connection.execute(statement).one_or_none() is not None


def _is_kept(connection: Connection, key: str, body: bytes) -> bool:
    query = select(WebhookEvent.body == body).where(WebhookEvent.event_id == key)
    return bool(connection.execute(query).scalar())


def _done_already(body: bytes) -> dict[str, Any]:
    """What to write with an event that is kept for the record only: it is not about a payout."""
    event = parse_event(body)
    # payout.downtime.… has no payout in it.
    if event is None or (event.name.startswith("payout.") and not event.name.startswith("payout.downtime")):
        return {}
    return {"applied_at": func.now(), "outcome": "ignored", "occurred_at": event.occurred_at}


def _apply(session: Session, kept: WebhookEvent) -> str:
    event = parse_event(kept.body)
    if event is None:
        return "unreadable"
    kept.occurred_at = event.occurred_at
    if event.report is None:
        return "unreadable"  # a payout event without a payout is not what we know
    outcome = take_hint(session, event.report)
    kept.withdrawal_id = _withdrawal_of(session, event.report)
    kept.reference_id = event.report.reference_id
    return outcome


def _withdrawal_of(session: Session, report: PayoutReport) -> UUID | None:
    """By our reference as a rule: that attempt was just read."""
    reference = parse_id(report.reference_id) if report.reference_id else None
    attempt = session.get(PayoutAttempt, reference) if reference else None
    if attempt is not None:
        return attempt.withdrawal_id
    by_payout = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.payout_id == report.payout_id)
    return session.scalar(by_payout)


def _try_again_later(event_id: str) -> None:
    with transaction() as session:
        session.execute(
            update(WebhookEvent)
            .where(WebhookEvent.event_id == event_id, WebhookEvent.applied_at.is_(None))
            .values(tries=WebhookEvent.tries + 1, due_at=func.now() + timedelta(seconds=RETRY_SECONDS))
        )
        session.execute(
            update(WebhookEvent)
            .where(
                WebhookEvent.event_id == event_id,
                WebhookEvent.applied_at.is_(None),
                WebhookEvent.tries >= MAX_TRIES,
            )
            .values(outcome="poison", applied_at=func.now())
        )


def _is_storable(event_id: str) -> bool:
    return len(event_id) <= MAX_EVENT_ID and event_id.isascii() and event_id.isprintable()
