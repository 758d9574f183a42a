"""What beat sends by the clock."""

from typing import Any

import celery.beat
import redis
import structlog

from shared import queues

MOST_WAITING = 100  # each asks for the same; one would do
WAIT_SECONDS = 1.0  # after something that Celery did not expect

log = structlog.get_logger()


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]
    """Celery's own, but into a queue that nobody works it puts only so much.

    Where no notifier runs, a message a second would fill Redis in weeks, and payouts need it too.
    """

    def tick(self, *arguments: Any, **named: Any) -> float:
        """Send what is due; for how many seconds there is then nothing to do.

        Whatever Redis says, beat goes on: Celery's would end at garbage in the middle of connecting.
        """
        try:
            return float(super().tick(*arguments, **named))
        except Exception as error:
            log.warning(
                "[QUEUE] nothing sent by the clock", error=type(error).__name__, what=str(error)[:200]
            )
            self.close()
            return WAIT_SECONDS

    def apply_async(self, entry: Any, *arguments: Any, **named: Any) -> Any:
        """Send an entry's task, unless its queue holds enough."""
        if _is_full(queues.QUEUE_OF[entry.task]):
            return None
        return super().apply_async(entry, *arguments, **named)


def _is_full(queue: str) -> bool:
    try:
        return queues.depth(queue) >= MOST_WAITING
    except redis.RedisError:
        return False  # the sending itself will say so
