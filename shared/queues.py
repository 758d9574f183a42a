"""Where messages go, by name. A message is a nudge that carries an id; losing one costs time, not money."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Literal
from uuid import UUID

import redis
import structlog
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import causes, metrics, queue_names
from shared.settings import places, settings

PAYOUTS, BACKLOG, WEBHOOKS = queue_names.PAYOUTS, queue_names.BACKLOG, queue_names.WEBHOOKS
POLLS, MAINTENANCE, SWEEPS = queue_names.POLLS, queue_names.MAINTENANCE, queue_names.SWEEPS
NOTIFICATIONS = queue_names.NOTIFICATIONS
QUEUES, EVERY_QUEUE = queue_names.QUEUES, queue_names.EVERY_QUEUE
SUBMIT, POLL, APPLY, SWEEP = "submit_withdrawal", "poll_payout", "apply_webhook", "sweep"
WATCH, SEAL, RECONCILE, COUNT = "watch", "seal", "reconcile", "count"
NOTIFY, DELIVER = "notify", "deliver"
MAIL, SEND_MAIL = "mail", "send_mail"

QUEUE_OF = {
    SUBMIT: PAYOUTS,
    POLL: POLLS,
    APPLY: WEBHOOKS,
    SWEEP: SWEEPS,
    WATCH: MAINTENANCE,
    SEAL: MAINTENANCE,
    RECONCILE: MAINTENANCE,
    COUNT: MAINTENANCE,
    NOTIFY: NOTIFICATIONS,
    DELIVER: NOTIFICATIONS,
    MAIL: NOTIFICATIONS,
    SEND_MAIL: NOTIFICATIONS,
}

# A redelivery costs one look at the row, so this only has to be longer than any delay that we ask for.
VISIBILITY_SECONDS = 3600
# One sweep serves all requests that fall due within so long: a burst of them makes few messages, not many.
SWEEP_STEP_SECONDS = 0.25
# The caller is a user who waits: better no nudge than a slow answer. The sweep finds the row.
BROKER_SECONDS = 0.5
# After a failure the broker is left alone for so long, or every request would wait for it in vain.
QUIET_SECONDS = 2.0
# A connection that was idle for longer is tried before it is used: a firewall may have dropped it silently.
TRY_AFTER_SECONDS = 5
TRIED = "tried"  # what is written to see whether writing works

State = Literal["ok", "full", "read_only", "unavailable"]

log = structlog.get_logger()
_quiet_until = 0.0
_swept_at = 0.0


def celery_settings() -> dict[str, Any]:
    """What the sender and the worker must agree on."""
    return {
        **_place().for_kombu,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": BROKER_SECONDS,
            "socket_timeout": 30,
            "socket_keepalive": True,
            # Messages that a worker holds are not kept a second time in Redis, to be given out again when it
            # dies: the sweep does that, sooner. And kombu 5.7 ends the whole worker when it tries to put them
            # back into a broker that has just gone away (seen in 2 of 20 restarts of Redis, 0 of 20 without).
            "ack_emulation": False,
            "health_check_interval": 10,
            # One list for each queue; kombu would ask for three more, of other priorities, with each message.
            "priority_steps": [0],
        },
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF.items()},
        "task_default_queue": MAINTENANCE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # Flower learns of a task from the worker; an event for each sending would triple the cost of a nudge.
        "task_send_sent_event": False,
    }


@cache
def sender() -> Celery:
    """What sends messages; knows the names of the tasks and nothing else of the worker."""
    celery = Celery("coin-payouts", set_as_current=False)
    celery.conf.update(celery_settings())
    # Without the zero kombu tries for four seconds on its own account.
    hurried = {
        "socket_timeout": BROKER_SECONDS,
        "max_retries": 0,
        "health_check_interval": TRY_AFTER_SECONDS,
        "retry_on_timeout": True,  # once, on a new connection: a firewall may have dropped the old one
    }
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, **hurried}
    return celery


def nudge(task: str, key: UUID | str, *, queue: str | None = None) -> bool:
    """Tell a worker that `key` is due. False when the broker is away, which is logged: a sweep will do it."""
    return _send(task, [str(key)], queue=queue)


def nudge_new(task: str, keys: Iterable[UUID | str], *, room: int, queue: str | None = None) -> list[str]:
    """Nudge the first `room` keys that no message waits for yet; which were sent. Raises redis.RedisError.

    A mark in Redis says that a message waits. Whoever takes the message takes the mark (`taken`); the mark of
    a lost message fades. Losing the marks costs a message that finds nothing due.
    """
    asked = [str(key) for key in keys]
    with understood():
        marks = broker().mget([_mark(key) for key in asked]) if asked else []
        new = [key for key, mark in zip(asked, marks, strict=True) if mark is None][:room]
        with broker().pipeline(transaction=False) as pipe:
            for key in new:
                pipe.set(_mark(key), 1, px=max(1, int(settings().lease_seconds / 3 * 1000)))
            pipe.execute()
    return [key for key in new if nudge(task, key, queue=queue)]


@contextmanager
def understood() -> Iterator[None]:
    """What Redis says is what Redis would say. Raises redis.InvalidResponse for anything else.

    redis-py stumbles over most garbage instead of refusing it: it looks for words in a number.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise redis.InvalidResponse(f"Redis said something odd: {type(error).__name__}") from error


def taken(key: str) -> None:
    """A worker has the message of this key in hand: from now on it may be nudged anew."""
    with suppress(redis.RedisError), understood():
        broker().delete(_mark(key))


def _mark(key: str) -> str:
    return f"nudged:{key}"


def nudge_sweep(*, in_seconds: float) -> None:
    """Ask for a sweep at the moment when what was just written is due.

    A delayed message per withdrawal would wait in a worker's memory, out of turn and lost with it. So there
    is one for all that fall due about then, and the sweep brings them into their order.
    """
    global _swept_at  # noqa: PLW0603  one fact for the whole process
    due = time.time() + in_seconds
    if due <= _swept_at:
        return
    if _send(SWEEP, [], countdown=in_seconds + SWEEP_STEP_SECONDS):
        _swept_at = due + SWEEP_STEP_SECONDS


def _send(task: str, arguments: list[str], **options: Any) -> bool:
    global _quiet_until  # noqa: PLW0603  one fact about the broker, for the whole process
    if time.monotonic() < _quiet_until:
        metrics.NUDGES_LOST.labels(task).inc()
        return False
    try:
        sender().send_task(task, args=arguments, retry=False, ignore_result=True, **options)
    except Exception as error:  # whatever the broker's client raises: the row is the job, this is a nudge
        _quiet_until = time.monotonic() + QUIET_SECONDS
        metrics.NUDGES_LOST.labels(task).inc()
        log.warning("[PAYOUT] nudge lost", task=task, key=arguments[:1], error=type(error).__name__)
        return False
    return True


def depth(queue: str, client: redis.Redis | None = None) -> int:
    """How many messages wait in `queue`. Raises redis.RedisError."""
    with understood():
        return int((client or broker()).llen(queue))


def state(client: redis.Redis | None = None) -> State:
    """Whether the broker answers now and takes what is written, in a word; and if not, why, in the log."""
    try:
        with understood():
            (client or broker()).set(TRIED, 1, px=1000)
    except redis.RedisError as error:
        log.warning("[BROKER] unavailable", cause=causes.words_of(error))
        if isinstance(error, redis.exceptions.OutOfMemoryError):
            return "full"
        return "read_only" if isinstance(error, redis.exceptions.ReadOnlyError) else "unavailable"
    return "ok"


@cache
def broker() -> redis.Redis:
    """A plain connection to the broker, for looking at it. One that a firewall dropped is replaced."""
    return redis.Redis.from_url(_place().url, **redis_options(_place(), BROKER_SECONDS))


def redis_options(place: places.Redis, seconds: float) -> dict[str, Any]:
    """How long a caller of redis-py waits; and that it tries a connection that was idle before using it."""
    of_tcp = {"socket_connect_timeout": seconds, "socket_keepalive": True}
    return {
        **(of_tcp if place.scheme != "unix" else {}),
        "socket_timeout": seconds,
        "health_check_interval": TRY_AFTER_SECONDS,
        "retry": Retry(NoBackoff(), 1),  # a new connection at once: the old one may just have been ended
    }


def _place() -> places.Redis:
    return places.Redis.at(settings().redis_url.get_secret_value())
