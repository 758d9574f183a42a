"""A completed payout is looked at again for days: a bank may send it back, and the webhook that says so may
be lost (razorpayx.md §2).
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import pace
from shared.models import PayoutAttempt, Withdrawal
from shared.settings import settings
from shared.states import Status
from shared.steps import Poll


def claim(session: Session, withdrawal_id: UUID) -> Poll | None:
    """The look that a completed payout is due for, if any. While RazorpayX asks for patience it stays due."""
    withdrawal = session.scalar(
        select(Withdrawal)
        .where(Withdrawal.id == withdrawal_id, Withdrawal.status == Status.COMPLETED)
        .with_for_update(skip_locked=True)
    )
    attempt = session.scalar(
        select(PayoutAttempt).where(
            PayoutAttempt.withdrawal_id == withdrawal_id,
            PayoutAttempt.recheck_at <= func.now(),
            ~pace.is_long(),
        ),
        pace.bounds(),
    )
    if withdrawal is None or attempt is None:
        return None
    assert attempt.payout_id, "a paid attempt knows its payout"
    attempt.checks += 1
    attempt.recheck_at = next_recheck(session, withdrawal)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.checks)


def next_recheck(session: Session, withdrawal: Withdrawal) -> datetime | None:
    """When to look at a completed payout again; None when the bank's time to send it back is over.

    The next one is counted from now on, so that one which found no answer has a successor too.
    """
    age = session.scalar(select(func.extract("epoch", func.now() - withdrawal.completed_at))) or 0
    later = [seconds for seconds in settings().recheck_seconds if seconds > age]
    if not later or withdrawal.completed_at is None:
        return None
    moment: datetime = withdrawal.completed_at + timedelta(seconds=min(later))
    return moment
