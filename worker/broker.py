"""The wire to Redis, for workers: what comes over it may be anything, and ends no worker.

kombu hands on whatever it finds in a list; an entry that is no message raises in the middle of Celery's loop.
Celery then dies, and kombu puts the message back for the next worker to die of.
"""

import json
from contextlib import suppress
from queue import Empty
from typing import Any

import redis
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from shared import queues, working

# The wire's own trouble, in the middle of a message: Celery connects anew.
AWAY = (redis.RedisError, OSError, OperationalError)


class Channel(kombu_redis.Channel):
    """kombu's own, but it survives what it reads."""

    def _brpop_read(self, **options: Any) -> bool:
        """Take one message, if there is one. Raises Empty, and what means that Redis is away."""
        try:
            try:
                with queues.understood():
                    answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except AWAY:
                self.client.connection.disconnect()
                raise
            if not answer:
                raise Empty
            place, message = answer
            queue = place.decode().rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._deliver(queue, message)
            return True
        finally:
            self._in_poll = None  # type: ignore[assignment]
            self._flush_brpop_reauth()  # type: ignore[no-untyped-call]

    def _deliver(self, queue: str, message: bytes) -> None:
        content: Any = None
        try:
            content = json.loads(message)
            self.connection._deliver(content, queue)
        except AWAY:
            raise
        except Exception as error:  # whatever there is in it, or Celery makes of it: it is nothing to do
            self._forget(content)
            working.set_aside(queue, message, error)

    def _forget(self, content: Any) -> None:
        """Not to be put back: it was taken, and nobody will ever be done with it."""
        with suppress(Exception):  # it may have no tag, or one that is none
            self.qos.ack(content["properties"]["delivery_tag"])


class Transport(kombu_redis.Transport):
    """kombu's own, with such channels."""

    Channel = Channel


def use() -> None:
    """Take this transport for redis:// and rediss:// from now on, in this process."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "worker.broker:Transport"
