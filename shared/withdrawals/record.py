"""The worker's part, second half: record the answer to a step in one transaction.

`_apply_answer` tests the strongest evidence first: a report, however it arrived; then what is known already;
last a missing answer, which never ends an attempt.
"""

import random
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import NotInBatch, Query, columns
from shared.db.transactions import now, on_commit, transaction
from shared.ids import parse_id
from shared.models import Hint, PayoutAttempt, Withdrawal, WithdrawalEvent
from shared.providers.answers import (
    ALIVE,
    Accepted,
    Answer,
    Found,
    PayoutReport,
    Prepared,
    Refused,
    Throttled,
)
from shared.providers.failures import POLICIES
from shared.providers.registry import provider
from shared.providers.steps import LookUp, Poll, Prepare, Send, Step
from shared.settings import settings
from shared.states import OPEN, UNSETTLED, AttemptState, Reason
from shared.telemetry import metrics
from shared.withdrawals import attempts, effects, hints, pauses, payees, rechecks, transitions
from shared.withdrawals.apply_report import apply_report, apply_to_attempt, queries, remember
from shared.withdrawals.cases import IDS, Case, read_cases

# The provider counts a payout that is absent for an hour as failed (provider reference §3). Look-ups without
# an answer do not count: after an hour of those, an operator is notified and nothing is refunded.
UNANSWERED_SECONDS = 3600
MIN_ABSENT_REPLIES = 6  # a minimum of look-ups too: a clock that jumps an hour must not end an attempt
MAX_WAIT_SECONDS = 600
ERROR_RETRY_SECONDS = 300
ERRORS_BEFORE_HOLD = 3

WAIT_REASONS = {
    "refuses_us": Reason.PROVIDER_REFUSES_US,
    "refuses_request": Reason.PROVIDER_REFUSES_US,
    "paced": Reason.PACED,
}

log = structlog.get_logger()

_locked = select(*columns(Withdrawal)).where(Withdrawal.id == IDS).order_by(Withdrawal.id)
LOCK = Query(_locked.with_for_update())
LOCK_FREE = Query(_locked.with_for_update(skip_locked=True))
ATTEMPTS = Query(select(*columns(PayoutAttempt)).where(PayoutAttempt.id == IDS))


def record_answers(answers: Sequence[tuple[Step, Answer]]) -> list[Step]:
    """Record the answers to these steps in one transaction; returns the steps that follow at once.

    If one raises, none is recorded. Raises NotInBatch, Unavailable.
    """
    with batches.batch(len(answers)) as session:
        following = []
        locked = _lock(session, answers)
        for place, (step, answer) in enumerate(answers):
            on_commit(session, partial(_count_answer, step, answer))
            try:
                following.append(_record(session, *locked[step], step, answer))
            except NotInBatch as error:
                raise _apart(answers[place:]) from error
        attempts.requeue_unmatched(session)
        return [step for step in following if step]


def _record(
    session: Session, case: Case, attempt: PayoutAttempt | None, step: Step, answer: Answer
) -> Step | None:
    if isinstance(step, Prepare):
        return _record_preparation(session, case, step, answer)
    assert attempt is not None, "a step that is no preparation has an attempt"
    _record_on_attempt(session, case.withdrawal, attempt, step, answer)
    if isinstance(step, Send):
        # Last, here and everywhere: the wallet is locked before the circuit breaker.
        pauses.update_breakers_from_answer(session, case.withdrawal, answer)
    return None


def _apart(answers: Sequence[tuple[Step, Answer]]) -> NotInBatch:
    """Return which of these go alone: the first, which needs another lock, and all that report a failure.

    The first one may be a success that resets a circuit breaker's count; then no other success has to. A
    failure nearly always locks its wallet or a breaker.
    """
    (first, _), *others = answers
    failures = {step.withdrawal_id for step, answer in others if _reports_failure(answer)}
    return NotInBatch(first=frozenset({first.withdrawal_id}), last=frozenset(failures))


def _reports_failure(answer: Answer) -> bool:
    if isinstance(answer, Prepared | Accepted | Found):
        return any(report.outcome not in ("waiting", "paid") for report in _reports(answer))
    return True


def _lock(
    session: Session, answers: Sequence[tuple[Step, Answer]]
) -> dict[Step, tuple[Case, PayoutAttempt | None]]:
    """Lock the withdrawals of these steps; read their attempts and what the reports are compared with."""
    ids = [step.withdrawal_id for step, _ in answers]
    attempt_ids = [step.attempt_id for step, _ in answers if not isinstance(step, Prepare)]
    reports = [report for _, answer in answers for report in _reports(answer)]
    cases, (of_steps, of_hints, open_records, *known) = read_cases(
        session,
        (LOCK if len(ids) == 1 else LOCK_FREE)(ids=ids),
        ids,
        ATTEMPTS(ids=attempt_ids),
        hints.OF_ATTEMPTS(ids=attempt_ids),
        effects.OPEN_RECORDS(ids=ids),
        *queries(reports),
    )
    batches.attach(session, Hint, of_hints)
    effects.remember_open_records(session, open_records)
    remember(session, reports, *known)
    case_of = {case.withdrawal.id: case for case in cases}
    if locked := frozenset(ids) - case_of.keys():
        raise NotInBatch(last=locked)  # another transaction holds these rows: only their own answers wait
    attempt_of = {row.id: row for row in batches.attach(session, PayoutAttempt, of_steps)}
    return {
        step: (
            case_of[step.withdrawal_id],
            None if isinstance(step, Prepare) else attempt_of.get(step.attempt_id),
        )
        for step, _ in answers
    }


def _reports(answer: Answer) -> Sequence[PayoutReport]:
    return (answer.report,) if isinstance(answer, Accepted) else getattr(answer, "reports", ())


def _count_answer(step: Step, answer: Answer) -> None:
    match answer:
        case Throttled(cause=cause):
            reason = str(cause)
        case Refused(reason=code):
            reason = metrics.known_or_other(code, POLICIES)
        case Accepted(report=report):
            reason = metrics.known_or_other(report.reason, POLICIES)
        case _:
            reason = ""
    metrics.ANSWERS.labels(type(step).__name__.lower(), type(answer).__name__.lower(), reason).inc()


def postpone_after_error(withdrawal_id: UUID, error: Exception) -> None:
    """Record that a step raised, which is our fault, and retry it later, so that it does not block the queue.

    After ERRORS_BEFORE_HOLD errors an operator is notified.
    """
    with transaction() as session:
        withdrawal = session.get(Withdrawal, withdrawal_id, with_for_update=True)
        if withdrawal is None or withdrawal.status not in OPEN:
            return
        withdrawal.due_at = now(session) + timedelta(seconds=ERROR_RETRY_SECONDS)
        text = f"{type(error).__name__}: {error}"[:500]
        transitions.record(session, withdrawal, transitions.WORKER_ERROR, actor="worker", error=text)
        if _event_count(session, withdrawal, transitions.WORKER_ERROR) >= ERRORS_BEFORE_HOLD:
            transitions.hold(session, withdrawal, transitions.WORKER_ERROR, actor="worker", error=text)


def _record_preparation(session: Session, case: Case, step: Prepare, answer: Answer) -> Step | None:
    withdrawal = case.withdrawal
    if isinstance(answer, Prepared):
        case.fund_account_id = payees.save_destination(session, case, step, answer)
    if withdrawal.due_at != step.leased_until:
        return None  # it was cancelled, or another worker has claimed it since
    if isinstance(answer, Prepared):
        return attempts.begin(session, case)
    if isinstance(answer, Refused):
        # The provider does not accept this payee. Nothing was sent, so the coins go back.
        _fail_unsent(session, withdrawal, answer)
        pauses.update_breakers_from_answer(session, withdrawal, answer)
        return None
    # Nothing was sent. The wait doubles each time.
    seconds = settings().throttle_seconds * 2 ** min(_event_count(session, withdrawal, "not_prepared"), 10)
    description = getattr(answer, "description", None)
    transitions.record(session, withdrawal, "not_prepared", actor="reply", description=description)
    _wait_for_provider(withdrawal, answer, seconds=seconds)
    pauses.update_breakers_from_answer(session, withdrawal, answer)
    return None


def _event_count(session: Session, withdrawal: Withdrawal, reason: str) -> int:
    matches = (WithdrawalEvent.withdrawal_id == withdrawal.id) & (WithdrawalEvent.reason == reason)
    return session.scalar(select(func.count()).select_from(WithdrawalEvent).where(matches)) or 0


def _fail_unsent(session: Session, withdrawal: Withdrawal, answer: Refused) -> None:
    effects.fail(session, withdrawal, actor="reply", reason=answer.reason, description=answer.description)


def _record_on_attempt(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    step: Send | LookUp | Poll,
    answer: Answer,
) -> None:
    before = _snapshot(withdrawal, attempt)
    _apply_answer(session, withdrawal, attempt, step, answer)
    if isinstance(step, Poll):
        rechecks.schedule_next(session, withdrawal, attempt, step, answered=isinstance(answer, Accepted))
    if not isinstance(step, Send) and step.hint_count is not None:
        changed = _snapshot(withdrawal, attempt) != before
        hints.record_query(session, step, _reported_status(answer), changed=changed)
    if isinstance(step, Send) and attempt.state == AttemptState.SENDING and attempt.sends == step.sends:
        # The call is over and its answer was a contradiction, which changes no attempt. No worker is sending
        # it any more, so it is looked up, and operators may decide.
        attempt.state = AttemptState.UNKNOWN
        attempt.in_doubt = True


def _snapshot(withdrawal: Withdrawal, attempt: PayoutAttempt) -> tuple[Any, ...]:
    known = (attempt.state, attempt.payout_id, attempt.provider_status, attempt.utr, attempt.unconfirmed)
    return withdrawal.status, withdrawal.hold, *known


def _reported_status(answer: Answer) -> str | None:
    """Return the payout status in an answer: `none` if there is no payout, None without an answer."""
    reports = [answer.report] if isinstance(answer, Accepted) else getattr(answer, "reports", None)
    if reports is None:
        return None
    return str(reports[0].status) if reports else "none"


def _apply_answer(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    step: Send | LookUp | Poll,
    answer: Answer,
) -> None:
    channel = {Send: "reply", LookUp: "lookup", Poll: "poll"}[type(step)]
    if isinstance(answer, Accepted):
        _apply_report(session, withdrawal, attempt, answer.report, channel)
    elif isinstance(answer, Found) and len(answer.reports) > 1:
        _hold_two_payouts(session, withdrawal, attempt, answer)
    elif isinstance(answer, Found) and answer.reports:
        _apply_report(session, withdrawal, attempt, answer.reports[0], channel)
    elif not isinstance(step, Send) and step.hint_count is not None:
        # A query for a hint is not one of the scheduled look-ups, so it does not count towards the absence.
        transitions.record(
            session, withdrawal, "asked:no_payout", actor=channel, **_evidence(attempt, answer)
        )
    elif isinstance(step, Poll):
        _record_failed_poll(session, withdrawal, attempt, step, answer)
    elif attempt.state not in UNSETTLED or _is_overtaken(session, withdrawal, attempt, step):
        transitions.record(session, withdrawal, "too_late", actor=channel, **_evidence(attempt, answer))
    elif isinstance(step, LookUp):
        _record_absence(session, withdrawal, attempt, answer)
    elif isinstance(answer, Refused):
        _record_refusal(session, withdrawal, attempt, answer)
    elif isinstance(answer, Throttled):
        _record_throttling(session, withdrawal, attempt, answer)
    else:
        _record_no_answer(session, withdrawal, attempt, answer)


def _apply_report(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport, channel: str
) -> None:
    if parse_id(report.reference_id or "") == attempt.id:
        apply_to_attempt(session, withdrawal, attempt, report, channel)
    else:
        apply_report(session, report, channel)  # it names no reference, or another attempt's


def _record_failed_poll(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Poll, answer: Answer
) -> None:
    """Leave the attempt as it is and poll again later."""
    transitions.record(session, withdrawal, "polled:no_answer", actor="poll", **_evidence(attempt, answer))
    if attempt.queries == step.queries and attempt.state == AttemptState.ACCEPTED:
        withdrawal.due_at = now(session) + timedelta(seconds=effects.seconds_to_next_poll(attempt))


def _is_overtaken(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Send | LookUp
) -> bool:
    """True if another worker has continued since the claim: a missing answer then proves nothing."""
    if isinstance(step, Send):
        return attempt.sends != step.sends or attempt.state != AttemptState.SENDING
    # A look-up that outlasted its lease, or another send, cannot show that a payout is absent now.
    in_time = withdrawal.due_at is not None and now(session) <= withdrawal.due_at
    return attempt.queries != step.queries or attempt.state != AttemptState.UNKNOWN or not in_time


def _evidence(attempt: PayoutAttempt, answer: Answer) -> dict[str, Any]:
    return {
        "attempt_id": str(attempt.id),
        "answer": type(answer).__name__,
        "description": getattr(answer, "description", None),
        "http_status": getattr(answer, "http_status", None),
    }


def _record_refusal(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Refused
) -> None:
    if attempt.in_doubt:
        # This send was refused, but the outcome of an earlier one is unknown: it may still be paid.
        _record_no_answer(session, withdrawal, attempt, answer)
        return
    attempt.state = AttemptState.REFUSED
    attempt.answered_at = attempt.ended_at = now(session)
    attempt.status_details = {"reason": answer.reason, "description": answer.description}
    if answer.reason == "fund_account_invalid":
        payees.end_destination(session, withdrawal, attempt)
    effects.end_or_retry(
        session, withdrawal, attempt, actor="reply", reason=answer.reason, description=answer.description
    )


def _record_throttling(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Throttled
) -> None:
    attempt.state = AttemptState.THROTTLED
    attempt.throttles += 1
    _wait_for_provider(
        withdrawal, answer, seconds=settings().throttle_seconds * 2 ** min(attempt.throttles - 1, 10)
    )
    reason = f"throttled:{answer.cause}"
    transitions.record(session, withdrawal, reason, actor="reply", **_evidence(attempt, answer))


def _record_no_answer(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer
) -> None:
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    resend_seconds = settings().resend_seconds
    resends = attempts.resends(attempt)
    seconds = resend_seconds[resends] if resends < len(resend_seconds) else settings().lookup_seconds
    transitions.reschedule(withdrawal, Reason.CONFIRMING, seconds)
    transitions.record(session, withdrawal, "unanswered", actor="reply", **_evidence(attempt, answer))


def _hold_two_payouts(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Found
) -> None:
    """Hold a withdrawal with several payouts under one reference: operators decide which one counts."""
    payouts = [{"payout_id": report.payout_id, "status": report.status} for report in answer.reports]
    evidence = {"attempt_id": str(attempt.id), "payouts": payouts}
    transitions.hold(session, withdrawal, "two_payouts", actor="lookup", **evidence)
    if any(report.outcome in ALIVE for report in answer.reports):
        effects.freeze_if_refunded(session, withdrawal)


def _record_absence(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer) -> None:
    """Record a look-up without a payout: absent for an hour means "not paid" (provider reference §3)."""
    transitions.reschedule(withdrawal, Reason.CONFIRMING, settings().lookup_seconds)
    evidence = _evidence(attempt, answer)
    if not isinstance(answer, Found) or attempt.sent_as != provider().identity():
        # No answer, or an answer for another identity, which never had this payout.
        attempt.absent_since = None
        attempt.absent_replies = 0
        transitions.record(session, withdrawal, "looked_up:no_answer", actor="lookup", **evidence)
        if attempts.is_older(session, attempt.created_at, UNANSWERED_SECONDS):
            transitions.hold(session, withdrawal, transitions.UNANSWERED, actor="lookup", **evidence)
        return
    transitions.record(session, withdrawal, "looked_up:none", actor="lookup", **evidence)
    attempt.absent_since = attempt.absent_since or now(session)
    attempt.absent_replies += 1
    long_enough = attempts.is_older(session, attempt.absent_since, settings().absent_seconds)
    if (
        long_enough
        and attempt.absent_replies >= MIN_ABSENT_REPLIES
        and not transitions.is_on_hold(withdrawal)
    ):
        attempt.state = AttemptState.REFUSED
        attempt.ended_at = now(session)
        effects.fail(session, withdrawal, actor="lookup", reason="never_arrived", **evidence)


def _wait_for_provider(withdrawal: Withdrawal, answer: Answer, *, seconds: float) -> None:
    """Wait `seconds`, within bounds, or as long as the provider's Retry-After says."""
    retry_after = getattr(answer, "retry_after_seconds", None) or 0
    seconds = max(settings().throttle_seconds, min(seconds, MAX_WAIT_SECONDS), retry_after)
    cause = answer.cause if isinstance(answer, Throttled) else "busy"
    reason = WAIT_REASONS.get(cause, Reason.PROVIDER_BUSY)
    # With jitter, so that throttled payouts do not all return at once.
    transitions.reschedule(withdrawal, reason, seconds * random.uniform(1.0, 1.25))  # noqa: S311  no secret
