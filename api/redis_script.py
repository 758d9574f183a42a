"""A Lua script that Redis runs in one round trip, at a quarter of the cost of redis-py's commands.

redis-py's connections connect, authenticate, ping after idle times and read replies. Its pool, its retries
and its packing of commands are not used, because they cost more than the round trip.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import cast

import redis
from redis.connection import Connection
from redis.exceptions import NoScriptError

from shared.queues.redis_broker import map_redis_errors


class Script:
    """A script whose reply is one line."""

    def __init__(self, pool: redis.ConnectionPool, source: str) -> None:
        self._pool = pool
        self._source = source
        self._sha = hashlib.sha1(
            source.encode(), usedforsecurity=False
        ).hexdigest()  # Redis's name of the script
        self._idle: list[Connection] = []
        self._process_id = os.getpid()

    def run(self, keys: Sequence[str], arguments: Sequence[str]) -> list[str]:
        """Run the script and return the words of its reply. Raises redis.RedisError."""
        rest = (str(len(keys)), *keys, *arguments)
        with map_redis_errors():
            try:
                reply = self._exchange(_packed("EVALSHA", self._sha, *rest))
            except NoScriptError:  # a new Redis, or one that restarted
                reply = self._exchange(_packed("EVAL", self._source, *rest))
            return reply.decode().split()

    def _exchange(self, command: bytes) -> bytes:
        """Send the command and return its reply.

        A connection that was idle may be broken: then a new one is tried, once. The script may have run.
        """
        connection = self._take_idle()
        if connection is not None:
            try:
                return self._exchange_on(connection, command)
            except (redis.ConnectionError, redis.TimeoutError):
                pass
        return self._exchange_on(cast(Connection, self._pool.make_connection()), command)

    def _exchange_on(self, connection: Connection, command: bytes) -> bytes:
        try:
            connection.send_packed_command([command])  # type: ignore[no-untyped-call]
            reply: bytes = connection.read_response()
        except redis.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        self._idle.append(connection)
        return reply

    def _take_idle(self) -> Connection | None:
        """Return the connection that was used last, if there is one."""
        if self._process_id != os.getpid():  # a parent's connections are its own
            self._idle = []
            self._process_id = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _packed(*words: str) -> bytes:
    """Return a command as Redis reads it: an array of strings, each with its length in bytes."""
    if all(map(str.isascii, words)):
        strings = [f"${len(word)}\r\n{word}\r\n" for word in words]
    else:
        strings = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(strings)}".encode()
