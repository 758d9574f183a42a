"""What beat sends by the clock."""

from typing import Any

import celery.beat
import redis

from shared import queues

MOST_WAITING = 100  # each asks for the same; one would do


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]
    """Celery's own, but into a queue that nobody works it puts only so much.

    Where no notifier runs, a message a second would fill Redis in weeks, and payouts need it too.
    """

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
