"""On which terms coins may be withdrawn: what waits for a person or for its time, and what is refused.

The statement that takes the coins refuses (`wallet.TAKE_COINS`), under the wallet's lock; here are the words.
What was cancelled or given back does not count for the limits: a user whose payment failed may try again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import blocks, wallet
from shared.clock import iso
from shared.errors import BadRequest, Passed
from shared.models import Wallet, Withdrawal
from shared.settings import settings
from shared.states import WAITING, Reason
from shared.withdrawals import reviewing


@dataclass(frozen=True, slots=True)
class Usage:
    """What a user has asked for in this day and this month in India, and when the next ones begin."""

    day_withdrawals: int
    day_coins: int
    month_withdrawals: int
    month_coins: int
    next_day_at: datetime
    next_month_at: datetime


# A day that was counted for is not over while a later one has not begun, whatever this clock says.
USAGE = text(f"""
    SELECT {", ".join(f"{used} AS {name}" for name, used in wallet.USED.items())},
           (day + interval '1 day') AT TIME ZONE 'Asia/Kolkata' AS next_day_at,
           date_trunc('month', day + interval '1 month') AT TIME ZONE 'Asia/Kolkata' AS next_month_at
    FROM wallets, CAST(greatest(used_on, {wallet.TODAY}) AS timestamp) AS day WHERE user_id = :user_id
""")


def of(coins: int, upi_id: str) -> dict[str, Any]:
    """On which terms the settings let these coins go to this UPI id, for the statement.

    The `new_` ones count where the user never was paid at this UPI id. Seconds, but for the limits.
    """
    window, awaits = settings().cancel_window_seconds, reviewing.needed(coins)
    new_wait = settings().new_upi_wait_hours * 3600
    new_wait = max(new_wait, window) if new_wait else 0.0
    reason, new_reason, due, new_due = Reason.CANCEL_WINDOW, Reason.NEW_UPI_ID, window, new_wait
    if awaits:
        reason = new_reason = Reason.AWAITING_REVIEW
        due = new_due = reviewing.LOOK_SECONDS
    upi_subject, handle_subject = blocks.subjects(upi_id)
    return {
        "upi_subject": upi_subject,
        "handle_subject": handle_subject,
        "awaits": awaits,
        "admin_notes": reviewing.AWAITING if awaits else None,
        "reason": reason,
        "new_reason": new_reason,
        "due": float(due),
        "new_due": float(new_due),
        "expected": window + WAITING[reason][1],
        "new_expected": new_wait + WAITING[new_reason][1],
        "wait": window if awaits else None,
        "new_wait": new_wait,
        **limits(),
    }


def first_reason(withdrawal: Withdrawal, awaited: str | None) -> Reason:
    """Why it waited when it was asked for, and `awaited` approval or not: the row says why it waits now."""
    if awaited:
        return Reason.AWAITING_REVIEW
    # Without a review only the wait for a new UPI id says before when nothing is sent.
    return Reason.NEW_UPI_ID if withdrawal.not_before else Reason.CANCEL_WINDOW


def limits() -> dict[str, int | None]:
    """What the settings allow at most, under the names that the statement has for it."""
    return {
        "most_day_withdrawals": settings().limit_withdrawals_per_day,
        "most_day_coins": settings().limit_coins_per_day,
        "most_month_withdrawals": settings().limit_withdrawals_per_month,
        "most_month_coins": settings().limit_coins_per_month,
    }


def usage(session: Session, user_id: str) -> Usage:
    """What counts for a user's limits now. The wallet exists."""
    return Usage(**session.execute(USAGE, {"user_id": user_id}).one()._mapping)


def refusal(session: Session, wallet_row: Wallet, coins: int, upi_id: str) -> BadRequest | None:
    """Why these coins are not taken although they are there; None when nothing forbids it any more."""
    if wallet_row.is_frozen:
        return frozen()
    if blocks.is_blocked(session, upi_id):
        return blocked()
    return over(usage(session, wallet_row.user_id), coins, limits())


def frozen() -> BadRequest:
    """What the user of a frozen wallet is told."""
    words = "Withdrawals from this account are stopped; please ask us"
    return BadRequest("Wallet frozen", words, code="wallet_frozen")


def blocked() -> BadRequest:
    """What is said of a blocked UPI id, or handle."""
    words = "We do not pay to this UPI id; please use another"
    return BadRequest("UPI ID not accepted", words, code="upi_blocked")


def over(used: Usage, coins: int, most: dict[str, int | None]) -> BadRequest | None:
    """Which limit these coins are over, with what counts already and when it begins anew."""
    for name, limit in most.items():
        _, period, counted = name.split("_")
        so_far = getattr(used, f"{period}_{counted}")
        if limit is None or so_far + (coins if counted == "coins" else 1) <= limit:
            continue
        words = f"At most {limit} {counted} can be withdrawn in a {period}, and {so_far} count already"
        more: dict[str, Any] = {"counted": counted, "limit": limit, "used": so_far}
        if period == "day":
            resets_at = iso(used.next_day_at)
            return BadRequest("Daily limit reached", words, code="daily_limit", **more, resets_at=resets_at)
        resets_at = iso(used.next_month_at)
        return BadRequest("Monthly limit reached", words, code="monthly_limit", **more, resets_at=resets_at)
    if any(limit is not None for limit in most.values()):
        # Something has been given back since; what counted was the moment of asking.
        return Passed("Limit reached just now", "It is not any more: please try again", code="limit_moved")
    return None
