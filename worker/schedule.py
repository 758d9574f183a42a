"""The schedule. Two beats do no harm: each task reads from the database what is due."""

from typing import Any

from shared.queues import messages
from shared.settings import settings

RECONCILE_SECONDS = 900
COUNT_SECONDS = 900


def schedule() -> dict[str, dict[str, Any]]:
    """Return beat's schedule."""
    # Without expiry: a worker whose clock is ahead would discard every sweep.
    mail = {"mail": {"task": messages.MAIL, "schedule": settings().notify_seconds}}
    return {
        "sweep": {"task": messages.SWEEP, "schedule": settings().sweep_seconds},
        "mark_paced": {"task": messages.MARK_PACED, "schedule": settings().sweep_seconds},
        # Not once a day, because beat may be down at that hour: each run checks whether yesterday is
        # reconciled.
        "reconcile": {"task": messages.RECONCILE, "schedule": RECONCILE_SECONDS},
        "count": {"task": messages.COUNT, "schedule": COUNT_SECONDS},
        "seal": {"task": messages.SEAL, "schedule": settings().seal_seconds},
        "notify": {"task": messages.NOTIFY, "schedule": settings().notify_seconds},
        "watch": {"task": messages.WATCH, "schedule": settings().watch_seconds},
    } | (mail if settings().smtp_host else {})
