"""The consumer, which retries where Celery's would stop the worker; and its heartbeat."""

import time
from typing import Any

import redis
import structlog
from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.tasks import Tasks

from shared.queues import workers
from shared.queues.names import EVERY_QUEUE

MIN_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 5.0
BACKOFF_RESET_SECONDS = 30.0  # after this long without a failure, the backoff starts over

log = structlog.get_logger()


class InvalidMessage(Exception):
    """A message without a task that this worker knows."""


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, but it reconnects with a backoff after any error of Redis, even garbage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Celery's list lacks read-only Redis, keys of a wrong type, and garbage. A requested shutdown is not
        # an Exception.
        self.connection_errors = (Exception,)
        self._failed_at = 0.0
        self._backoff_seconds = MIN_BACKOFF_SECONDS

    def ensure_connected(self, conn: Any) -> Any:
        """Connect once, or raise: kombu's own retries wait up to half a minute and handle fewer errors."""
        conn.connect()
        self.first_connection_attempt = False
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log it, and wait."""
        self._wait(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log it, close the connection, and wait."""
        super().on_connection_error_after_connected(exc)
        self._wait(exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Set the message aside (broker.py). Raises InvalidMessage, as do the three methods below."""
        raise InvalidMessage(type(exc).__name__) from exc

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """The message names no task."""
        raise InvalidMessage("no task name")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """This version does not know the task. The sweep of a newer version nudges again."""
        raise InvalidMessage("unknown task") from exc

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """The message has a field of a wrong type."""
        raise InvalidMessage(type(exc).__name__) from exc

    def _wait(self, exc: Exception) -> None:
        if time.monotonic() - self._failed_at > BACKOFF_RESET_SECONDS:
            self._backoff_seconds = MIN_BACKOFF_SECONDS
        log.warning(
            "[QUEUE] the broker is away or sent an invalid answer",
            error=type(exc).__name__,
            what=str(exc)[:200],
            again_in_seconds=self._backoff_seconds,
        )
        time.sleep(self._backoff_seconds)
        self._failed_at = time.monotonic()
        self._backoff_seconds = min(MAX_BACKOFF_SECONDS, 2 * self._backoff_seconds)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Records every few seconds which queues this worker consumes, while it does."""

    requires = (Tasks,)

    def __init__(self, parent: Any, **_: Any) -> None:
        self._timer: Any = None
        super().__init__(parent)

    def start(self, parent: Any) -> None:
        """Record now, then with the consumer's timer: a blocked consumer loop sends no heartbeat."""
        self._beat(parent)
        self._timer = parent.timer.call_repeatedly(workers.HEARTBEAT_SECONDS, self._beat, (parent,))

    def stop(self, parent: Any) -> None:
        """Stop the heartbeat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, parent: Any) -> None:
        try:
            workers.record_heartbeat(
                name for name in parent.app.amqp.queues.consume_from if name in EVERY_QUEUE
            )
        except redis.RedisError as error:
            log.warning("[QUEUE] no heartbeat", error=type(error).__name__)
