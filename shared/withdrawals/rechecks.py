"""Rechecks of completed payouts: soon if only a webhook reported the payment, and then for days.

A bank may return the money days later, and the webhook that reports it may be lost (provider reference §2).
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.models import PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.providers.steps import Poll
from shared.settings import settings
from shared.states import AttemptState, Status

REPEAT_SECONDS = 3600  # the wait after a recheck without an answer
STOP_AFTER_SECONDS = 10 * 86_400  # long after the bank's three working days


def claim(session: Session, withdrawal_id: UUID) -> Poll | None:
    """Claim the due recheck of a completed payout, if there is one, under a lease: if the worker dies, it is
    repeated.

    While all workers back off from the provider, it stays due.
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
            ~rate_limit.is_backed_up(provider().code),
        ),
        rate_limit.backlog_bounds(),
    )
    if withdrawal is None or attempt is None:
        return None
    assert attempt.payout_id, "a paid attempt has a payout id"
    attempt.queries += 1
    attempt.recheck_at = func.now() + timedelta(seconds=settings().lease_seconds)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.queries)


def schedule_next(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Poll, *, answered: bool
) -> None:
    """Schedule the next recheck. It counts from completion, so that one follows even without an answer."""
    if attempt.state != AttemptState.PAID or attempt.queries != step.queries or step.hint_count is not None:
        return
    completed_at = withdrawal.completed_at
    age = float(session.scalar(select(func.extract("epoch", func.now() - completed_at))) or 0)
    if completed_at is None or age > STOP_AFTER_SECONDS:
        attempt.recheck_at = None
    elif attempt.unconfirmed:
        # The wait doubles each time, up to an hour.
        seconds = min(max(age, settings().confirm_seconds), REPEAT_SECONDS)
        attempt.recheck_at = func.now() + timedelta(seconds=seconds)
    else:
        attempt.recheck_at = _next(completed_at, age, answered=answered)


def _next(completed_at: datetime, age: float, *, answered: bool) -> datetime | None:
    remaining = [seconds for seconds in settings().recheck_seconds if seconds > age]
    if remaining:
        return completed_at + timedelta(seconds=min(remaining))
    repeat_at: datetime = func.now() + timedelta(seconds=REPEAT_SECONDS)  # type: ignore[assignment]
    return None if answered else repeat_at
