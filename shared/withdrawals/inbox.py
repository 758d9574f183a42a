"""The inbox of provider webhooks: store each once, as received; apply it later, as a hint (`hints.py`)."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Text, func, select, update

from shared.db import batches
from shared.db.batches import Query, any_of, columns, value
from shared.db.statements import Statement
from shared.db.transactions import autocommit, map_db_errors, now, transaction
from shared.errors import Unavailable
from shared.models import WebhookEvent
from shared.providers.registry import provider
from shared.queues import messages, soon
from shared.telemetry import metrics
from shared.withdrawals import hints

MAX_EVENT_ID_LENGTH = 200
RETRY_SECONDS = 30
MAX_TRIES = 20
# An event that only reports progress waits for the one that reports the end, and is applied with it.
PROGRESS_SECONDS = 10.0
MOMENT_SECONDS = 0.2  # what a worker needs to record an answer, and more

# An event that is not about a payout has its outcome at once: it is stored for the record, never applied.
STORE = Statement("""
    INSERT INTO webhook_events (event_id, body, due_at, occurred_at, outcome, applied_at)
    VALUES (:event_id, :body, now() + make_interval(secs => :wait_seconds), :occurred_at,
            CAST(:outcome AS text), CASE WHEN CAST(:outcome AS text) IS NOT NULL THEN now() END)
    ON CONFLICT DO NOTHING RETURNING event_id
""")
_unapplied = select(*columns(WebhookEvent)).where(WebhookEvent.applied_at.is_(None))
LOCK = Query(
    _unapplied.where(WebhookEvent.event_id == any_of("event_ids", Text))
    .order_by(WebhookEvent.due_at, WebhookEvent.event_id)
    .with_for_update(skip_locked=True)
)
LOCK_DUE = Query(
    _unapplied.where(
        WebhookEvent.due_at <= func.now() + timedelta(seconds=PROGRESS_SECONDS),
        (WebhookEvent.tries == 0) | (WebhookEvent.due_at <= func.now()),
    )
    .order_by(WebhookEvent.due_at)
    .limit(value("limit"))
    .with_for_update(skip_locked=True)
)
BATCH_ROWS = 100
Outcomes = dict[str, str | None]

log = structlog.get_logger()


def receive(event_id: str | None, body: bytes) -> bool:
    """Store an event whose signature has been verified, and notify a worker. False if it is stored already.

    Raises Unavailable; the provider then sends it again.
    """
    event = provider().parse_event(body)
    is_ignored = event is not None and not event.is_about_payout
    is_progress = event is not None and event.report is not None and event.report.outcome == "waiting"
    values = {
        "body": body,
        "occurred_at": event.occurred_at if event and is_ignored else None,
        "outcome": "ignored" if is_ignored else None,
        "wait_seconds": PROGRESS_SECONDS if is_progress else 0.0,
    }
    key = event_id if event_id and _is_storable(event_id) else _digest(body)
    with map_db_errors():
        is_new = _store(key, values)
        if not is_new and not _is_stored(key, body):
            # The signature covers the body but not the id: another body under a known id is another event.
            key = f"{key}#{_digest(body)[:16]}"
            is_new = _store(key, values)
    metrics.WEBHOOKS_RECEIVED.labels("new" if is_new else "known").inc()
    log.info("[WEBHOOK] received", event_id=key, is_new=is_new)
    if is_new and not is_ignored and not is_progress:
        soon.nudge_soon(messages.APPLY)
    return is_new


def apply_due() -> None:
    """Apply the stored events that are due, oldest first, a batch at a time.

    Raises Unavailable, and what applying an event raises, after the others are applied.
    """
    errors: list[Exception] = []
    is_full = True
    while is_full:
        try:
            outcomes = _apply_batch(LOCK_DUE(limit=BATCH_ROWS), BATCH_ROWS, patient=True)
        except Unavailable:
            raise
        except Exception as error:
            log.warning("[WEBHOOK] batch halved", error=type(error).__name__)
            outcomes = dict.fromkeys(_due_ids())
        applied = _applied(outcomes) | _apply_each(_left(outcomes), errors)
        is_full = len(outcomes) == BATCH_ROWS and set(applied.values()) != {hints.UNDER_WAY}
    _raise_first(errors)


def apply(event_ids: Sequence[str]) -> dict[str, str]:
    """Apply these stored events, and return the outcome of each that was not applied before.

    They share one transaction. If one raises, or needs another row's lock, they are halved until it is alone;
    the sweep retries it, and after MAX_TRIES its outcome is `poison`. Raises Unavailable, or the first error
    after the others are applied.
    """
    errors: list[Exception] = []
    outcomes = _apply_each(event_ids, errors)
    _raise_first(errors)
    return outcomes


def _apply_each(event_ids: Sequence[str], errors: list[Exception]) -> dict[str, str]:
    if not event_ids:
        return {}
    try:
        outcomes = _apply_batch(LOCK(event_ids=list(event_ids)), len(event_ids))
    except Unavailable:
        raise  # the database is unavailable, which is not the event's fault: the sweep retries it
    except Exception as error:
        if len(event_ids) == 1:
            errors.append(error)
            _retry_later(event_ids[0])
            return {}
        outcomes = dict.fromkeys(event_ids)
    left = _left(outcomes)
    half = len(left) // 2
    applied = _applied(outcomes)
    return applied | _apply_each(left[:half], errors) | _apply_each(left[half:], errors)


def _applied(outcomes: Outcomes) -> dict[str, str]:
    return {event_id: outcome for event_id, outcome in outcomes.items() if outcome is not None}


def _left(outcomes: Outcomes) -> list[str]:
    return [event_id for event_id, outcome in outcomes.items() if outcome is None]


def _raise_first(errors: Sequence[Exception]) -> None:
    if errors:
        raise errors[0]


def _due_ids() -> list[str]:
    due = (
        select(WebhookEvent.event_id)
        .where(WebhookEvent.applied_at.is_(None), WebhookEvent.due_at <= func.now())
        .order_by(WebhookEvent.due_at)
        .limit(BATCH_ROWS)
    )
    with map_db_errors(), autocommit() as connection:
        return list(connection.execute(due).scalars())


def _apply_batch(locked: tuple[str, dict[str, Any]], size: int, *, patient: bool = False) -> Outcomes:
    """Apply the events that this query locks; the outcome of one whose withdrawal is locked is None.

    If `patient`, those wait a moment whose payout a worker has just sent.
    """
    waiting: list[WebhookEvent] = []
    with batches.batch(size) as session:
        (rows,) = batches.read(session, locked)
        events = batches.attach(session, WebhookEvent, rows)
        parsed = [provider().parse_event(event.body) for event in events]
        reports = {
            stored.event_id: event.report
            for stored, event in zip(events, parsed, strict=True)
            if event and event.report
        }
        outcomes = hints.handle_hints(session, list(reports.values()), skip_locked=size > 1, patient=patient)
        handled = dict(zip(reports, outcomes, strict=True))
        for stored, event in zip(events, parsed, strict=True):
            # Without a report it is a payout event without a payout that we understand.
            outcome, withdrawal_id = handled.get(stored.event_id, ("unreadable", None))
            if outcome is None:
                continue
            if outcome == hints.UNDER_WAY:
                stored.due_at = now(session) + timedelta(seconds=MOMENT_SECONDS)
                waiting.append(stored)
                continue
            stored.outcome = outcome
            stored.applied_at = now(session)
            stored.occurred_at = event.occurred_at if event else None
            stored.withdrawal_id = withdrawal_id
            report = reports.get(stored.event_id)
            stored.reference_id = report.reference_id if report else None
        applied = [stored for stored in events if stored.outcome]
    for stored in applied:
        _count(stored)
    if waiting:
        soon.nudge_soon(messages.APPLY, in_seconds=MOMENT_SECONDS)
    outcome_of = {stored.event_id: stored.outcome for stored in events}
    return outcome_of | {stored.event_id: hints.UNDER_WAY for stored in waiting}


def _count(event: WebhookEvent) -> None:
    log.info("[WEBHOOK] applied", event_id=event.event_id, outcome=event.outcome)
    metrics.WEBHOOKS_APPLIED.labels(event.outcome).inc()
    if event.occurred_at is not None:
        lag = (event.received_at - event.occurred_at).total_seconds()
        metrics.WEBHOOK_LAG_SECONDS.observe(max(0.0, lag))


def _store(key: str, values: dict[str, Any]) -> bool:
    return STORE.first({"event_id": key, **values}) is not None


def _is_stored(key: str, body: bytes) -> bool:
    query = select(WebhookEvent.body == body).where(WebhookEvent.event_id == key)
    with autocommit() as connection:
        return bool(connection.execute(query).scalar())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


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
