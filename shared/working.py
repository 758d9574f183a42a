"""Who looks after the queues, and what was taken from them that no worker could read.

Both stand in Redis, which forgets: a heartbeat comes again within seconds, and a message that cannot be read
was never ours to lose. Keys:

    working:QUEUE    somebody takes messages from this queue; it fades when nobody says so for `GONE_SECONDS`
    set_aside        messages that no worker could read, each once, the last `MOST_SET_ASIDE`
"""

import hashlib
import time
from collections.abc import Iterable

import redis
import structlog

from shared import queues

BEAT_SECONDS = 10.0  # how often a worker says that it is there
GONE_SECONDS = 60  # a worker that is busy for so long with one thing of its own counts as gone
SET_ASIDE, MOST_SET_ASIDE = "set_aside", 100
MOST_BYTES = 4096  # of a message that is set aside

log = structlog.get_logger()


def beat(names: Iterable[str]) -> None:
    """Say that this process takes messages from these queues. Raises redis.RedisError."""
    with queues.understood(), queues.broker().pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(_key(name), 1, ex=GONE_SECONDS)
        pipe.execute()


def worked() -> dict[str, bool]:
    """Whether anybody takes messages from each queue. Raises redis.RedisError."""
    with queues.understood():
        found = queues.broker().mget([_key(name) for name in queues.EVERY_QUEUE])
    return {name: mark is not None for name, mark in zip(queues.EVERY_QUEUE, found, strict=True)}


def set_aside(queue: str, message: bytes, error: BaseException) -> None:
    """Keep what no worker can read where it harms nobody. It is said once, however often it comes."""
    digest = hashlib.sha256(message).hexdigest()
    member = f"{digest} {queue} {type(error).__name__} ".encode() + message[:MOST_BYTES]
    is_new = True
    try:
        with queues.understood():
            is_new = bool(queues.broker().zadd(SET_ASIDE, {member: time.time()}, nx=True))
            queues.broker().zremrangebyrank(SET_ASIDE, 0, -MOST_SET_ASIDE - 1)
    except redis.RedisError as away:
        log.warning("[QUEUE] message not kept", queue=queue, error=type(away).__name__)
    if is_new:
        # Never the message itself: anybody may have written it.
        log.error(
            "[QUEUE] message set aside",
            queue=queue,
            why=type(error).__name__,
            size=len(message),
            sha256=digest,
        )


def number_set_aside() -> int:
    """How many messages are kept. Raises redis.RedisError."""
    with queues.understood():
        return int(queues.broker().zcard(SET_ASIDE))


def _key(queue: str) -> str:
    return f"working:{queue}"
