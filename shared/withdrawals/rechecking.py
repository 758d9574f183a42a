"""A completed payout is looked at again: soon when only a webhook called it paid, and then for days, for a
bank may send it back, and the webhook that says so may be lost (razorpayx.md §2).
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import pace
from shared.models import PayoutAttempt, Withdrawal
from shared.settings import settings
from shared.states import AttemptState, Status
from shared.steps import Poll

# What is not answered is asked again each hour, until the bank's time is over by far.
AGAIN_SECONDS, LAST_SECONDS = 3600, 10 * 86_400


def claim(session: Session, withdrawal_id: UUID) -> Poll | None:
    """The look that a completed payout is due for, if any, under a lease: whoever dies, it is made.

    While RazorpayX asks for patience it stays due.
    """
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
    attempt.recheck_at = func.now() + timedelta(seconds=settings().lease_seconds)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.checks)


def plan(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Poll, *, answered: bool
) -> None:
    """A look was made: when is the next? Counted from completion, so that one without an answer has a
    successor too.
    """
    if attempt.state != AttemptState.PAID or attempt.checks != step.checks or step.hints is not None:
        return
    completed_at = withdrawal.completed_at
    age = float(session.scalar(select(func.extract("epoch", func.now() - completed_at))) or 0)
    if completed_at is None or age > LAST_SECONDS:
        attempt.recheck_at = None
    elif attempt.unconfirmed:
        # As long again as it has waited so far, an hour at most.
        seconds = min(max(age, settings().confirm_seconds), AGAIN_SECONDS)
        attempt.recheck_at = func.now() + timedelta(seconds=seconds)
    else:
        attempt.recheck_at = _next(completed_at, age, answered=answered)


def _next(completed_at: datetime, age: float, *, answered: bool) -> datetime | None:
    later = [seconds for seconds in settings().recheck_seconds if seconds > age]
    if later:
        return completed_at + timedelta(seconds=min(later))
    again: datetime = func.now() + timedelta(seconds=AGAIN_SECONDS)  # type: ignore[assignment]
    return None if answered else again
