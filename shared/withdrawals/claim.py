"""The worker's part, first half: claim the next step in one transaction. The call follows, then record.py.

A worker may die at any line between claim and record. It leaves a lease that expires (`due_at`) and an
attempt in state `sending`, whose outcome is unknown. The next claim marks it `in_doubt` and sends the same
key and the same bytes, which the provider answers with the same payout (provider reference §3).
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query, columns
from shared.db.transactions import now
from shared.models import PayoutAttempt, Withdrawal
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.providers.steps import LookUp, Poll, Send, Step
from shared.settings import settings
from shared.states import OPEN, AttemptState, Reason
from shared.withdrawals import attempts, hints, pauses, rechecks, transitions
from shared.withdrawals.attempts import WORKER
from shared.withdrawals.cases import IDS, Case, read_cases

LOCK_DUE = Query(
    select(*columns(Withdrawal))
    .where(
        Withdrawal.id == IDS,
        Withdrawal.status.in_(OPEN),
        Withdrawal.due_at <= func.now(),
        ~rate_limit.is_backed_up(provider().code),
    )
    .order_by(Withdrawal.id)
    .with_for_update(skip_locked=True)
)


def claim(ids: Sequence[UUID]) -> list[Step]:
    """Claim the next step of each of these withdrawals for `lease_seconds`, in one transaction.

    There is no step for one that is not due, is final, or is held by another worker, so a second message is
    harmless; nor while all workers back off from the provider: then all stay due. If one raises, none is
    claimed. Raises NotInBatch, Unavailable.
    """
    with batches.batch(len(ids)) as session:
        locked = LOCK_DUE(ids=ids, **rate_limit.backlog_bounds())
        cases, of_rechecks = read_cases(session, locked, ids, *rechecks.queries(ids))
        steps = [step for case in cases if (step := _next_step(session, case))]
        attempts.requeue_unmatched(session)
        steps += rechecks.claim(session, *of_rechecks)
        is_claimed = {case.withdrawal.id for case in cases} | {step.withdrawal_id for step in steps}
        return steps + hints.claim(session, [key for key in ids if key not in is_claimed])


def _next_step(session: Session, case: Case) -> Step | None:
    withdrawal, attempt = case.withdrawal, case.attempt
    if attempt is not None and (reason := attempts.why_replaceable(withdrawal, attempt)):
        attempt.state = AttemptState.REFUSED
        attempt.ended_at = now(session)
        transitions.record(session, withdrawal, reason, actor=WORKER, attempt_id=str(attempt.id))
        attempt = None
    if attempt is None:
        return attempts.begin(session, case)
    if attempt.state == AttemptState.ACCEPTED:
        return _poll(session, withdrawal, attempt)
    if attempt.state == AttemptState.SENDING:
        # The lease expired: a worker was sending this attempt and never recorded an answer.
        attempt.in_doubt = True
        attempt.state = AttemptState.UNKNOWN
        transitions.record(session, withdrawal, "worker_lost", actor=WORKER, attempt_id=str(attempt.id))
    if attempts.may_send_again(session, withdrawal, attempt) and not attempts.hold_if_forbidden(
        session, case
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
    attempt.last_sent_at = now(session)
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
    attempt.queries += 1
    withdrawal.due_at = now(session) + timedelta(seconds=settings().lease_seconds)
    return rechecks.poll_step(withdrawal, attempt)
