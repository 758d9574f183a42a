"""Whose turn it is: many endpoints share a few threads, and none may keep another waiting.

A message stands for a place at an endpoint: it has NOTIFY_AT_ONCE of them. Who takes one delivers for a few
seconds and goes to the end of the queue. A try that fails ends the turn.
"""

import time
from uuid import UUID

import redis
import structlog
from sqlalchemy import text

from shared import queues
from shared.db import transaction
from shared.ids import parse_id
from shared.notifications.delivering import claim, record, send
from shared.settings import settings

TURN_SECONDS = 5.0
MOST_MESSAGES = 1000

log = structlog.get_logger()

# Of many that are due only as many need counting as may begin.
DUE = text("""
    SELECT e.id, (SELECT count(*) FROM (
        SELECT FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting' AND d.due_at <= now()
        LIMIT :at_once) AS few) AS number
    FROM endpoints e WHERE e.removed_at IS NULL
""")


def due() -> dict[UUID, int]:
    """The endpoints with due deliveries, each with how many may begin. Raises Unavailable."""
    with transaction() as session:
        found = session.execute(DUE, {"at_once": settings().notify_at_once})
        return {row.id: row.number for row in found if row.number}


def nudge_due() -> int:
    """A message for each place at which something is due; each endpoint's first place goes first. How many.

    Raises Unavailable.
    """
    waiting = due()
    places = [
        f"{one}#{place}"
        for place in range(settings().notify_at_once)
        for one in waiting
        if place < waiting[one]
    ]
    try:
        return len(queues.nudge_new(queues.DELIVER, places, room=MOST_MESSAGES))
    except redis.RedisError as error:
        log.warning("[NOTIFY] nudge lost", error=type(error).__name__)
        return 0


def take_turn(place: str) -> int:
    """Deliver to the place's endpoint until nothing is due, a try fails, or the turn is over; how many tries.

    Raises Unavailable, SettingsError.
    """
    endpoint_id = parse_id(place.partition("#")[0])
    if endpoint_id is None:
        log.error("[NOTIFY] not a place", place=place[:50])
        return 0
    tries, over_at = 0, time.monotonic() + TURN_SECONDS
    while time.monotonic() < over_at:
        now = claim(endpoint_id)
        if now is None:
            return tries
        told = send(now)
        record(now, told)
        tries += 1
        if told.error is not None:
            return tries
    queues.nudge(queues.DELIVER, place)
    return tries
