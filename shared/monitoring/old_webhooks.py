"""The retention of RazorpayX's webhooks: a paid withdrawal leaves four, most of the size of the database.

What they caused is kept in `withdrawal_events`. A webhook that comes again after it was deleted is stored and
applied again, and reports nothing new.
"""

from sqlalchemy import text

from shared.db.transactions import transaction
from shared.settings import settings

ROWS_AT_ONCE = 5000  # each minute: as many as a thousand withdrawals leave

# One that we could not interpret is kept for those who look into it.
DELETE_OLD = text("""
    DELETE FROM webhook_events WHERE event_id = ANY (ARRAY
        (SELECT event_id FROM webhook_events
         WHERE received_at < now() - make_interval(secs => :seconds)
           AND outcome NOT IN ('poison', 'unreadable', 'unmatched')
         ORDER BY received_at LIMIT :rows FOR UPDATE SKIP LOCKED))
""")


def delete_old() -> int:
    """Delete the oldest applied webhooks beyond `webhook_days`, up to ROWS_AT_ONCE; returns how many.

    Raises Unavailable.
    """
    values = {"seconds": settings().webhook_days * 86_400, "rows": ROWS_AT_ONCE}
    with transaction() as session:
        deleted = session.execute(DELETE_OLD, values)
        return int(deleted.rowcount)  # type: ignore[attr-defined]


def delete_all_old() -> int:
    """Delete all of them, a batch in each transaction; returns how many. Raises Unavailable."""
    total = 0
    while deleted := delete_old():
        total += deleted
    return total
