"""One delivery's next try: claim, post, record. No transaction is held across the wire.

A claim is a lease: whoever dies with it, or sleeps over it, leaves the delivery due again under the same id.
So an app may be told twice and is never not told. To an endpoint that takes nothing one delivery is under
way at a time: it cannot keep the others waiting.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.orm import Session

from shared import exception_records
from shared.db import transaction
from shared.models import Endpoint
from shared.notifications.endpoints import FAILING
from shared.notifications.signing import headers, secret_of
from shared.notifications.wire import Told, post
from shared.settings import settings

LEASE_SPARE_SECONDS = (
    20  # beyond what a try may take: for a slow machine, and for writing down what came of it
)
JITTER = 0.2  # so that what failed together does not come back together
# A server that took nothing for so long was away. One that refuses a single message meanwhile took others.
AWAY_SECONDS, MOST_AT_ONCE = 60, 10_000
RETRY_AFTER_MOST_SECONDS = 3600  # an app may ask for patience, not for silence

log = structlog.get_logger()

CLAIM = text("""
    UPDATE deliveries SET tries = tries + 1, due_at = now() + make_interval(secs => :lease),
                          leased_until = now() + make_interval(secs => :lease)
    WHERE id = (SELECT id FROM deliveries
                WHERE endpoint_id = :endpoint_id AND state = 'waiting' AND due_at <= now()
                ORDER BY due_at, event_id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, body, tries, now() AS at
""")
UNDER_WAY = text("""
    SELECT count(*) FROM deliveries
    WHERE endpoint_id = :endpoint_id AND leased_until IS NOT NULL AND leased_until > now()
""")
WORKS_AGAIN = text("""
    UPDATE endpoints SET failing_since = NULL
    FROM (SELECT id AS key, failing_since <= now() - make_interval(secs => :long) AS was_long
          FROM endpoints WHERE id = :endpoint_id) AS before
    WHERE id = key AND failing_since IS NOT NULL RETURNING was_long
""")
# What waits for a server that was away goes at once, and not when its own wait is over: that may be hours.
AT_ONCE = text("""
    WITH soon AS MATERIALIZED
        (SELECT id FROM deliveries WHERE endpoint_id = :endpoint_id AND state = 'waiting' AND due_at > now()
           AND leased_until IS NULL ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED)
    UPDATE deliveries SET due_at = now() WHERE id IN (SELECT id FROM soon)
""")
DELIVERED = text("""
    UPDATE deliveries SET state = 'delivered', delivered_at = now(), due_at = NULL, leased_until = NULL,
                          last_http_status = :http_status, last_error = NULL
    WHERE id = :id AND state = 'waiting'
""")
# Only who has the lease still may say that it failed. The last try is made when time is up, not before.
NOT_DELIVERED = text("""
    UPDATE deliveries SET state = CASE WHEN is_over THEN 'failed' ELSE 'waiting' END,
        due_at = CASE WHEN NOT is_over THEN least(now() + make_interval(secs => :wait), ends_at) END,
        leased_until = NULL, last_http_status = :http_status, last_error = :error
    FROM (SELECT id AS key, ends_at, ends_at <= now() AS is_over
          FROM deliveries, LATERAL (SELECT began_at + make_interval(secs => :give_up)) AS e (ends_at)
          WHERE id = :id) AS of_it
    WHERE id = key AND state = 'waiting' AND tries = :tries
    RETURNING state
""")


@dataclass(frozen=True, slots=True)
class Try:
    """A delivery that may be sent now, with all that it takes."""

    id: UUID
    endpoint_id: UUID
    url: str
    allow_private: bool
    body: str
    headers: dict[str, str]
    tries: int


def claim(endpoint_id: UUID) -> Try | None:
    """Take the endpoint's oldest due delivery; None when there is none, or enough are under way already.

    Raises Unavailable, SettingsError.
    """
    with transaction() as session:
        endpoint = session.get(Endpoint, endpoint_id, with_for_update={"key_share": True})
        if endpoint is None or endpoint.removed_at is not None or _has_enough(session, endpoint):
            return None
        lease = settings().notify_answer_seconds + LEASE_SPARE_SECONDS
        taken = session.execute(CLAIM, {"endpoint_id": endpoint_id, "lease": lease}).one_or_none()
        return _try_of(endpoint, taken) if taken else None


def send(now: Try) -> Told:
    """Make the try. Raises nothing for the wire."""
    return post(now.url, now.body.encode(), now.headers, allow_private=now.allow_private)


def record(now: Try, told: Told) -> None:
    """Write down what came of it: delivered, to be tried again, or given up. Raises Unavailable."""
    with transaction() as session:
        given_up = _taken(session, now, told) if told.error is None else _not_taken(session, now, told)
    about = {"delivery_id": str(now.id), "endpoint_id": str(now.endpoint_id), "http_status": told.http_status}
    if told.error is None:
        log.info("[NOTIFY] delivered", tries=now.tries, **about)
    else:
        log.warning("[NOTIFY] not delivered", tries=now.tries, given_up=given_up, error=told.error, **about)


def _has_enough(session: Session, endpoint: Endpoint) -> bool:
    most = 1 if endpoint.failing_since else settings().notify_at_once
    return bool(session.execute(UNDER_WAY, {"endpoint_id": endpoint.id}).scalar_one() >= most)


def _try_of(endpoint: Endpoint, taken: Row[Any]) -> Try:
    is_rotating = endpoint.previous_until is not None and endpoint.previous_until > taken.at
    generations = [endpoint.generation, *([endpoint.generation - 1] if is_rotating else [])]
    secrets = [secret_of(endpoint.id, generation) for generation in generations]
    at: datetime = taken.at.astimezone(UTC)  # the database's clock: receivers refuse what is minutes off
    return Try(
        id=taken.id,
        endpoint_id=endpoint.id,
        url=endpoint.url,
        allow_private=endpoint.allow_private,
        body=taken.body,
        headers=headers(taken.id, taken.body, secrets, at),
        tries=taken.tries,
    )


def _taken(session: Session, now: Try, told: Told) -> bool:
    """Everywhere the endpoint's row goes before its deliveries', so that nobody waits in a circle."""
    values = {"endpoint_id": now.endpoint_id, "long": AWAY_SECONDS}
    was_away = session.execute(WORKS_AGAIN, values).one_or_none()
    if was_away:
        over = "it takes deliveries again"
        exception_records.close_all(
            session, kind=FAILING, subject=str(now.endpoint_id), resolution=over, actor="system"
        )
    if was_away and was_away.was_long:
        session.execute(AT_ONCE, {"endpoint_id": now.endpoint_id, "most": MOST_AT_ONCE})
    session.execute(DELIVERED, {"id": now.id, "http_status": told.http_status})
    return False


def _not_taken(session: Session, now: Try, told: Told) -> bool:
    fails = update(Endpoint).where(Endpoint.id == now.endpoint_id, Endpoint.failing_since.is_(None))
    session.execute(fails.values(failing_since=func.now()))
    values = {
        "id": now.id,
        "tries": now.tries,
        "wait": _wait(now.tries, told.retry_after_seconds),
        "give_up": settings().notify_give_up_seconds,
        "http_status": told.http_status,
        "error": told.error,
    }
    if session.execute(NOT_DELIVERED, values).scalar() != "failed":
        return False
    since = session.scalars(select(Endpoint.failing_since).where(Endpoint.id == now.endpoint_id)).one()
    exception_records.open_record(
        session,
        kind=FAILING,
        subject=str(now.endpoint_id),
        source="notifier",
        ours={"url": now.url, "failing_since": since.isoformat() if since else None},
        theirs={"error": told.error, "http_status": told.http_status},
    )
    return True


def _wait(tries: int, retry_after_seconds: float | None) -> float:
    """Seconds until the next try: by the table, or as long as the app asks for, within reason."""
    waits = settings().notify_retry_seconds
    usual = waits[min(tries, len(waits)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
    return max(usual, min(retry_after_seconds or 0.0, RETRY_AFTER_MOST_SECONDS))
