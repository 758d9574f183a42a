"""Where messages go, by name. A message is a nudge that carries an id; losing one costs time, not money."""

import time
from functools import cache
from typing import Any
from uuid import UUID

import redis
import structlog
from celery import Celery

from shared.settings import settings

# The sweep has a queue of its own: behind a thousand slow polls it would find nothing for an hour.
PAYOUTS, WEBHOOKS, MAINTENANCE, SWEEPS = "payouts", "webhooks", "maintenance", "sweeps"
SUBMIT, POLL, APPLY, SWEEP = "submit_withdrawal", "poll_payout", "apply_webhook", "sweep"

QUEUE_OF = {SUBMIT: PAYOUTS, POLL: MAINTENANCE, APPLY: WEBHOOKS, SWEEP: SWEEPS}

# A redelivery costs one look at the row, so this only has to be longer than any delay that we ask for.
VISIBILITY_SECONDS = 3600
# A worker keeps a delayed message in its memory; what is due so late, the sweep finds as well.
MAX_DELAY_SECONDS = 900
# The caller is a user who waits: better no nudge than a slow answer. The sweep finds the row.
BROKER_SECONDS = 0.5
# After a failure the broker is left alone for so long, or every request would wait for it in vain.
QUIET_SECONDS = 2.0

log = structlog.get_logger()
_quiet_until = 0.0


def celery_settings() -> dict[str, Any]:
    """What the sender and the worker must agree on."""
    return {
        "broker_url": settings().redis_url.get_secret_value(),
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
    hurried = {"socket_timeout": BROKER_SECONDS, "max_retries": 0}
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, **hurried}
    return celery


def nudge(task: str, key: UUID | str, *, in_seconds: float = 0) -> bool:
    """Tell a worker that `key` is due, at once or in a while. False when it is left to the sweep instead:
    the delay is long, or the broker is away, which is logged.
    """
    if in_seconds > MAX_DELAY_SECONDS:
        return False
    global _quiet_until  # noqa: PLW0603  one fact about the broker, for the whole process
    if time.monotonic() < _quiet_until:
        return False
    try:
        sender().send_task(
            task, args=[str(key)], countdown=in_seconds or None, retry=False, ignore_result=True
        )
    except Exception as error:  # whatever the broker's client raises: the row is the job, this is a nudge
        _quiet_until = time.monotonic() + QUIET_SECONDS
        log.warning("[PAYOUT] nudge lost", task=task, key=str(key), error=type(error).__name__)
        return False
    return True


def depth(queue: str, client: redis.Redis | None = None) -> int:
    """How many messages wait in `queue`. Raises redis.RedisError."""
    return int((client or broker()).llen(queue))


def answers(client: redis.Redis | None = None) -> bool:
    """Whether the broker answers now."""
    try:
        return bool((client or broker()).ping())
    except redis.RedisError:
        return False


@cache
def broker() -> redis.Redis:
    """A plain connection to the broker, for looking at it."""
    return redis.Redis.from_url(
        settings().redis_url.get_secret_value(),
        socket_connect_timeout=BROKER_SECONDS,
        socket_timeout=BROKER_SECONDS,
    )
