"""Coins that are owed by our own books alone, whichever days were compared already."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import exception_records
from shared.razorpayx.answers import NOT_PAID, PAID, REVERSED
from shared.reconciliation.comparing import NOT_REFUNDED

# Taken back because a payout was paid after its refund, and by RazorpayX's last word none is paid any more.
OWED = text("""
    SELECT w.id, w.coins_amount, w.amount_paise, last.payout_id, last.provider_status
    FROM (SELECT withdrawal_id FROM adjustments WHERE withdrawal_id IS NOT NULL
          GROUP BY withdrawal_id HAVING sum(coins) < 0) taken
    JOIN withdrawals w ON w.id = taken.withdrawal_id
    JOIN LATERAL (SELECT payout_id, provider_status FROM payout_attempts
                  WHERE withdrawal_id = w.id AND payout_id IS NOT NULL
                  ORDER BY answered_at DESC NULLS LAST LIMIT 1) last ON true
    WHERE last.provider_status = ANY(:ended) AND NOT EXISTS (
        SELECT FROM payout_attempts WHERE withdrawal_id = w.id AND provider_status = :paid)
""")


def tell(session: Session) -> int:
    """Open a record for each user who has neither coins nor rupees, until the coins are given back."""
    rows = session.execute(OWED, {"ended": sorted({REVERSED, *NOT_PAID}), "paid": PAID}).all()
    for row in rows:
        exception_records.open_record(
            session,
            kind=NOT_REFUNDED,
            subject=row.payout_id,
            source="watch",
            withdrawal_id=row.id,
            ours={"coins": row.coins_amount, "amount_paise": row.amount_paise, "taken_back": True},
            theirs={"payout_id": row.payout_id, "status": row.provider_status},
        )
    return len(rows)
