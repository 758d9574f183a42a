"""What happens by the clock. Twice at once is harmless: every part of it asks the database what is due."""

from typing import Any

from shared import queues
from shared.settings import settings


def schedule() -> dict[str, dict[str, Any]]:
    """The schedule for beat."""
    every = settings().sweep_seconds
    # A sweep that could not run before the next one is due has nothing left to say.
    return {"sweep": {"task": queues.SWEEP, "schedule": every, "options": {"expires": max(every * 2, 10)}}}
