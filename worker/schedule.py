"""What happens by the clock. Twice at once is harmless: every part of it asks the database what is due."""

from typing import Any

from shared import queues
from shared.settings import settings

NIGHTLY_ASKS_SECONDS = COUNT_SECONDS = 900


def schedule() -> dict[str, dict[str, Any]]:
    """The schedule for beat."""
    # No expiry: a worker whose clock is ahead would throw every sweep away.
    mail = {"mail": {"task": queues.MAIL, "schedule": settings().notify_seconds}}
    return {
        "sweep": {"task": queues.SWEEP, "schedule": settings().sweep_seconds},
        # Not once a day, for beat may be down at that hour: each time it asks whether yesterday is compared.
        "reconcile": {"task": queues.RECONCILE, "schedule": NIGHTLY_ASKS_SECONDS},
        "count": {"task": queues.COUNT, "schedule": COUNT_SECONDS},
        "seal": {"task": queues.SEAL, "schedule": settings().seal_seconds},
        "notify": {"task": queues.NOTIFY, "schedule": settings().notify_seconds},
        "watch": {"task": queues.WATCH, "schedule": settings().watch_seconds},
    } | (mail if settings().smtp_host else {})
