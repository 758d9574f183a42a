"""The terms of a withdrawal: how long it waits, whether it needs approval, and why it is refused.

The statement that debits the wallet refuses (`wallet.TAKE_COINS`), under the wallet's lock; this module
explains the refusal. Cancelled and refunded withdrawals do not count towards the limits, so a user can try
again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.clock import iso
from shared.coins import wallet
from shared.errors import BadRequest, RetryNow
from shared.models import Wallet, Withdrawal
from shared.settings import settings
from shared.states import WAITING, Reason
from shared.withdrawals import blocks, review


@dataclass(frozen=True, slots=True)
class Usage:
    """What a user has withdrawn in the current day and month in India, and when the next ones begin."""

    day_withdrawals: int
    day_coins: int
    month_withdrawals: int
    month_coins: int
    next_day_at: datetime
    next_month_at: datetime


# A day for which withdrawals were counted is not over before a later one begins, whatever this clock says.
USAGE = text(f"""
    SELECT {", ".join(f"{used} AS {name}" for name, used in wallet.COUNTED.items())},
           (day + interval '1 day') AT TIME ZONE 'Asia/Kolkata' AS next_day_at,
           date_trunc('month', day + interval '1 month') AT TIME ZONE 'Asia/Kolkata' AS next_month_at
    FROM wallets, CAST(greatest(used_on, {wallet.TODAY}) AS timestamp) AS day WHERE user_id = :user_id
""")


def request_terms(coins: int) -> dict[str, Any]:
    """Return the parameters of the request statement for this amount. Times are in seconds.

    The `new_` parameters apply to a UPI id at which the user was never paid.
    """
    window = settings().cancel_window_seconds
    awaits_approval = review.approval_needed(coins)
    new_wait = settings().new_upi_wait_hours * 3600
    new_wait = max(new_wait, window) if new_wait else 0.0
    reason = Reason.CANCEL_WINDOW
    new_reason = Reason.NEW_UPI_ID
    due = window
    new_due = new_wait
    if awaits_approval:
        reason = new_reason = Reason.AWAITING_REVIEW
        due = new_due = review.CHECK_SECONDS
    return {
        "awaits": awaits_approval,
        "admin_notes": review.AWAITING if awaits_approval else None,
        "reason": reason,
        "new_reason": new_reason,
        "due": float(due),
        "new_due": float(new_due),
        "expected": window + WAITING[reason][1],
        "new_expected": new_wait + WAITING[new_reason][1],
        "wait": window if awaits_approval else None,
        "new_wait": new_wait,
        **limits(),
    }


def subjects(upi_id: str) -> dict[str, str]:
    """Return the statement's parameters for what a block on this UPI id may name."""
    upi_subject, handle_subject = blocks.block_subjects(upi_id)
    return {"upi_subject": upi_subject, "handle_subject": handle_subject}


def initial_reason(withdrawal: Withdrawal, awaited_approval: str | None) -> Reason:
    """Return why the withdrawal waited when it was requested; the row says why it waits now."""
    if awaited_approval:
        return Reason.AWAITING_REVIEW
    # Without a review, only the wait for a new UPI id sets `not_before`.
    return Reason.NEW_UPI_ID if withdrawal.not_before else Reason.CANCEL_WINDOW


def limits() -> dict[str, int | None]:
    """Return the limits from the settings, under the names of the statement's parameters."""
    return {
        "max_day_withdrawals": settings().limit_withdrawals_per_day,
        "max_day_coins": settings().limit_coins_per_day,
        "max_month_withdrawals": settings().limit_withdrawals_per_month,
        "max_month_coins": settings().limit_coins_per_month,
    }


def usage(session: Session, user_id: str) -> Usage:
    """Return what counts towards a user's limits now. The wallet must exist."""
    return Usage(**session.execute(USAGE, {"user_id": user_id}).one()._mapping)


def terms_error(session: Session, wallet_row: Wallet, coins: int, upi_id: str) -> BadRequest | None:
    """Return why a sufficient balance was not debited; None if nothing forbids it now."""
    if wallet_row.is_frozen:
        return wallet_frozen_error()
    if blocks.is_blocked(session, upi_id):
        return upi_blocked_error()
    return limit_error(usage(session, wallet_row.user_id), coins, limits())


def wallet_frozen_error() -> BadRequest:
    """Return the error for the user of a frozen wallet."""
    details = "Withdrawals from this account are stopped. Please contact support"
    return BadRequest("Wallet frozen", details, code="wallet_frozen")


def upi_blocked_error() -> BadRequest:
    """Return the error for a blocked UPI id or handle."""
    details = "We cannot pay to this UPI id. Please use another one"
    return BadRequest("UPI ID not accepted", details, code="upi_blocked")


def limit_error(used: Usage, coins: int, limits_by_name: dict[str, int | None]) -> BadRequest | None:
    """Return the first limit that these coins would exceed, with the usage so far and when it resets."""
    for name, limit in limits_by_name.items():
        _, period, counted = name.split("_")
        so_far = getattr(used, f"{period}_{counted}")
        if limit is None or so_far + (coins if counted == "coins" else 1) <= limit:
            continue
        details = f"The limit is {limit:,} {counted} a {period}, and you have used {so_far:,}"
        extra: dict[str, Any] = {"counted": counted, "limit": limit, "used": so_far}
        if period == "day":
            resets_at = iso(used.next_day_at)
            return BadRequest(
                "Daily limit reached", details, code="daily_limit", **extra, resets_at=resets_at
            )
        resets_at = iso(used.next_month_at)
        return BadRequest(
            "Monthly limit reached", details, code="monthly_limit", **extra, resets_at=resets_at
        )
    if any(limit is not None for limit in limits_by_name.values()):
        # Another withdrawal was refunded after the statement ran; the usage at that time counted.
        return RetryNow("You were over the limit a moment ago", "Please retry", code="limit_moved")
    return None
