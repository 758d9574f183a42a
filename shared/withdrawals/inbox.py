"""The inbox of provider webhooks: store each once, as received; apply it later, as a hint (`hints.py`)."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.transactions import autocommit, map_db_errors, transaction
from shared.errors import Unavailable
from shared.ids import parse_id
from shared.models import PayoutAttempt, WebhookEvent
from shared.providers.answers import PayoutReport
from shared.providers.registry import provider
from shared.queues import messages
from shared.telemetry import metrics
from shared.withdrawals.hints import handle_hint

MAX_EVENT_ID_LENGTH = 200
GRACE_SECONDS = 5  # the worker is notified at once; the sweep finds what is not applied after this time
RETRY_SECONDS = 30
MAX_TRIES = 20

UNAPPLIED_LOCKED = (
    select(WebhookEvent)
    .where(WebhookEvent.event_id == bindparam("event_id"), WebhookEvent.applied_at.is_(None))
    .with_for_update(skip_locked=True)
)

log = structlog.get_logger()


def receive(event_id: str | None, body: bytes) -> bool:
    """Store an event whose signature has been verified, and notify a worker. False if it is stored already.

    Raises Unavailable; the provider then sends it again.
    """
    digest = hashlib.sha256(body).hexdigest()
    ignored = _ignored_values(body)
    key = event_id if event_id and _is_storable(event_id) else digest
    with map_db_errors(), autocommit() as connection:
        is_new = _store(connection, key, body, ignored)
        if not is_new and not _is_stored(connection, key, body):
            # The signature covers the body but not the id: another body under a known id is another event.
            key = f"{key}#{digest[:16]}"
            is_new = _store(connection, key, body, ignored)
    metrics.WEBHOOKS_RECEIVED.labels("new" if is_new else "known").inc()
    log.info("[WEBHOOK] received", event_id=key, is_new=is_new)
    if is_new and not ignored:
        messages.nudge(messages.APPLY, key)
    return is_new


def apply(event_id: str) -> str | None:
    """Apply a stored event and record its outcome, in one transaction. None if there was nothing to do.

    The sweep retries an event that raises; after MAX_TRIES its outcome is `poison`. Raises Unavailable, and
    whatever applying the event raises.
    """
    try:
        with transaction() as session:
            event = session.scalar(UNAPPLIED_LOCKED, {"event_id": event_id})
            if event is None:
                return None
            event.outcome = _apply(session, event)
            event.applied_at = func.now()
    except Unavailable:
        raise  # the database is unavailable, which is not the event's fault: the sweep retries it
    except Exception:
        _retry_later(event_id)
        raise
    _count(event)
    log.info("[WEBHOOK] applied", event_id=event_id, outcome=event.outcome)
    return event.outcome


def _count(event: WebhookEvent) -> None:
    metrics.WEBHOOKS_APPLIED.labels(event.outcome).inc()
    if event.occurred_at is not None:
        lag = (event.received_at - event.occurred_at).total_seconds()
        metrics.WEBHOOK_LAG_SECONDS.observe(max(0.0, lag))


def _store(connection: Connection, key: str, body: bytes, ignored: dict[str, Any]) -> bool:
    due_at = func.now() + timedelta(seconds=GRACE_SECONDS)
    statement = (
        upsert(WebhookEvent)
        .values(event_id=key, body=body, due_at=due_at, **ignored)
        .on_conflict_do_nothing()
        .returning(WebhookEvent.event_id)
    )
    return connection.execute(statement).one_or_none() is not None


def _is_stored(connection: Connection, key: str, body: bytes) -> bool:
    query = select(WebhookEvent.body == body).where(WebhookEvent.event_id == key)
    return bool(connection.execute(query).scalar())


def _ignored_values(body: bytes) -> dict[str, Any]:
    """Return the columns of an event that is not about a payout: stored for the record, never applied."""
    event = provider().parse_event(body)
    if event is None or event.is_about_payout:
        return {}
    return {"applied_at": func.now(), "outcome": "ignored", "occurred_at": event.occurred_at}


def _apply(session: Session, stored: WebhookEvent) -> str:
    event = provider().parse_event(stored.body)
    if event is None:
        return "unreadable"
    stored.occurred_at = event.occurred_at
    if event.report is None:
        return "unreadable"  # a payout event without a payout that we understand
    outcome = handle_hint(session, event.report)
    stored.withdrawal_id = _find_withdrawal_id(session, event.report)
    stored.reference_id = event.report.reference_id
    return outcome


def _find_withdrawal_id(session: Session, report: PayoutReport) -> UUID | None:
    """Return the id of the report's withdrawal, by our reference first: that attempt is loaded already."""
    reference = parse_id(report.reference_id) if report.reference_id else None
    attempt = session.get(PayoutAttempt, reference) if reference else None
    if attempt is not None:
        return attempt.withdrawal_id
    by_payout_id = select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.payout_id == report.payout_id)
    return session.scalar(by_payout_id)


def _retry_later(event_id: str) -> None:
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
    return len(event_id) <= MAX_EVENT_ID_LENGTH and event_id.isascii() and event_id.isprintable()
