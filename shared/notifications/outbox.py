"""The transactional outbox behind webhooks and mail: a row for each message, retried until it is accepted.

Fan-out creates the rows. An attempt is three steps, claim, send and record, with no transaction open while
the receiver is contacted. A claim is a lease: if a worker dies or outlasts it, the row is due again under the
same id, so a message may arrive twice and is never lost. `webhooks/` and `mail/` supply what differs: the
table, when a message may be claimed, how it is sent, and what each result means.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import redis
import structlog
from sqlalchemy import ColumnElement, Row, Select, Table, and_, delete, func, or_, select, update
from sqlalchemy import literal_column as sql
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.db.transactions import autocommit, map_db_errors, select_locked_once
from shared.queues import messages
from shared.settings import settings

LEASE_SPARE_SECONDS = 20  # beyond the longest attempt: for a slow machine, and to record the result
JITTER = 0.2  # messages that failed together must not be retried together
TURN_SECONDS = 5.0  # then the slot goes to the end of the queue
SENT_KEPT_DAYS = 7
FAILED_KEPT_DAYS = 90
ROWS_AT_ONCE = 10_000  # in one statement
BEHIND_SECONDS = 60  # an event this old that fan-out has not read: no notifier runs

# Literals, not parameters: a prepared plan could not use the partial indexes on these states.
WAITING: ColumnElement[str] = sql("'waiting'")
FAILED: ColumnElement[str] = sql("'failed'")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leased:
    """A message that this worker may send now."""

    id: UUID
    tries: int  # this attempt included; no two leases of a message have the same number


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result of one attempt. `error` says briefly why it failed; None: the receiver accepted it."""

    error: str | None

    @property
    def ends_turn(self) -> bool:
        """True if the next message would most likely fail too."""
        return self.error is not None


LeasedT = TypeVar("LeasedT", bound=Leased)
ResultT = TypeVar("ResultT", bound=SendResult)


@dataclass(frozen=True, slots=True, eq=False)
class Outbox:
    """A table of messages. Every `where` is a condition on its columns."""

    table: Table
    sent_state: str  # of an accepted message; the column `<sent_state>_at` says when
    tie_break: str  # the column that orders messages due at the same moment
    # The event cursor has passed the message's event. Until then only the row says that it was handled.
    is_passed: ColumnElement[bool]
    # Columns of this table alone that a replay resets.
    reset: dict[str, Any] = field(default_factory=dict)

    def under_way(self, *where: ColumnElement[bool]) -> Select[int]:
        """Count the messages that are leased now."""
        leased_until = self.table.c.leased_until
        leased = select(func.count()).where(*where, leased_until.is_not(None), leased_until > func.now())
        return leased.correlate(None)

    def lease(self, session: Session, seconds: float, *where: ColumnElement[bool]) -> Row[Any] | None:
        """Lease the message that has been due longest: its row, with the database's time as `leased_at`."""
        columns = self.table.c
        due = select(columns.id).where(*where, columns.state == WAITING, columns.due_at <= func.now())
        due = due.order_by(columns.due_at, columns[self.tie_break]).limit(1).with_for_update(skip_locked=True)
        until = func.now() + timedelta(seconds=seconds)
        leased = update(self.table).where(columns.id.in_(select_locked_once(due)))
        leased = leased.values(tries=columns.tries + 1, due_at=until, leased_until=until)
        return session.execute(leased.returning(*columns, func.now().label("leased_at"))).one_or_none()

    def mark_sent(self, session: Session, message: Leased, **values: Any) -> None:
        """Record that the receiver accepted it, even if the lease has ended."""
        sent = {
            "state": self.sent_state,
            f"{self.sent_state}_at": func.now(),
            "due_at": None,
            "last_error": None,
        }
        self._release(session, message, sent | values)

    def retry(self, session: Session, message: Leased, due_at: ColumnElement[Any], **values: Any) -> bool:
        """Record a failed attempt; the next one is at `due_at`. False if another worker has the lease."""
        return self._release(session, message, {"due_at": due_at} | values, self._has_lease(message))

    def fail(self, session: Session, message: Leased, *where: ColumnElement[bool], **values: Any) -> bool:
        """Give up after a failed attempt. False if another worker has the lease or `where` does not hold."""
        failed = {"state": FAILED, "due_at": None}
        return self._release(session, message, failed | values, self._has_lease(message), *where)

    def replay(self, session: Session, *where: ColumnElement[bool]) -> int:
        """Make these messages due as if they were new. Returns how many."""
        new = {**self.reset, "state": WAITING, "due_at": func.now(), "began_at": func.now(), "tries": 0}
        new |= {"leased_until": None, f"{self.sent_state}_at": None}
        replayed = update(self.table).where(*where).values(new)
        return len(session.execute(replayed.returning(self.table.c.id)).all())

    def replay_failed(self, session: Session, *where: ColumnElement[bool]) -> int:
        """Make failed messages due as if they were new. Returns how many; call it until that is 0."""
        failed = select(self.table.c.id).where(*where, self.table.c.state == FAILED)
        chosen = select_locked_once(failed.limit(ROWS_AT_ONCE).with_for_update())
        return self.replay(session, self.table.c.id.in_(chosen))

    def delete_old(self) -> int:
        """Delete messages sent a week ago or failed 90 days ago. Returns how many. Raises Unavailable."""
        columns = self.table.c
        sent_before = func.now() - timedelta(days=SENT_KEPT_DAYS)
        failed_before = func.now() - timedelta(days=FAILED_KEPT_DAYS)
        sent_at = func.coalesce(columns[f"{self.sent_state}_at"], columns.created_at)  # None: a skipped mail
        is_done = columns.state.not_in((WAITING, FAILED)) & (sent_at < sent_before)
        is_failed = (columns.state == FAILED) & (columns.began_at < failed_before)
        is_old = or_(
            and_(is_done, columns.created_at < sent_before),
            and_(is_failed, columns.created_at < failed_before),
        )
        old = select_locked_once(select(columns.id).where(self.is_passed, is_old).limit(ROWS_AT_ONCE))
        with map_db_errors(), autocommit() as connection:
            return connection.execute(delete(self.table).where(columns.id.in_(old))).rowcount

    def describe_state(self, message: Any) -> str:
        """The state of a row of this table, its attempts and its last error."""
        state = message.state
        if state == "waiting":
            state += f", due {iso(message.due_at)}"
        elif state == self.sent_state:
            state += f" {iso(getattr(message, f'{self.sent_state}_at'))}"
        attempts = f"{message.tries} attempt{'' if message.tries == 1 else 's'}"
        return f"{state}, {attempts}" + (f" ({message.last_error})" if message.last_error else "")

    def _has_lease(self, message: Leased) -> ColumnElement[bool]:
        """Only the latest lease may record a failure."""
        return self.table.c.tries == message.tries

    def _release(
        self, session: Session, message: Leased, values: Mapping[str, Any], *where: ColumnElement[bool]
    ) -> bool:
        columns = self.table.c
        row = update(self.table).where(columns.id == message.id, columns.state == WAITING, *where)
        released = row.values({"leased_until": None, **values}).returning(columns.id)
        return session.execute(released).one_or_none() is not None


def backoff_seconds(tries: int) -> float:
    """How long to wait before the next attempt, after `tries` of them."""
    waits = settings().notify_retry_seconds
    return waits[min(tries, len(waits)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret


def nudge_slots(task: str, slots: Sequence[str], *, limit: int, event_if_lost: str) -> int:
    """Queue a nudge for each slot that has none queued. Returns how many; 0 if the broker is unreachable."""
    try:
        return len(messages.nudge_new(task, slots, limit=limit))
    except redis.RedisError as error:
        log.warning(event_if_lost, error=type(error).__name__)
        return 0


def take_turn(
    claim: Callable[[], LeasedT | None],
    send: Callable[[LeasedT], ResultT],
    record: Callable[[LeasedT, ResultT], None],
    *,
    after_first_success: Callable[[], None] = lambda: None,
) -> tuple[int, bool]:
    """Claim, send and record until nothing is due, a result ends the turn, or its time is up.

    Returns how many attempts it made, and True if more may be due. Raises what the three steps raise.
    """
    attempts = 0
    has_succeeded = False
    ends_at = time.monotonic() + TURN_SECONDS
    while time.monotonic() < ends_at:
        message = claim()
        if message is None:
            return attempts, False
        result = send(message)
        record(message, result)
        attempts += 1
        if result.error is None and not has_succeeded:
            after_first_success()
            has_succeeded = True
        if result.ends_turn:
            return attempts, False
    return attempts, True
