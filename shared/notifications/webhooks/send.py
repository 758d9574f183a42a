"""One attempt to deliver: claim, send, record (`outbox.py` explains the three steps).

While an endpoint fails, only one delivery to it is under way: it cannot keep other endpoints waiting.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, exists, func, select, text, update
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import Base, Endpoint
from shared.notifications import outbox
from shared.notifications.webhooks.endpoints import ENDPOINT_FAILING
from shared.notifications.webhooks.http import SendResult, post
from shared.notifications.webhooks.signing import build_headers, derive_secret
from shared.people import exception_records
from shared.settings import settings

# A server that failed for this long was down. One that refuses a single message takes others meanwhile.
OUTAGE_SECONDS = 60
MAX_RETRY_AFTER_SECONDS = 3600  # an app may ask for patience, not for silence

log = structlog.get_logger()

ENDPOINTS = Base.metadata.tables["endpoints"].c
DELIVERIES = Base.metadata.tables["deliveries"].c
CURSOR_HAS_PASSED = ENDPOINTS.removed_at.is_not(None) | (DELIVERIES.event_id <= ENDPOINTS.followed_to)
OUTBOX = outbox.Outbox(
    table=Base.metadata.tables["deliveries"],
    sent_state="delivered",
    tie_break="event_id",
    is_passed=exists().where(ENDPOINTS.id == DELIVERIES.endpoint_id, CURSOR_HAS_PASSED),
)
CLEAR_FAILING = text("""
    UPDATE endpoints SET failing_since = NULL
    FROM (SELECT id AS key, failing_since <= now() - make_interval(secs => :outage) AS was_down
          FROM endpoints WHERE id = :endpoint_id) AS before
    WHERE id = key AND failing_since IS NOT NULL RETURNING was_down
""")
# After an outage everything is due at once; a delivery's own backoff may be hours.
MAKE_ALL_DUE = text("""
    WITH soon AS MATERIALIZED
        (SELECT id FROM deliveries WHERE endpoint_id = :endpoint_id AND state = 'waiting' AND due_at > now()
           AND leased_until IS NULL ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE deliveries SET due_at = now() WHERE id IN (SELECT id FROM soon)
""")


@dataclass(frozen=True, slots=True)
class LeasedDelivery(outbox.Leased):
    """A delivery that this worker may send now, and everything needed to send it."""

    endpoint_id: UUID
    url: str
    allow_private: bool
    body: str
    headers: dict[str, str]


def claim(endpoint_id: UUID) -> LeasedDelivery | None:
    """Lease the endpoint's oldest due delivery; None if there is none, or enough are under way.

    Raises Unavailable, SettingsError.
    """
    with transaction() as session:
        endpoint = session.get(Endpoint, endpoint_id, with_for_update={"key_share": True})
        if endpoint is None or endpoint.removed_at is not None or _is_at_limit(session, endpoint):
            return None
        lease_seconds = settings().notify_answer_seconds + outbox.LEASE_SPARE_SECONDS
        row = OUTBOX.lease(session, lease_seconds, DELIVERIES.endpoint_id == endpoint_id)
        return _to_leased(endpoint, row) if row else None


def send(delivery: LeasedDelivery) -> SendResult:
    """POST it. Network errors become a result, not an exception."""
    return post(delivery.url, delivery.body.encode(), delivery.headers, allow_private=delivery.allow_private)


def record(delivery: LeasedDelivery, result: SendResult) -> None:
    """Record the result: delivered, to be retried, or given up. Raises Unavailable."""
    with transaction() as session:
        if result.error is None:
            _record_success(session, delivery, result)
            given_up = False
        else:
            given_up = _record_failure(session, delivery, result)
    fields = {
        "delivery_id": str(delivery.id),
        "endpoint_id": str(delivery.endpoint_id),
        "http_status": result.http_status,
        "tries": delivery.tries,
    }
    if result.error is None:
        log.info("[NOTIFY] delivered", **fields)
    else:
        log.warning("[NOTIFY] not delivered", given_up=given_up, error=result.error, **fields)


def _is_at_limit(session: Session, endpoint: Endpoint) -> bool:
    limit = 1 if endpoint.failing_since else settings().notify_at_once
    return session.scalars(OUTBOX.under_way(DELIVERIES.endpoint_id == endpoint.id)).one() >= limit


def _to_leased(endpoint: Endpoint, row: Row[Any]) -> LeasedDelivery:
    is_rotating = endpoint.previous_until is not None and endpoint.previous_until > row.leased_at
    generations = [endpoint.generation, *([endpoint.generation - 1] if is_rotating else [])]
    secrets = [derive_secret(endpoint.id, generation) for generation in generations]
    # By the database's clock: receivers refuse a timestamp that is minutes off.
    sent_at: datetime = row.leased_at.astimezone(UTC)
    return LeasedDelivery(
        id=row.id,
        tries=row.tries,
        endpoint_id=endpoint.id,
        url=endpoint.url,
        allow_private=endpoint.allow_private,
        body=row.body,
        headers=build_headers(row.id, row.body, secrets, sent_at),
    )


def _record_success(session: Session, delivery: LeasedDelivery, result: SendResult) -> None:
    """Every transaction locks the endpoint's row before its deliveries', so that none deadlock."""
    values = {"endpoint_id": delivery.endpoint_id, "outage": OUTAGE_SECONDS}
    was_failing = session.execute(CLEAR_FAILING, values).one_or_none()
    if was_failing:
        exception_records.close_all(
            session,
            kind=ENDPOINT_FAILING,
            subject=str(delivery.endpoint_id),
            resolution="the endpoint accepts deliveries again",
            actor="system",
        )
    if was_failing and was_failing.was_down:
        session.execute(MAKE_ALL_DUE, {"endpoint_id": delivery.endpoint_id, "limit": outbox.ROWS_AT_ONCE})
    OUTBOX.mark_sent(session, delivery, last_http_status=result.http_status)


def _record_failure(session: Session, delivery: LeasedDelivery, result: SendResult) -> bool:
    """True if it is given up. The last attempt is due when the time is up, not before."""
    start_failing = update(Endpoint).where(
        Endpoint.id == delivery.endpoint_id, Endpoint.failing_since.is_(None)
    )
    session.execute(start_failing.values(failing_since=func.now()))
    ends_at = DELIVERIES.began_at + timedelta(seconds=settings().notify_give_up_seconds)
    failure = {"last_error": result.error, "last_http_status": result.http_status}
    if not OUTBOX.fail(session, delivery, ends_at <= func.now(), **failure):
        wait = timedelta(seconds=_retry_seconds(delivery.tries, result.retry_after_seconds))
        OUTBOX.retry(session, delivery, func.least(func.now() + wait, ends_at), **failure)
        return False
    since = session.scalars(select(Endpoint.failing_since).where(Endpoint.id == delivery.endpoint_id)).one()
    exception_records.open_record(
        session,
        kind=ENDPOINT_FAILING,
        subject=str(delivery.endpoint_id),
        source="notifier",
        ours={"url": delivery.url, "failing_since": since.isoformat() if since else None},
        theirs={"error": result.error, "http_status": result.http_status},
    )
    return True


def _retry_seconds(tries: int, retry_after_seconds: float | None) -> float:
    """The backoff, or the app's Retry-After if that is longer, up to an hour."""
    return max(outbox.backoff_seconds(tries), min(retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))
