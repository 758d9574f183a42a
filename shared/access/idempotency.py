"""Idempotency keys: a repeated request with the same key gets the first response again.

A row is written before the request runs, and its response afterwards, each in a statement of its own. A
process that dies in between leaves a row without a response; the next request with that key runs again. That
is safe because each verb itself recognises what it did under a key: a withdrawal by its row, a cancellation
by its event, a credit by its reference. So no coins depend on these rows, and they are deleted after a day.

A key belongs to the operation that used it first. These rows enforce that for a day, for all operations of
the caller. The database enforces it permanently (`one_operation_per_key`) for a user's withdrawals, batches
and imports.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from shared.db.statements import Statement
from shared.db.transactions import autocommit, map_db_errors
from shared.errors import BadRequest, Conflict
from shared.models import IdempotentRequest

RETENTION_HOURS = 24
# No request runs this long (shared/db/connections.py): a row without a response by then is of a dead process.
MAX_RUNNING_SECONDS = 60
DELETE_BATCH_ROWS = 10_000
# A row without a response that is older was abandoned: its key may be taken over by the same request.
BEGIN = Statement(
    """
    INSERT INTO idempotent_requests AS known (actor, key, operation, fingerprint)
    VALUES (:actor, :key, :operation, :fingerprint)
    ON CONFLICT (actor, key) DO UPDATE SET started_at = now()
    WHERE known.http_status IS NULL AND known.started_at < now() - make_interval(secs => :max_running_seconds)
      AND known.fingerprint = excluded.fingerprint
    RETURNING key
    """,
    {"max_running_seconds": MAX_RUNNING_SECONDS},
)
STORE_RESPONSE = Statement("""
    UPDATE idempotent_requests SET http_status = :http_status, answer = CAST(:answer AS json)
    WHERE actor = :actor AND key = :key RETURNING key
""")
ONE_OPERATION_CONSTRAINT = "one_operation_per_key"  # a trigger: it binds a key to its first operation


class KeyReused(BadRequest):
    """The key was used with another body, or for another operation."""

    http_status = 422

    def __init__(self, *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        super().__init__(
            "Idempotency-Key already used",
            f"You sent this key before {'to another endpoint' if elsewhere else 'with a different request'}. "
            "Use a new key for a new request",
            code="idempotency_key_reused",
        )


class StillRunning(Conflict):
    """The first request with this key has no response yet."""

    retry_after = 1

    def __init__(self) -> None:
        super().__init__(
            "Request still running",
            "The first request with this Idempotency-Key has not finished. Retry it in a moment",
            code="idempotency_key_running",
        )


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to the first request with a key."""

    http_status: int
    body: dict[str, Any]


def fingerprint(operation: str, body: dict[str, Any]) -> str:
    """Return the hash that two requests share if they are the same: of the operation and the parsed body."""
    text = json.dumps([operation, body], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def begin(*, actor: str, key: str, operation: str, fingerprint: str) -> StoredResponse | None:
    """Record that this request runs now; returns the stored response if it ran before.

    Raises KeyReused, StillRunning, Unavailable.
    """
    identity = {"actor": actor, "key": key}
    with map_db_errors():
        if BEGIN.first({**identity, "operation": operation, "fingerprint": fingerprint}):
            return None
        with autocommit() as connection:
            known = select(IdempotentRequest.__table__).filter_by(**identity)
            first = connection.execute(known).one_or_none()
    if first is None:
        raise StillRunning  # released just now: the caller's retry finds the key free
    if first.fingerprint != fingerprint:
        raise KeyReused(elsewhere=first.operation != operation)
    if first.http_status is None:
        raise StillRunning
    return StoredResponse(first.http_status, first.answer)


def reserve(*, actor: str, key: str, operation: str, fingerprint: str) -> None:
    """Bind this key to this fingerprint for a day after it was last sent. No response is stored: the
    operation itself recognises what it did under the key.

    Raises KeyReused, Unavailable.
    """
    values = {"actor": actor, "key": key, "operation": operation, "fingerprint": fingerprint}
    statement = insert(IdempotentRequest).values(**values, http_status=200, answer={})
    statement = statement.on_conflict_do_update(
        index_elements=["actor", "key"],
        set_={"started_at": func.now()},
        where=IdempotentRequest.fingerprint == fingerprint,
    )
    first_operation = select(IdempotentRequest.operation).filter_by(actor=actor, key=key)
    with map_db_errors(), autocommit() as connection:
        if connection.execute(statement.returning(IdempotentRequest.key)).one_or_none() is None:
            raise KeyReused(elsewhere=connection.scalar(first_operation) != operation)


def raise_if_key_reused(error: IntegrityError) -> None:
    """Raises KeyReused if the database refused a withdrawal because another operation used its key first."""
    if getattr(getattr(error.orig, "diag", None), "constraint_name", None) == ONE_OPERATION_CONSTRAINT:
        raise KeyReused(elsewhere=True) from error


def store_response(*, actor: str, key: str, http_status: int, body: dict[str, Any]) -> None:
    """Store the response. Raises Unavailable: then the next request with this key runs again."""
    values = {"actor": actor, "key": key, "http_status": http_status, "answer": json.dumps(body)}
    with map_db_errors():
        STORE_RESPONSE.first(values)


def release(*, actor: str, key: str) -> None:
    """Free the key of a request that ended without a response: a retry runs again. Raises Unavailable."""
    is_ours = (IdempotentRequest.actor == actor) & (IdempotentRequest.key == key)
    with map_db_errors(), autocommit() as connection:
        connection.execute(delete(IdempotentRequest).where(is_ours, IdempotentRequest.http_status.is_(None)))


def delete_expired() -> int:
    """Delete rows older than `RETENTION_HOURS`; returns how many."""
    expired = select(IdempotentRequest.actor, IdempotentRequest.key).where(
        IdempotentRequest.started_at < func.now() - timedelta(hours=RETENTION_HOURS)
    )
    with map_db_errors(), autocommit() as connection:
        batch = expired.limit(DELETE_BATCH_ROWS).cte("old").prefix_with("MATERIALIZED")
        statement = delete(IdempotentRequest).where(
            IdempotentRequest.actor == batch.c.actor, IdempotentRequest.key == batch.c.key
        )
        return connection.execute(statement).rowcount
