"""Celery's consumer, which waits and goes on where Celery would end the worker; and its heartbeat."""

import time
from typing import Any

import redis
import structlog
from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.tasks import Tasks

from shared import queues, working

FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS = 0.5, 5.0
CALM_SECONDS = 30.0  # after so long without a failure the next one is a first one again

log = structlog.get_logger()


class NoTask(Exception):
    """A message that is no order to do something that this worker knows."""


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Whatever Redis says (it is read-only, a list is no list, garbage): connect anew, after a wait."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Celery's own list has neither a queue of another type nor what no Redis would say.
        # A stop that somebody asked for is no Exception.
        self.connection_errors = (Exception,)
        self._failed_at, self._wait_seconds = 0.0, FIRST_WAIT_SECONDS

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, or say why not: kombu's own patience grows to half a minute, and knows fewer errors."""
        conn.connect()
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Say it, and wait."""
        self._wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say it, close what is left of the connection, and wait."""
        super().on_connection_error_after_connected(exc)
        self._wait(exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Set it aside (broker.py). Raises NoTask; so do the three below."""
        raise NoTask(type(exc).__name__) from exc

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """No task is named in it."""
        raise NoTask("no task is named")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that this version does not know. A newer one's sweep nudges again."""
        raise NoTask("a task of this name is not known") from exc

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Something in it is of another kind than it must be."""
        raise NoTask(type(exc).__name__) from exc

    def _wait(self, exc: Exception) -> None:
        now = time.monotonic()
        if now - self._failed_at > CALM_SECONDS:
            self._wait_seconds = FIRST_WAIT_SECONDS
        log.warning(
            "[QUEUE] the broker is away or says what it should not",
            error=type(exc).__name__,
            what=str(exc)[:200],
            again_in_seconds=self._wait_seconds,
        )
        time.sleep(self._wait_seconds)
        self._failed_at = time.monotonic()
        self._wait_seconds = min(MOST_WAIT_SECONDS, 2 * self._wait_seconds)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Says every few seconds which queues this worker takes messages from, for as long as it does."""

    requires = (Tasks,)

    def __init__(self, parent: Any, **_: Any) -> None:
        self._timer: Any = None
        super().__init__(parent)

    def start(self, parent: Any) -> None:
        """At once, and then by the consumer's own timer: a loop that stands still says nothing."""
        self._beat(parent)
        self._timer = parent.timer.call_repeatedly(working.BEAT_SECONDS, self._beat, (parent,))

    def stop(self, parent: Any) -> None:
        """Nobody says it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, parent: Any) -> None:
        try:
            working.beat(name for name in parent.app.amqp.queues.consume_from if name in queues.EVERY_QUEUE)
        except redis.RedisError as error:
            log.warning("[QUEUE] no heartbeat", error=type(error).__name__)
