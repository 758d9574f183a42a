"""The way from a withdrawal to its tasks in Flower. The way back is worker/flower_pages.py."""

import re
from urllib.parse import quote
from uuid import UUID

from shared import queues
from shared.explaining import Story

MOST_EVENTS = 10  # the latest of them; Flower takes a search of 2,048 characters


def in_flower(url: str, withdrawal_id: UUID, story: Story) -> str:
    """Flower's list of what workers did for this withdrawal and with webhooks about it. `url` is Flower's."""
    told = [str(line.details.get("event_id")) for line in story.lines if line.kind == "webhook"]
    events = [event for event in told if re.fullmatch(r"[\w-]{1,64}", event, re.ASCII)][-MOST_EVENTS:]
    tasks = [(queues.SUBMIT, str(withdrawal_id)), (queues.POLL, str(withdrawal_id))]
    tasks += [(queues.APPLY, event) for event in events]
    # What Flower is given as a name it puts behind `name:`, and reads the whole as a search.
    search = " OR name:".join(f"{name} args:{key}" for name, key in tasks)
    return f"{url}/tasks?name={quote(search, safe='')}"
