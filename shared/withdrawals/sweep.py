"""The sweep: find due work that no worker holds, after a lost message, a dead worker, a wiped broker, or on
time.

The sweep also decides the order. The queues are first in, first out, so one user with five thousand
withdrawals would delay everyone: a user's first few go to the shared queue, the rest to the backlog queue.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
import structlog
from sqlalchemy import Connection, func, select, text

from shared.db.transactions import autocommit, map_db_errors, transaction
from shared.models import WebhookEvent
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.queues import messages, redis_broker
from shared.queues.names import BACKLOG, PAYOUTS, POLLS
from shared.settings import settings
from shared.telemetry import metrics
from shared.withdrawals import circuit_breakers, pauses

# Begun withdrawals go first: their rupees may be on the way, so they must not wait behind a long queue.
DUE_SENDS = text("""
    WITH begun AS MATERIALIZED
        (SELECT id, user_id, due_at, true AS is_begun FROM withdrawals w
         WHERE (status = 'processing' OR status_reason = 'preparing') AND due_at <= now()
           AND NOT EXISTS
               (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'accepted')
         ORDER BY due_at LIMIT :window),
    new AS MATERIALIZED
        (SELECT id, user_id, due_at, false AS is_begun FROM withdrawals
         WHERE status IN ('pending', 'processing') AND due_at <= now()
           AND status = 'pending' AND status_reason <> 'preparing'
         ORDER BY due_at LIMIT :window)
    SELECT id, user_id, extract(epoch FROM now() - due_at) AS lag,
           row_number() OVER (PARTITION BY user_id ORDER BY is_begun DESC, due_at) <= :per_user AS is_shared
    FROM (SELECT * FROM begun UNION ALL SELECT * FROM new) due ORDER BY is_begun DESC, due_at
""")
# Jumps from user to user in the index on (user_id, due_at).
OTHER_USERS = text("""
    WITH RECURSIVE
    found AS (
        (SELECT w.user_id, 1 AS number FROM withdrawals w
         WHERE w.status IN ('pending', 'processing') AND w.user_id > :after
         ORDER BY w.user_id LIMIT 1)
        UNION ALL
        SELECT next.user_id, found.number + 1 FROM found CROSS JOIN LATERAL
            (SELECT w.user_id FROM withdrawals w
             WHERE w.status IN ('pending', 'processing') AND w.user_id > found.user_id
             ORDER BY w.user_id LIMIT 1) next
        WHERE found.number < :window)
    SELECT w.id, found.user_id, extract(epoch FROM now() - w.due_at) AS lag
    FROM found CROSS JOIN LATERAL
        (SELECT id, due_at FROM withdrawals
         WHERE user_id = found.user_id AND status IN ('pending', 'processing') AND due_at <= now()
           AND status = 'pending'
         ORDER BY due_at LIMIT :per_user) w
    WHERE found.user_id <> ALL(:users)
    ORDER BY found.user_id
""")
DUE_POLLS = text("""
    WITH accepted AS MATERIALIZED
        (SELECT w.id, w.due_at FROM withdrawals w
         WHERE (status = 'processing' OR status_reason = 'preparing') AND due_at <= now()
           AND EXISTS (SELECT FROM payout_attempts a WHERE a.withdrawal_id = w.id AND a.state = 'accepted')
         ORDER BY due_at LIMIT :window),
    completed AS MATERIALIZED
        (SELECT withdrawal_id, recheck_at FROM payout_attempts WHERE recheck_at <= now()
         ORDER BY recheck_at LIMIT :window),
    hinted AS MATERIALIZED
        (SELECT withdrawal_id, due_at FROM hints WHERE due_at <= now() ORDER BY due_at LIMIT :window)
    SELECT id, extract(epoch FROM now() - due_at) AS lag
    FROM (SELECT * FROM accepted UNION ALL SELECT * FROM completed UNION ALL SELECT * FROM hinted) due
    ORDER BY due_at LIMIT :window
""")
Lags = dict[str, float]  # seconds since each withdrawal became due, by its id

REFILL_SECONDS = 1.0  # the shortest time between two
# Task -> its queues, and the sweep that refills them.
REFILLS = {
    messages.SUBMIT: ((PAYOUTS, BACKLOG), messages.SWEEP_SENDS),
    messages.POLL: ((POLLS,), messages.SWEEP),
}
_refilled_at: dict[str, float] = {}  # by task
_others_after = ""  # the last user whom the previous sweep looked at in OTHER_USERS

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The number of messages that one sweep sent."""

    submits: int
    polls: int
    webhooks: int


def sweep() -> SweepResult:
    """Notify workers of all due work, begun withdrawals and the oldest first, up to the size of the queues.

    Work stays due until a worker claims it. So that a long queue does not fill with duplicates, it gets no
    messages until half of `sweep_batch` is consumed. While workers back off from the provider, only webhooks
    are notified. Raises Unavailable.
    """
    _wake_paused()
    webhooks = _nudge_webhooks()
    room = _room(messages.POLL)
    polls = _nudge(messages.POLL, _due_polls(), room) if room and not _is_backing_off() else 0
    result = SweepResult(sweep_sends(), polls, webhooks)
    if result != SweepResult(0, 0, 0):
        log.info("[SWEEP] nudged", submits=result.submits, polls=result.polls, webhooks=result.webhooks)
    return result


def sweep_sends() -> int:
    """Notify workers of withdrawals that are due to be sent; returns how many. Raises Unavailable."""
    rooms = {queue: _room(messages.SUBMIT, queue) for queue in (PAYOUTS, BACKLOG)}
    if not any(rooms.values()) or _is_backing_off():
        return 0
    shared, backlog = _due_sends(2 * settings().sweep_batch)
    sent = _nudge(messages.SUBMIT, shared, rooms[PAYOUTS], PAYOUTS)
    return sent + _nudge(messages.SUBMIT, backlog, rooms[BACKLOG], BACKLOG)


def refill(batch: Sequence[str], task: str) -> None:
    """After a full batch, look for more if the queues run empty, instead of waiting for the next sweep."""
    full = min(messages.batch_size(task), settings().sweep_batch)
    if len(batch) < full or time.monotonic() < _refilled_at.get(task, -REFILL_SECONDS) + REFILL_SECONDS:
        return
    _refilled_at[task] = time.monotonic()  # each process asks for itself
    queues, sweep_task = REFILLS[task]
    with suppress(redis.RedisError):
        waiting = sum(redis_broker.depth(queue) for queue in queues)
        if waiting * messages.batch_size(task) < settings().sweep_batch / 2:
            messages.nudge_once(sweep_task)


@contextmanager
def _reading() -> Iterator[Connection]:
    """Read without BEGIN and ROLLBACK, which would be two more round trips. Raises Unavailable."""
    with map_db_errors(), autocommit() as connection:
        yield connection


def _is_backing_off() -> bool:
    with _reading() as connection:
        query = select(rate_limit.is_backed_up(provider().code))
        return bool(connection.scalar(query, rate_limit.backlog_bounds()))


def _due_sends(window: int) -> tuple[Lags, Lags]:
    """Return due withdrawals without an accepted payout: the first few of each user (shared), and the rest.

    Only the `window` oldest are looked at, or a million due rows would make each sweep slow. If few users
    have all of those, some of the other users follow, and in the next sweep the ones after them.
    """
    values = {"per_user": settings().payouts_per_user, "window": window}
    with _reading() as connection:
        rows = connection.execute(DUE_SENDS, values).all()
        shared = {str(row.id): float(row.lag) for row in rows if row.is_shared}
        backlog = {str(row.id): float(row.lag) for row in rows if not row.is_shared}
        if len(rows) >= window and len(shared) < window / 2:
            shared |= _due_of_others(connection, list({row.user_id for row in rows}), values)
    return shared, backlog


def _due_of_others(connection: Connection, users: list[str], values: dict[str, int]) -> Lags:
    global _others_after  # noqa: PLW0603  each process goes through the users in its own turn
    rows = connection.execute(OTHER_USERS, {**values, "users": users, "after": _others_after}).all()
    _others_after = rows[-1].user_id if rows else ""
    rows = sorted(rows, key=lambda row: row.lag, reverse=True)
    return {str(row.id): float(row.lag) for row in rows}


def _due_polls() -> Lags:
    """Return accepted payouts, rechecks of completed ones, and hints, the most overdue first.

    One kind after another would delay the second kind for as long as there are many of the first.
    """
    with _reading() as connection:
        rows = connection.execute(DUE_POLLS, {"window": 2 * settings().sweep_batch})
        return {str(row.id): float(row.lag) for row in rows}


def _nudge_webhooks() -> int:
    """Send one message if stored webhooks are due; returns how many are, up to `sweep_batch`."""
    due = (
        select(func.extract("epoch", func.now() - WebhookEvent.due_at))
        .where(WebhookEvent.applied_at.is_(None), WebhookEvent.due_at <= func.now())
        .order_by(WebhookEvent.due_at)
        .limit(settings().sweep_batch)
    )
    with _reading() as connection:
        lags = connection.scalars(due).all()
    if not lags or not messages.nudge_once(messages.APPLY):
        return 0
    histogram = metrics.SWEEP_LAG_SECONDS.labels(messages.APPLY)
    for seconds in lags:
        histogram.observe(float(seconds))
    return len(lags)


def _room(task: str, queue: str | None = None) -> int:
    """Return how many more withdrawals fit in the queue; 0 until half of `sweep_batch` is consumed."""
    batch = settings().sweep_batch
    try:
        waiting = redis_broker.depth(queue or messages.QUEUE_OF[task]) * messages.batch_size(task)
    except redis.RedisError:
        return 0
    return batch - waiting if waiting <= batch / 2 else 0


def _nudge(task: str, lags: Lags, room: int, queue: str | None = None) -> int:
    """Send messages for the first that have none and fit in the queue; returns for how many."""
    if not room:
        return 0
    try:
        sent = messages.nudge_new(task, lags, limit=room, size=messages.batch_size(task), queue=queue)
    except redis.RedisError:
        return 0
    histogram = metrics.SWEEP_LAG_SECONDS.labels(task)
    for key in sent:
        histogram.observe(lags[key])
    return len(sent)


def _wake_paused() -> None:
    """Make the oldest paused withdrawal due as the probe of each half-open breaker.

    Also wake withdrawals that were paused at the moment when their breaker closed, which its closing missed.
    """
    with transaction() as session:
        for breaker in circuit_breakers.half_open_breakers(session):
            pauses.wake(session, breaker, limit=1)
        pauses.wake_missed(session)
