"""Messages to the workers. A message is a nudge for one row or many; a lost one costs time, not money.

Requests and webhooks do not send their own: `soon.py` sends one message for all that come within a moment.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from uuid import UUID

import redis
import structlog
from celery import Celery

from shared.queues import redis_broker
from shared.queues.names import MAINTENANCE, NOTIFICATIONS, PAYOUTS, POLLS, SWEEPS, WEBHOOKS
from shared.settings import settings
from shared.telemetry import metrics

SUBMIT = "submit_withdrawal"
POLL = "poll_payout"
APPLY = "apply_webhook"
SWEEP = "sweep"
SWEEP_SENDS = "sweep_sends"
MARK_PACED = "mark_paced"
WATCH = "watch"
SEAL = "seal"
RECONCILE = "reconcile"
COUNT = "count"
NOTIFY = "notify"
DELIVER = "deliver"
MAIL = "mail"
SEND_MAIL = "send_mail"

QUEUE_OF = {
    SUBMIT: PAYOUTS,
    POLL: POLLS,
    APPLY: WEBHOOKS,
    SWEEP: SWEEPS,
    SWEEP_SENDS: SWEEPS,
    MARK_PACED: MAINTENANCE,
    WATCH: MAINTENANCE,
    SEAL: MAINTENANCE,
    RECONCILE: MAINTENANCE,
    COUNT: MAINTENANCE,
    NOTIFY: NOTIFICATIONS,
    DELIVER: NOTIFICATIONS,
    MAIL: NOTIFICATIONS,
    SEND_MAIL: NOTIFICATIONS,
}

# A redelivery costs one read of the row, so this only has to exceed the longest delay that we use.
VISIBILITY_TIMEOUT_SECONDS = 3600
# After a failure nothing is sent for this long, or every request would wait for a broker that is away.
BROKER_BACKOFF_SECONDS = 2.0

MAX_BATCH = 50  # withdrawals in a message
POLLS_FOR_A_SEND = 5
BATCH_SECONDS = 2.0
ONCE_MILLISECONDS = 1000  # how long a lost message of `nudge_once` keeps others from being sent

log = structlog.get_logger()
_backoff_until = 0.0


def celery_settings() -> dict[str, Any]:
    """Return the Celery settings that the sender and the worker share."""
    return {
        **redis_broker.address().celery_settings,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "socket_connect_timeout": redis_broker.BROKER_TIMEOUT_SECONDS,
            "socket_timeout": 30,
            "socket_keepalive": True,
            # kombu would keep a copy of each message in progress and redeliver it after a worker's death. The
            # sweep does that sooner. And kombu 5.7 stops the whole worker if it cannot restore those messages
            # to a broker that just went away (seen in 2 of 20 restarts of Redis; without it in 0 of 20).
            "ack_emulation": False,
            "health_check_interval": 10,
            # One list per queue. kombu would read three more, of other priorities, for each message.
            "priority_steps": [0],
        },
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF.items()},
        "task_default_queue": MAINTENANCE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # The worker reports tasks to Flower. An event for each sent message would triple the cost of a nudge.
        "task_send_sent_event": False,
    }


@cache
def sender() -> Celery:
    """Return the Celery app that sends messages; it knows only the names of the worker's tasks."""
    celery = Celery("coin-payouts", set_as_current=False)
    celery.conf.update(celery_settings())
    # With the default for max_retries, kombu would retry for four seconds.
    impatient = {
        "socket_timeout": redis_broker.BROKER_TIMEOUT_SECONDS,
        "max_retries": 0,
        "health_check_interval": redis_broker.PING_AFTER_SECONDS,
        "retry_on_timeout": True,  # once, on a new connection: a firewall may have dropped the old one
    }
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, **impatient}
    return celery


def batch_size(task: str) -> int:
    """Return how many withdrawals a message is for: what the rate limit sends in two seconds, at most 50.

    More would hold leases, and withdrawals that users could still cancel, for calls that cannot begin yet. It
    is more for polls, of which one call may answer many.
    """
    size = max(1, min(MAX_BATCH, int(BATCH_SECONDS * settings().payouts_per_second)))
    return size * POLLS_FOR_A_SEND if task == POLL else size


def nudge(task: str, *keys: UUID | str, queue: str | None = None) -> bool:
    """Tell a worker that these keys are due. False, and logged, if the broker is away: a sweep follows."""
    return _send(task, [str(key) for key in keys], queue=queue)


def nudge_new(
    task: str, keys: Iterable[UUID | str], *, limit: int, size: int = 1, queue: str | None = None
) -> list[str]:
    """Nudge the first `limit` keys without a waiting message, `size` in a message; returns those keys.

    A mark in Redis records that a message waits. The worker that takes the message clears it
    (`clear_nudge_marks`); the mark of a lost message expires. A lost mark costs a message that finds nothing
    due. Raises redis.RedisError.
    """
    names = [str(key) for key in keys]
    with redis_broker.map_redis_errors():
        marks = redis_broker.client().mget([_mark(key) for key in names]) if names else []
        new = [key for key, mark in zip(names, marks, strict=True) if mark is None][:limit]
        with redis_broker.client().pipeline(transaction=False) as pipe:
            for key in new:
                pipe.set(_mark(key), 1, px=max(1, int(settings().lease_seconds / 3 * 1000)))
            pipe.execute()
    return nudge_batches(task, new, size=size, queue=queue)


def nudge_batches(task: str, keys: Sequence[str], *, size: int, queue: str | None = None) -> list[str]:
    """Nudge these keys, `size` in a message; returns those whose message the broker has."""
    sent: list[str] = []
    for first in range(0, len(keys), size):
        batch = keys[first : first + size]
        if nudge(task, *batch, queue=queue):
            sent += batch
    return sent


def nudge_once(task: str) -> bool:
    """Send this task's message unless one waits; the task clears its mark. False if the broker is away."""
    try:
        with redis_broker.map_redis_errors():
            is_new = redis_broker.client().set(_mark(task), 1, nx=True, px=ONCE_MILLISECONDS)
    except redis.RedisError:
        return _send(task, [])  # logs it, and counts it as lost
    return not is_new or _send(task, [])


def clear_nudge_marks(keys: Iterable[str]) -> None:
    """Record that a worker took the message of these keys, so that they can be nudged again."""
    with suppress(redis.RedisError), redis_broker.map_redis_errors():
        redis_broker.client().delete(*(_mark(key) for key in keys))


def _mark(key: str) -> str:
    return f"nudged:{key}"


def _send(task: str, arguments: list[str], **options: Any) -> bool:
    global _backoff_until  # noqa: PLW0603  one fact about the broker, for the whole process
    if time.monotonic() < _backoff_until:
        metrics.NUDGES_LOST.labels(task).inc()
        return False
    try:
        sender().send_task(task, args=arguments, retry=False, ignore_result=True, **options)
    except Exception as error:  # any error of the broker's client: the row is the job, this is only a nudge
        _backoff_until = time.monotonic() + BROKER_BACKOFF_SECONDS
        metrics.NUDGES_LOST.labels(task).inc()
        log.warning("[PAYOUT] nudge lost", task=task, key=arguments[:1], error=type(error).__name__)
        return False
    return True
