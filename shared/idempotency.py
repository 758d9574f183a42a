"""One request, sent as often as it takes: the same key gets the first answer again.

A request is written down before it is done and its answer afterwards, in a statement of its own. Who dies
in between leaves a request without an answer; the next with that key does it anew. That is safe because each
verb knows for itself what was done under the key: a withdrawal by its row, a cancellation by its event, a
credit by its reference. So nothing that moves coins depends on what is kept here, and a day later it may go.

A key belongs to the operation that used it first. For a day the row here says so, to all operations of that
caller; for good the database does (`one_operation_per_key`), of withdrawals, batches and imports for a user.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from shared.db import one_statement, told_plainly
from shared.errors import BadRequest, Conflict
from shared.models import IdempotentRequest

KEPT_HOURS = 24
# No request runs so long (shared/db.py); who has no answer by then died, and its key is free again.
RUNNING_SECONDS = 60
FORGET_AT_ONCE = 10_000
ONE_OPERATION = "one_operation_per_key"  # the trigger that keeps a key to its first operation, for good


class Reused(BadRequest):
    """The key was used for something else: with another body, or for another operation."""

    http_status = 422

    def __init__(self, *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        super().__init__(
            "Idempotency-Key already used",
            f"This key was sent before {'to another endpoint' if elsewhere else 'with another request'}; "
            "use a new key for a new request",
            code="idempotency_key_reused",
        )


class StillRunning(Conflict):
    """The first request with this key has no answer yet."""

    retry_after = 1

    def __init__(self) -> None:
        super().__init__(
            "Request still running",
            "The first request with this Idempotency-Key is not done yet; send it again in a moment",
            code="idempotency_key_running",
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What the first request with a key was answered."""

    http_status: int
    answer: dict[str, Any]


def fingerprint(operation: str, given: dict[str, Any]) -> str:
    """What makes two requests the same: the operation, and what was understood of the body."""
    text = json.dumps([operation, given], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def begin(*, actor: str, key: str, operation: str, fingerprint: str) -> Answered | None:
    """Write down that this is being done now; the first answer when it was done before.

    Raises Reused, StillRunning, Unavailable.
    """
    known = {"actor": actor, "key": key}
    asked = {"operation": operation, "fingerprint": fingerprint}
    mine = insert(IdempotentRequest).values(**known, **asked)
    died = func.now() - timedelta(seconds=RUNNING_SECONDS)
    mine = mine.on_conflict_do_update(
        index_elements=["actor", "key"],
        set_={"started_at": func.now()},
        where=(IdempotentRequest.http_status.is_(None))
        & (IdempotentRequest.started_at < died)
        & (IdempotentRequest.fingerprint == fingerprint),
    )
    with told_plainly(), one_statement() as connection:
        if connection.execute(mine.returning(IdempotentRequest.key)).one_or_none():
            return None
        first = connection.execute(select(IdempotentRequest.__table__).filter_by(**known)).one_or_none()
    if first is None:
        raise StillRunning  # given up at this very moment: free when it is sent again
    if first.fingerprint != fingerprint:
        raise Reused(elsewhere=first.operation != operation)
    if first.http_status is None:
        raise StillRunning
    return Answered(first.http_status, first.answer)


def hold(*, actor: str, key: str, operation: str, fingerprint: str) -> None:
    """Let this key stand for this fingerprint alone, for a day since it was last sent. There is no answer to
    keep: what is asked for under it knows for itself what was done.

    Raises Reused, Unavailable.
    """
    known = {"actor": actor, "key": key, "operation": operation, "fingerprint": fingerprint}
    mine = insert(IdempotentRequest).values(**known, http_status=200, answer={})
    mine = mine.on_conflict_do_update(
        index_elements=["actor", "key"],
        set_={"started_at": func.now()},
        where=IdempotentRequest.fingerprint == fingerprint,
    )
    theirs = select(IdempotentRequest.operation).filter_by(actor=actor, key=key)
    with told_plainly(), one_statement() as connection:
        if connection.execute(mine.returning(IdempotentRequest.key)).one_or_none() is None:
            raise Reused(elsewhere=connection.scalar(theirs) != operation)


def must_be_free(error: IntegrityError) -> None:
    """Raises Reused when the database refused a withdrawal because of its key's first operation."""
    if getattr(getattr(error.orig, "diag", None), "constraint_name", None) == ONE_OPERATION:
        raise Reused(elsewhere=True) from error


def finish(*, actor: str, key: str, http_status: int, answer: dict[str, Any]) -> None:
    """Keep what was answered. Raises Unavailable; then the next with this key does it anew."""
    mine = (IdempotentRequest.actor == actor) & (IdempotentRequest.key == key)
    kept = update(IdempotentRequest).where(mine).values(http_status=http_status, answer=answer)
    with told_plainly(), one_statement() as connection:
        connection.execute(kept)


def give_up(*, actor: str, key: str) -> None:
    """Nothing is known to be done: whoever sends the key again does it. Raises Unavailable."""
    mine = (IdempotentRequest.actor == actor) & (IdempotentRequest.key == key)
    with told_plainly(), one_statement() as connection:
        connection.execute(delete(IdempotentRequest).where(mine, IdempotentRequest.http_status.is_(None)))


def forget_old() -> int:
    """Forget what was asked for more than a day ago; how many there were."""
    old = select(IdempotentRequest.actor, IdempotentRequest.key).where(
        IdempotentRequest.started_at < func.now() - timedelta(hours=KEPT_HOURS)
    )
    with told_plainly(), one_statement() as connection:
        pairs = old.limit(FORGET_AT_ONCE).cte("old").prefix_with("MATERIALIZED")
        gone = delete(IdempotentRequest).where(
            IdempotentRequest.actor == pairs.c.actor, IdempotentRequest.key == pairs.c.key
        )
        return connection.execute(gone).rowcount
