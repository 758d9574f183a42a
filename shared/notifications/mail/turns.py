"""Whose turn it is to send: a few places, each with a connection for as long as its turn lasts."""

import time

import redis
import structlog
from sqlalchemy import text

from shared import queues
from shared.db import transaction
from shared.notifications.mail.sending import AT_ONCE, claim, record, send, works_again
from shared.notifications.mail.smtp import Fault, Server
from shared.settings import settings

TURN_SECONDS = 5.0

log = structlog.get_logger()

DUE = text("""
    SELECT count(*) FROM (SELECT FROM emails WHERE state = 'waiting' AND due_at <= now() LIMIT :most) AS few
""")


def nudge_due() -> int:
    """A message for each place at which a mail is due; how many. Raises Unavailable."""
    if settings().smtp_host is None:
        return 0
    with transaction() as session:
        due: int = session.execute(DUE, {"most": AT_ONCE}).scalar_one()
    try:
        places = [f"mail#{place}" for place in range(due)]
        return len(queues.nudge_new(queues.SEND_MAIL, places, room=AT_ONCE))
    except redis.RedisError as error:
        log.warning("[MAIL] nudge lost", error=type(error).__name__)
        return 0


def take_turn(place: str) -> int:
    """Send until nothing is due, a try fails, or the turn is over; how many tries. Raises Unavailable.

    A recipient who is refused keeps nobody else waiting.
    """
    if settings().smtp_host is None:
        return 0
    server = Server()
    try:
        tries, is_over = _send_some(server)
    finally:
        server.close()
    if not is_over:
        queues.nudge(queues.SEND_MAIL, place)
    return tries


def _send_some(server: Server) -> tuple[int, bool]:
    """How many tries were made, and whether there is no more to do now."""
    tries, goes, over_at = 0, False, time.monotonic() + TURN_SECONDS
    while time.monotonic() < over_at:
        now = claim()
        if now is None:
            return tries, True
        told = send(now, server)
        record(now, told)
        tries += 1
        if told.error is None and not goes:
            works_again()
            goes = True
        if told.error is not None and told.fault is not Fault.NEVER:
            return tries, True
    return tries, False
