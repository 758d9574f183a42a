"""Which endpoint's deliveries are sent next: many share a few threads, and none keeps another waiting.

A nudge stands for a slot of an endpoint, which has NOTIFY_AT_ONCE of them. The worker that takes it delivers
for a few seconds and puts the slot at the end of the queue. A failed attempt ends the turn.
"""

from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import text

from shared.db.transactions import transaction
from shared.ids import parse_id
from shared.notifications import outbox
from shared.notifications.webhooks.send import claim, record, send
from shared.queues import messages
from shared.settings import settings

MAX_NUDGES = 1000  # in one call

log = structlog.get_logger()

# Counts no more than may be under way at once: an endpoint may have a million due.
DUE_DELIVERIES = text("""
    SELECT e.id, (SELECT count(*) FROM (
        SELECT FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting' AND d.due_at <= now()
        LIMIT :at_once) AS due) AS number
    FROM endpoints e WHERE e.removed_at IS NULL
""")


def count_due() -> dict[UUID, int]:
    """How many deliveries may start now, for each endpoint that has due ones. Raises Unavailable."""
    with transaction() as session:
        rows = session.execute(DUE_DELIVERIES, {"at_once": settings().notify_at_once})
        return {row.id: row.number for row in rows if row.number}


def nudge_due() -> int:
    """Send a nudge for each slot with a due delivery, first slots first. Returns how many.

    Raises Unavailable.
    """
    due = count_due()
    slots = [
        f"{endpoint_id}#{slot}"
        for slot in range(settings().notify_at_once)
        for endpoint_id in due
        if slot < due[endpoint_id]
    ]
    return outbox.nudge_slots(messages.DELIVER, slots, limit=MAX_NUDGES, event_if_lost="[NOTIFY] nudge lost")


def take_turn(slot: str) -> int:
    """Deliver to the slot's endpoint until nothing is due, an attempt fails, or the turn is over.

    Returns how many attempts it made. Raises Unavailable, SettingsError.
    """
    endpoint_id = parse_id(slot.partition("#")[0])
    if endpoint_id is None:
        log.error("[NOTIFY] invalid slot", slot=slot[:50])
        return 0
    attempts, has_more = outbox.take_turn(partial(claim, endpoint_id), send, record)
    if has_more:
        messages.nudge(messages.DELIVER, slot)
    return attempts
