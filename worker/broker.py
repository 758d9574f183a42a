"""The workers' transport to Redis: an entry that is not a valid message does not stop a worker.

kombu passes on everything it finds in a list; an entry that is no message raises inside Celery's loop. Celery
then exits, and kombu puts the message back, which stops the next worker too.
"""

import json
from contextlib import suppress
from queue import Empty
from typing import Any

import redis
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from shared.queues import redis_broker, workers

# Errors of the connection itself: Celery reconnects.
CONNECTION_ERRORS = (redis.RedisError, OSError, OperationalError)


class Channel(kombu_redis.Channel):
    """kombu's channel, but it survives invalid messages."""

    def _brpop_read(self, **options: Any) -> bool:
        """Take one message, if there is one. Raises Empty and the CONNECTION_ERRORS."""
        try:
            try:
                with redis_broker.map_redis_errors():
                    answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except CONNECTION_ERRORS:
                self.client.connection.disconnect()
                raise
            if not answer:
                raise Empty
            key, message = answer
            queue = key.decode().rsplit(self.sep, 1)[0]
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
        except CONNECTION_ERRORS:
            raise
        except Exception as error:  # of any kind: the entry is not a message for us
            self._forget(content)
            workers.set_aside(queue, message, error)

    def _forget(self, content: Any) -> None:
        """Acknowledge an invalid message, so that it is not put back."""
        with suppress(Exception):  # it may lack a valid tag
            self.qos.ack(content["properties"]["delivery_tag"])


class Transport(kombu_redis.Transport):
    """kombu's transport, with our channels."""

    Channel = Channel


def install() -> None:
    """Use this transport for redis:// and rediss:// in this process."""
    # By name, because kombu would call a class here instead of returning it.
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = "worker.broker:Transport"
