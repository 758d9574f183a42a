"""The broker as plain Redis: a connection to it, the depth of each queue, and whether it accepts writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.db import causes
from shared.settings import addresses, settings

# A user waits for the response: better no nudge than a slow one. The sweep finds the row.
BROKER_TIMEOUT_SECONDS = 0.5
# A connection that was idle for longer is pinged before use: a firewall may have dropped it silently.
PING_AFTER_SECONDS = 5
PROBE_KEY = "tried"  # written to see whether Redis accepts writes

State = Literal["ok", "full", "read_only", "unavailable"]

log = structlog.get_logger()


@contextmanager
def map_redis_errors() -> Iterator[None]:
    """Turn an answer that no Redis gives into redis.InvalidResponse.

    redis-py does not reject most garbage: it fails with an AttributeError or a TypeError while parsing it.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise redis.InvalidResponse(f"Redis sent an invalid response: {type(error).__name__}") from error


def depth(queue: str, connection: redis.Redis | None = None) -> int:
    """Return how many messages wait in `queue`. Raises redis.RedisError."""
    with map_redis_errors():
        return int((connection or client()).llen(queue))


def state(connection: redis.Redis | None = None) -> State:
    """Return whether the broker answers and accepts writes now. The cause of any other state is logged."""
    try:
        with map_redis_errors():
            (connection or client()).set(PROBE_KEY, 1, px=1000)
    except redis.RedisError as error:
        log.warning("[BROKER] unavailable", cause=causes.message_of(error))
        if isinstance(error, redis.exceptions.OutOfMemoryError):
            return "full"
        return "read_only" if isinstance(error, redis.exceptions.ReadOnlyError) else "unavailable"
    return "ok"


@cache
def client() -> redis.Redis:
    """Return a plain connection to the broker. A connection that a firewall dropped is replaced."""
    return redis.Redis.from_url(address().url, **redis_options(address(), BROKER_TIMEOUT_SECONDS))


def redis_options(address: addresses.RedisAddress, timeout_seconds: float) -> dict[str, Any]:
    """Return redis-py's options for these timeouts, with a ping before a connection that was idle is used."""
    tcp_options = {"socket_connect_timeout": timeout_seconds, "socket_keepalive": True}
    return {
        **(tcp_options if address.scheme != "unix" else {}),
        "socket_timeout": timeout_seconds,
        "health_check_interval": PING_AFTER_SECONDS,
        "retry": Retry(NoBackoff(), 1),  # on a new connection at once: the server may have closed the old one
    }


def address() -> addresses.RedisAddress:
    return addresses.RedisAddress.parse(settings().redis_url.get_secret_value())
