"""The provider's webhooks: kept once as they came, applied afterwards through the one door."""

import hashlib
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import queues
from shared.db import one_statement, told_plainly, transaction
from shared.errors import Unavailable
from shared.models import PayoutAttempt, WebhookEvent
from shared.razorpayx.answers import PayoutReport, parse_event
from shared.withdrawals import apply_report

MAX_EVENT_ID = 200
# The nudge comes at once; the sweep needs to look only at what its worker did not finish.
GRACE_SECONDS, RETRY_SECONDS, MAX_TRIES = 5, 30, 20

log = structlog.get_logger()


def receive(event_id: str | None, body: bytes) -> bool:
    """Keep an event, whose signature has been checked, and nudge a worker. False when we had it already.

    Raises Unavailable; the provider then sends it again.
    """
    digest = hashlib.sha256(body).hexdigest()
    key = event_id if event_id and _is_storable(event_id) else digest
    with told_plainly(), one_statement() as connection:
        is_new = _keep(connection, key, body)
        if not is_new and not _is_kept(connection, key, body):
            # The id is not signed, the body is: another body under a known id is another event.
            key = f"{key}#{digest[:16]}"
            is_new = _keep(connection, key, body)
    log.info("[WEBHOOK] received", event_id=key, is_new=is_new)
    if is_new:
        queues.nudge(queues.APPLY, key)
    return is_new


def apply(event_id: str) -> str | None:
    """Apply a kept event and write down its outcome, in one transaction. None when there was nothing to do.

    An event that raises is tried again by the sweep and after MAX_TRIES set aside as `poison`.
    Raises Unavailable, and whatever the event provoked.
    """
    try:
        with transaction() as session:
            event = session.scalar(
                select(WebhookEvent)
                .where(WebhookEvent.event_id == event_id, WebhookEvent.applied_at.is_(None))
                .with_for_update(skip_locked=True)
            )
            if event is None:
                return None
            event.outcome, event.withdrawal_id = _apply(session, event.body)
            event.applied_at = func.now()
    except Unavailable:
        raise  # the database is away, which says nothing against the event: the sweep comes back to it
    except Exception:
        _try_again_later(event_id)
        raise
    log.info("[WEBHOOK] applied", event_id=event_id, outcome=event.outcome)
    return event.outcome


def _keep(connection: Connection, key: str, body: bytes) -> bool:
    statement = (
        upsert(WebhookEvent)
        .values(event_id=key, body=body, due_at=func.now() + timedelta(seconds=GRACE_SECONDS))
        .on_conflict_do_nothing()
        .returning(WebhookEvent.event_id)
    )
    return connection.execute(statement).one_or_none() is not None


def _is_kept(connection: Connection, key: str, body: bytes) -> bool:
    query = select(WebhookEvent.body == body).where(WebhookEvent.event_id == key)
    return bool(connection.execute(query).scalar())


def _apply(session: Session, body: bytes) -> tuple[str, UUID | None]:
    event = parse_event(body)
    if event is None:
        return "unreadable", None
    name, report = event
    if not name.startswith("payout."):
        return "ignored", None
    if report is None:
        # payout.downtime.… has no payout in it; a payout event without one is not what we know.
        return ("ignored" if name.startswith("payout.downtime") else "unreadable"), None
    outcome = apply_report(session, report, "webhook")
    return outcome, _withdrawal_of(session, report)


def _withdrawal_of(session: Session, report: PayoutReport) -> UUID | None:
    return session.scalar(
        select(PayoutAttempt.withdrawal_id).where(PayoutAttempt.payout_id == report.payout_id)
    )


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
