"""The link from a withdrawal to its tasks in Flower. worker/flower_pages.py has the link back."""

import re
from urllib.parse import quote
from uuid import UUID

from shared.monitoring.explain import Timeline
from shared.queues import messages

MAX_EVENTS = 10  # the latest ones: Flower accepts a search of 2,048 characters


def tasks_url(flower_url: str, withdrawal_id: UUID, timeline: Timeline) -> str:
    """The address of Flower's list of tasks for this withdrawal and for webhooks about it."""
    all_events = [str(entry.details.get("event_id")) for entry in timeline.entries if entry.kind == "webhook"]
    events = [event for event in all_events if re.fullmatch(r"[\w-]{1,64}", event, re.ASCII)][-MAX_EVENTS:]
    tasks = [(messages.SUBMIT, str(withdrawal_id)), (messages.POLL, str(withdrawal_id))]
    tasks += [(messages.APPLY, event) for event in events]
    # Flower puts the given name after `name:` and reads the whole as a search.
    search = " OR name:".join(f"{name} args:{key}" for name, key in tasks)
    return f"{flower_url}/tasks?name={quote(search, safe='')}"
