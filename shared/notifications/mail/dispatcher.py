"""Mail is sent in a few slots; each has one connection for as long as its turn lasts."""

from sqlalchemy import text

from shared.db.transactions import transaction
from shared.notifications import outbox
from shared.notifications.mail.send import MAX_UNDER_WAY, claim, record, resume_after_outage, send
from shared.notifications.mail.smtp import SmtpClient
from shared.queues import messages
from shared.settings import settings

DUE_MAILS = text("""
    SELECT count(*) FROM (SELECT FROM emails WHERE state = 'waiting' AND due_at <= now() LIMIT :limit) AS due
""")


def nudge_due() -> int:
    """Send a nudge for each slot with a due mail. Returns how many. Raises Unavailable."""
    if settings().smtp_host is None:
        return 0
    with transaction() as session:
        due: int = session.execute(DUE_MAILS, {"limit": MAX_UNDER_WAY}).scalar_one()
    slots = [f"mail#{slot}" for slot in range(due)]
    return outbox.nudge_slots(
        messages.SEND_MAIL, slots, limit=MAX_UNDER_WAY, event_if_lost="[MAIL] nudge lost"
    )


def take_turn(slot: str) -> int:
    """Send mail until nothing is due, an attempt fails, or the turn is over.

    Returns how many attempts it made. Raises Unavailable.
    """
    if settings().smtp_host is None:
        return 0
    client = SmtpClient()
    try:
        attempts, has_more = outbox.take_turn(
            claim, lambda mail: send(mail, client), record, after_first_success=resume_after_outage
        )
    finally:
        client.close()
    if has_more:
        messages.nudge(messages.SEND_MAIL, slot)
    return attempts
