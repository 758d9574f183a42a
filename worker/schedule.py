"""What happens by the clock. Twice at once is harmless: every part of it asks the database what is due."""

from typing import Any

from shared import queues
from shared.settings import settings


def schedule() -> dict[str, dict[str, Any]]:
    """The schedule for beat."""
    # No expiry: a worker whose clock is ahead would throw every sweep away.
    return {"sweep": {"task": queues.SWEEP, "schedule": settings().sweep_seconds}}
