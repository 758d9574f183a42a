"""Rechecks of completed payouts: soon if only a webhook reported the payment, and then for days.

A bank may return the money days later, and the webhook that reports it may be lost (provider reference §2).
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query, columns
from shared.db.transactions import now
from shared.models import PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.providers.steps import Poll, Step
from shared.settings import settings
from shared.states import AttemptState, Status
from shared.withdrawals.cases import IDS

REPEAT_SECONDS = 3600  # the wait after a recheck without an answer
STOP_AFTER_SECONDS = 10 * 86_400  # long after the bank's three working days

LOCK_COMPLETED = Query(
    select(*columns(Withdrawal))
    .where(
        Withdrawal.id == IDS,
        Withdrawal.status == Status.COMPLETED,
        select(PayoutAttempt.id)
        .where(PayoutAttempt.withdrawal_id == Withdrawal.id, PayoutAttempt.recheck_at <= func.now())
        .exists(),
    )
    .order_by(Withdrawal.id)
    .with_for_update(skip_locked=True, of=Withdrawal)
)
DUE = Query(
    select(*columns(PayoutAttempt)).where(
        PayoutAttempt.withdrawal_id == IDS,
        PayoutAttempt.recheck_at <= func.now(),
        ~rate_limit.is_backed_up(provider().code),
    )
)


def queries(ids: Sequence[UUID]) -> list[tuple[str, dict[str, Any]]]:
    """Return the queries that lock and read the due rechecks among these withdrawals, for `claim`."""
    return [LOCK_COMPLETED(ids=ids), DUE(ids=ids, **rate_limit.backlog_bounds())]


def claim(session: Session, completed: Iterable[Sequence[Any]], due: Iterable[Sequence[Any]]) -> list[Step]:
    """Claim the due rechecks in these rows of `queries`, under a lease: if the worker dies, they repeat.

    While all workers back off from the provider, they stay due.
    """
    withdrawals = {row.id: row for row in batches.attach(session, Withdrawal, completed)}
    steps: list[Step] = []
    for attempt in batches.attach(session, PayoutAttempt, due):
        withdrawal = withdrawals.get(attempt.withdrawal_id)
        if withdrawal is None:
            continue  # another worker holds it
        attempt.queries += 1
        attempt.recheck_at = now(session) + timedelta(seconds=settings().lease_seconds)
        steps.append(poll_step(withdrawal, attempt))
    return steps


def poll_step(withdrawal: Withdrawal, attempt: PayoutAttempt, *, hint_count: int | None = None) -> Poll:
    """Return the step that queries this attempt's payout."""
    assert attempt.payout_id, "what is accepted or paid has a payout id"
    return Poll(
        withdrawal.id,
        attempt.id,
        attempt.payout_id,
        withdrawal.amount_paise,
        attempt.queries,
        attempt.payout_created_at,
        hint_count,
    )


def schedule_next(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Poll, *, answered: bool
) -> None:
    """Schedule the next recheck. It counts from completion, so that one follows even without an answer."""
    if attempt.state != AttemptState.PAID or attempt.queries != step.queries or step.hint_count is not None:
        return
    completed_at = withdrawal.completed_at
    age = (now(session) - completed_at).total_seconds() if completed_at else 0.0
    if completed_at is None or age > STOP_AFTER_SECONDS:
        attempt.recheck_at = None
    elif attempt.unconfirmed:
        # The wait doubles each time, up to an hour.
        seconds = min(max(age, settings().confirm_seconds), REPEAT_SECONDS)
        attempt.recheck_at = now(session) + timedelta(seconds=seconds)
    else:
        remaining = [seconds for seconds in settings().recheck_seconds if seconds > age]
        if remaining:
            attempt.recheck_at = completed_at + timedelta(seconds=min(remaining))
        else:
            attempt.recheck_at = None if answered else now(session) + timedelta(seconds=REPEAT_SECONDS)
