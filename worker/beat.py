"""Beat's scheduler."""

from typing import Any

import celery.beat
import redis
import structlog

from shared.queues import messages, redis_broker

MAX_WAITING_MESSAGES = 100  # all request the same work: one would be enough
RETRY_SECONDS = 1.0  # after an error that Celery does not expect

log = structlog.get_logger()


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]
    """Celery's scheduler, but it sends at most `MAX_WAITING_MESSAGES` to a queue without workers.

    Without a notifier, a message per second would fill Redis within weeks, and payouts need Redis too.
    """

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; returns the seconds until the next message is due.

        No error stops beat: Celery's scheduler would exit if Redis answers with garbage while it connects.
        """
        try:
            return float(super().tick(*args, **kwargs))
        except Exception as error:
            log.warning(
                "[QUEUE] scheduled messages not sent", error=type(error).__name__, what=str(error)[:200]
            )
            self.close()
            return RETRY_SECONDS

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Send an entry's task, unless its queue is full."""
        if _is_full(messages.QUEUE_OF[entry.task]):
            return None
        return super().apply_async(entry, *args, **kwargs)


def _is_full(queue: str) -> bool:
    try:
        return redis_broker.depth(queue) >= MAX_WAITING_MESSAGES
    except redis.RedisError:
        return False  # sending fails too, and reports it
