"""Which queues have workers, and the messages that no worker could read.

Both are kept in Redis, which may lose them: the next heartbeat comes within seconds, and an unreadable
message was never work. Keys:

    working:QUEUE    a worker consumes this queue; expires `HEARTBEAT_TTL_SECONDS` after the last heartbeat
    set_aside        messages that no worker could read, each once, the newest `MAX_SET_ASIDE`
"""

import hashlib
import time
from collections.abc import Iterable

import redis
import structlog

from shared.queues import redis_broker
from shared.queues.names import EVERY_QUEUE

HEARTBEAT_SECONDS = 10.0  # the interval between two heartbeats
HEARTBEAT_TTL_SECONDS = 60  # a worker whose consumer loop is blocked for this long counts as gone
SET_ASIDE_KEY = "set_aside"
MAX_SET_ASIDE = 100
MAX_MESSAGE_BYTES = 4096  # kept of each message that is set aside

log = structlog.get_logger()


def record_heartbeat(names: Iterable[str]) -> None:
    """Record that this process consumes these queues. Raises redis.RedisError."""
    with redis_broker.map_redis_errors(), redis_broker.client().pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(_key(name), 1, ex=HEARTBEAT_TTL_SECONDS)
        pipe.execute()


def queues_with_workers() -> dict[str, bool]:
    """Return for each queue whether a worker consumes it. Raises redis.RedisError."""
    with redis_broker.map_redis_errors():
        heartbeats = redis_broker.client().mget([_key(name) for name in EVERY_QUEUE])
    return {name: beat is not None for name, beat in zip(EVERY_QUEUE, heartbeats, strict=True)}


def set_aside(queue: str, message: bytes, error: BaseException) -> None:
    """Move a message that no worker can read out of its queue. Each message is logged once."""
    digest = hashlib.sha256(message).hexdigest()
    member = f"{digest} {queue} {type(error).__name__} ".encode() + message[:MAX_MESSAGE_BYTES]
    is_new = True
    try:
        with redis_broker.map_redis_errors():
            is_new = bool(redis_broker.client().zadd(SET_ASIDE_KEY, {member: time.time()}, nx=True))
            redis_broker.client().zremrangebyrank(SET_ASIDE_KEY, 0, -MAX_SET_ASIDE - 1)
    except redis.RedisError as redis_error:
        log.warning("[QUEUE] message not stored", queue=queue, error=type(redis_error).__name__)
    if is_new:
        # Never log the message itself: anyone with access to Redis may have written it.
        log.error(
            "[QUEUE] message set aside",
            queue=queue,
            why=type(error).__name__,
            size=len(message),
            sha256=digest,
        )


def number_set_aside() -> int:
    """Return how many messages are set aside. Raises redis.RedisError."""
    with redis_broker.map_redis_errors():
        return int(redis_broker.client().zcard(SET_ASIDE_KEY))


def _key(queue: str) -> str:
    return f"working:{queue}"
