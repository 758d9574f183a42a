"""Coins that our own ledger says are owed to users, independent of which days were compared."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.people import exception_records
from shared.providers.registry import provider
from shared.reconciliation.diff import REVERSED_NOT_REFUNDED

# The coins were taken back because a payout was paid after its refund, but the provider now reports it
# unpaid.
SELECT_OWED = text("""
    SELECT w.id, w.coins_amount, w.amount_paise, last.payout_id, last.provider_status
    FROM (SELECT withdrawal_id FROM adjustments WHERE withdrawal_id IS NOT NULL
          GROUP BY withdrawal_id HAVING sum(coins) < 0) taken
    JOIN withdrawals w ON w.id = taken.withdrawal_id
    JOIN LATERAL (SELECT payout_id, provider_status FROM payout_attempts
                  WHERE withdrawal_id = w.id AND payout_id IS NOT NULL
                  ORDER BY answered_at DESC NULLS LAST LIMIT 1) last ON true
    WHERE last.provider_status = ANY(:ended) AND NOT EXISTS (
        SELECT FROM payout_attempts WHERE withdrawal_id = w.id AND provider_status = ANY(:paid))
""")


def open_records(session: Session) -> int:
    """Open a record for each user who has neither coins nor rupees. Returns the number of such users."""
    ended = provider().statuses("not_paid", "reversed")
    paid = provider().statuses("paid")
    rows = session.execute(SELECT_OWED, {"ended": sorted(ended), "paid": sorted(paid)}).all()
    for row in rows:
        exception_records.open_record(
            session,
            kind=REVERSED_NOT_REFUNDED,
            subject=row.payout_id,
            source="watch",
            withdrawal_id=row.id,
            ours={"coins": row.coins_amount, "amount_paise": row.amount_paise, "taken_back": True},
            theirs={"payout_id": row.payout_id, "status": row.provider_status},
        )
    return len(rows)
