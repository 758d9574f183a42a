"""The worker's part, first half: claim the next step in one transaction. The call follows, then record.py.

A worker may die at any line between claim and record. It leaves a lease that expires (`due_at`) and an
attempt in state `sending`, whose outcome is unknown. The next claim marks it `in_doubt` and sends the same
key and the same bytes, which the provider answers with the same payout (provider reference §3).
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.models import PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.providers.steps import LookUp, Poll, Send, Step
from shared.settings import settings
from shared.states import OPEN, AttemptState, Reason
from shared.withdrawals import attempts, hints, pauses, rechecks, transitions
from shared.withdrawals.attempts import WORKER

# Statements of the money path are built once, at import: building one costs as much as running it.
DUE = (
    select(Withdrawal)
    .where(
        Withdrawal.id == bindparam("withdrawal_id"),
        Withdrawal.status.in_(OPEN),
        Withdrawal.due_at <= func.now(),
        ~rate_limit.is_backed_up(provider().code),
    )
    .with_for_update(skip_locked=True)
)


def claim(withdrawal_id: UUID) -> Step | None:
    """Claim the next step of this withdrawal for `lease_seconds`.

    None if it is not due, is final, or another worker holds it, so a second message is harmless. Also None
    while all workers back off from the provider; the withdrawal stays due. Raises Unavailable.
    """
    with transaction() as session:
        withdrawal = session.scalar(DUE, {"withdrawal_id": withdrawal_id, **rate_limit.backlog_bounds()})
        if withdrawal:
            return _next_step(session, withdrawal)
        return rechecks.claim(session, withdrawal_id) or hints.claim(session, withdrawal_id)


def _next_step(session: Session, withdrawal: Withdrawal) -> Step | None:
    attempt = attempts.unsettled_attempt(session, withdrawal)
    if attempt is not None and (reason := attempts.why_replaceable(withdrawal, attempt)):
        attempt.state = AttemptState.REFUSED
        attempt.ended_at = func.now()
        transitions.record(session, withdrawal, reason, actor=WORKER, attempt_id=str(attempt.id))
        attempt = None
    if attempt is None:
        return attempts.begin(session, withdrawal)
    if attempt.state == AttemptState.ACCEPTED:
        return _poll(session, withdrawal, attempt)
    if attempt.state == AttemptState.SENDING:
        # The lease expired: a worker was sending this attempt and never recorded an answer.
        attempt.in_doubt = True
        attempt.state = AttemptState.UNKNOWN
        transitions.record(session, withdrawal, "worker_lost", actor=WORKER, attempt_id=str(attempt.id))
    if attempts.may_send_again(session, withdrawal, attempt) and not attempts.hold_if_forbidden(
        session, withdrawal
    ):
        breaker = pauses.pausing_breaker(session, withdrawal)
        if breaker is None:
            return _send(session, withdrawal, attempt)
        if not attempt.in_doubt:
            pauses.postpone(session, withdrawal, breaker)
            return None
    return _look_up(session, withdrawal, attempt)


def _send(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Send:
    attempt.state = AttemptState.SENDING
    attempt.sends += 1
    attempt.last_sent_at = func.now()
    # Absence before this send proves nothing after it.
    attempt.absent_since = None
    attempt.absent_replies = 0
    transitions.reschedule(
        withdrawal, Reason.CONFIRMING if attempt.in_doubt else Reason.SENDING, settings().lease_seconds
    )
    transitions.record(
        session,
        withdrawal,
        "sent_again",
        actor=WORKER,
        **attempts.request_evidence(attempt),
        sends=attempt.sends,
    )
    return attempts.send_step(withdrawal, attempt)


def _look_up(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> LookUp:
    # `unknown`, whatever its state was: from now on only evidence ends it.
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    attempt.queries += 1
    transitions.reschedule(withdrawal, Reason.CONFIRMING, settings().lease_seconds)
    # The account that the request named, which may differ from the one in the settings.
    account_number = provider().account_of(attempt.request_body)
    return LookUp(withdrawal.id, attempt.id, account_number, attempt.queries)


def _poll(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Poll:
    assert attempt.payout_id, "an accepted attempt has a payout id"
    attempt.queries += 1
    withdrawal.due_at = func.now() + timedelta(seconds=settings().lease_seconds)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise, attempt.queries)
