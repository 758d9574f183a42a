"""A worker's part, second half: write down what came of a step, in one transaction.

The order of the questions in `_record` is the order of what counts: a report first, from wherever it came;
then what is known already; and last the lack of an answer, which ends nothing.
"""

import random
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from shared import metrics
from shared.db import on_commit, transaction
from shared.models import PayoutAttempt, Withdrawal, WithdrawalEvent
from shared.razorpayx.answers import ALIVE, Accepted, Answer, Found, Prepared, Refused, Throttled
from shared.razorpayx.reasons import POLICIES
from shared.settings import settings
from shared.states import OPEN, UNSETTLED, AttemptState, Reason
from shared.steps import LookUp, Poll, Prepare, Send, Step
from shared.withdrawals import effects, hinting, journey, pausing, payees, rechecking, reporting
from shared.withdrawals.claiming import begin, is_older, sent_again

# After an hour the provider's page counts an absent payout as failed (razorpayx.md §3). What it did not
# answer in that hour does not count: then a person is told, and nothing is given back.
# A number of look-ups as well: a clock that jumps an hour must not end it.
ABSENT_LOOKS, UNANSWERED_SECONDS = 6, 3600
MAX_WAIT_SECONDS, PUT_OFF_SECONDS, ERRORS_UNTIL_TOLD = 600, 300, 3

WAITS_FOR = {
    "refuses_us": Reason.PROVIDER_REFUSES_US,
    "refuses_request": Reason.PROVIDER_REFUSES_US,
    "paced": Reason.PACED,
}


LOCKED = select(Withdrawal).where(Withdrawal.id == bindparam("withdrawal_id")).with_for_update()
ATTEMPT = select(PayoutAttempt).where(PayoutAttempt.id == bindparam("attempt_id"))


def record_answer(step: Step, answer: Answer) -> Step | None:
    """Write down what came of a step; returns the step that follows at once, if any. Raises Unavailable."""
    with transaction() as session:
        on_commit(session, partial(_count, step, answer))
        withdrawal = session.scalars(LOCKED, {"withdrawal_id": step.withdrawal_id}).one()
        if isinstance(step, Prepare):
            return _record_preparation(session, withdrawal, step, answer)
        attempt = session.scalars(ATTEMPT, {"attempt_id": step.attempt_id}).one()
        _record(session, withdrawal, attempt, step, answer)
        if isinstance(step, Send):
            # Last, here and everywhere: whoever locks wallet and switch locks them in this order.
            pausing.learn_from_answer(session, withdrawal, answer)
        return None


def _count(step: Step, answer: Answer) -> None:
    match answer:
        case Throttled(because=why):
            reason = str(why)
        case Refused(reason=why):
            reason = metrics.known(why, POLICIES)
        case Accepted(report=report):
            reason = metrics.known(report.reason, POLICIES)
        case _:
            reason = ""
    metrics.ANSWERS.labels(type(step).__name__.lower(), type(answer).__name__.lower(), reason).inc()


def put_off(withdrawal_id: UUID, error: Exception) -> None:
    """A step that raised: our fault. Look again later, so that it blocks nobody, and leave a trace of it."""
    with transaction() as session:
        withdrawal = session.get(Withdrawal, withdrawal_id, with_for_update=True)
        if withdrawal is None or withdrawal.status not in OPEN:
            return
        withdrawal.due_at = func.now() + timedelta(seconds=PUT_OFF_SECONDS)
        told = f"{type(error).__name__}: {error}"[:500]
        journey.note(session, withdrawal, journey.WORKER_ERROR, actor="worker", error=told)
        if _times_noted(session, withdrawal, journey.WORKER_ERROR) >= ERRORS_UNTIL_TOLD:
            journey.flag(session, withdrawal, journey.WORKER_ERROR, actor="worker", error=told)


def _record_preparation(
    session: Session, withdrawal: Withdrawal, step: Prepare, answer: Answer
) -> Step | None:
    if isinstance(answer, Prepared):
        payees.remember(session, step, answer)
    if withdrawal.version != step.version:
        return None  # cancelled meanwhile, or another worker has it: theirs is the next word
    if isinstance(answer, Prepared):
        return begin(session, withdrawal)
    if isinstance(answer, Refused):
        _end_unsent(session, withdrawal, answer)
        pausing.learn_from_answer(session, withdrawal, answer)
        return None
    # Nothing was sent. Each time it waits twice as long.
    seconds = settings().throttle_seconds * 2 ** min(_times_noted(session, withdrawal, "not_prepared"), 10)
    description = getattr(answer, "description", None)
    journey.note(session, withdrawal, "not_prepared", actor="reply", description=description)
    _wait_for_provider(withdrawal, answer, seconds=seconds)
    pausing.learn_from_answer(session, withdrawal, answer)
    return None


def _times_noted(session: Session, withdrawal: Withdrawal, reason: str) -> int:
    told = (WithdrawalEvent.withdrawal_id == withdrawal.id) & (WithdrawalEvent.reason == reason)
    return session.scalar(select(func.count()).select_from(WithdrawalEvent).where(told)) or 0


def _end_unsent(session: Session, withdrawal: Withdrawal, answer: Refused) -> None:
    """The provider does not take this payee: nothing was ever sent, the coins go back."""
    effects.fail(session, withdrawal, actor="reply", reason=answer.reason, description=answer.description)


def _record(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    step: Send | LookUp | Poll,
    answer: Answer,
) -> None:
    before = _what_counts(withdrawal, attempt)
    _write_down(session, withdrawal, attempt, step, answer)
    if isinstance(step, Poll):
        rechecking.plan(session, withdrawal, attempt, step, answered=isinstance(answer, Accepted))
    if not isinstance(step, Send) and step.hints is not None:
        hinting.settle(session, step, _told(answer), is_news=_what_counts(withdrawal, attempt) != before)
    if isinstance(step, Send) and attempt.state == AttemptState.SENDING and attempt.sends == step.sends:
        # The call is over, and what came of it was no news of this attempt, but a contradiction. Nobody is on
        # the wire any more: it is looked up, and people may decide.
        attempt.state, attempt.in_doubt = AttemptState.UNKNOWN, True


def _what_counts(withdrawal: Withdrawal, attempt: PayoutAttempt) -> tuple[Any, ...]:
    known = (attempt.state, attempt.payout_id, attempt.provider_status, attempt.utr, attempt.unconfirmed)
    return withdrawal.status, withdrawal.review, *known


def _told(answer: Answer) -> str | None:
    """The status that an answer names, if any; `none` is one."""
    reports = [answer.report] if isinstance(answer, Accepted) else getattr(answer, "reports", None)
    if reports is None:
        return None
    return str(reports[0].status) if reports else "none"


def _write_down(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    step: Send | LookUp | Poll,
    answer: Answer,
) -> None:
    channel = {Send: "reply", LookUp: "lookup", Poll: "poll"}[type(step)]
    if isinstance(answer, Accepted):
        reporting.apply_report(session, answer.report, channel)
    elif isinstance(answer, Found) and len(answer.reports) > 1:
        _two_payouts(session, withdrawal, attempt, answer)
    elif isinstance(answer, Found) and answer.reports:
        reporting.apply_report(session, answer.reports[0], channel)
    elif not isinstance(step, Send) and step.hints is not None:
        # Asked beside all else: it says nothing of how long the payout has been absent.
        journey.note(session, withdrawal, "asked:no_payout", actor=channel, **_evidence(attempt, answer))
    elif isinstance(step, Poll):
        _not_polled(session, withdrawal, attempt, step, answer)
    elif attempt.state not in UNSETTLED or _is_overtaken(session, withdrawal, attempt, step):
        journey.note(session, withdrawal, "too_late", actor=channel, **_evidence(attempt, answer))
    elif isinstance(step, LookUp):
        _not_found(session, withdrawal, attempt, answer)
    elif isinstance(answer, Refused):
        _refused(session, withdrawal, attempt, answer)
    elif isinstance(answer, Throttled):
        _throttled(session, withdrawal, attempt, answer)
    else:
        _unanswered(session, withdrawal, attempt, answer)


def _not_polled(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Poll, answer: Answer
) -> None:
    """A payout that could not be asked for stands where it stood, and is asked for again."""
    journey.note(session, withdrawal, "polled:no_answer", actor="poll", **_evidence(attempt, answer))
    if attempt.checks == step.checks and attempt.state == AttemptState.ACCEPTED:
        withdrawal.due_at = func.now() + timedelta(seconds=effects.seconds_to_next_poll(attempt))


def _is_overtaken(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Send | LookUp
) -> bool:
    """Whether someone went on while this worker was away: its lack of an answer then says nothing more."""
    if isinstance(step, Send):
        return attempt.sends != step.sends or attempt.state != AttemptState.SENDING
    # A look-up that slept over its lease, or over another send, would call absent what may have come since.
    in_time = session.scalar(select(func.now() <= withdrawal.due_at))
    return attempt.checks != step.checks or attempt.state != AttemptState.UNKNOWN or not in_time


def _evidence(attempt: PayoutAttempt, answer: Answer) -> dict[str, Any]:
    return {
        "attempt_id": str(attempt.id),
        "answer": type(answer).__name__,
        "description": getattr(answer, "description", None),
        "http_status": getattr(answer, "http_status", None),
    }


def _refused(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Refused) -> None:
    if attempt.in_doubt:
        # This send was refused, but an earlier one has no known end: it may be paid all the same.
        _unanswered(session, withdrawal, attempt, answer)
        return
    attempt.state = AttemptState.REFUSED
    attempt.answered_at = attempt.ended_at = func.now()
    attempt.status_details = {"reason": answer.reason, "description": answer.description}
    if answer.reason == "fund_account_invalid":
        payees.forget(session, withdrawal, attempt)
    effects.end_or_retry(
        session, withdrawal, attempt, actor="reply", reason=answer.reason, description=answer.description
    )


def _throttled(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Throttled) -> None:
    attempt.state = AttemptState.THROTTLED
    attempt.waits += 1
    _wait_for_provider(
        withdrawal, answer, seconds=settings().throttle_seconds * 2 ** min(attempt.waits - 1, 10)
    )
    reason = f"throttled:{answer.because}"
    journey.note(session, withdrawal, reason, actor="reply", **_evidence(attempt, answer))


def _unanswered(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer) -> None:
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    resends, again = settings().resend_seconds, sent_again(attempt)
    seconds = resends[again] if again < len(resends) else settings().lookup_seconds
    journey.wait(withdrawal, Reason.CONFIRMING, seconds)
    journey.note(session, withdrawal, "unanswered", actor="reply", **_evidence(attempt, answer))


def _two_payouts(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Found) -> None:
    """More than one payout under one reference: neither is picked, nothing moves, a person decides."""
    payouts = [{"payout_id": report.payout_id, "status": report.status} for report in answer.reports]
    evidence = {"attempt_id": str(attempt.id), "payouts": payouts}
    journey.flag(session, withdrawal, "two_payouts", actor="lookup", **evidence)
    if any(report.outcome in ALIVE for report in answer.reports):
        effects.freeze_if_refunded(session, withdrawal)


def _not_found(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer) -> None:
    """A look-up that brought nothing: "none" an hour long is the provider's word for "not paid"."""
    journey.wait(withdrawal, Reason.CONFIRMING, settings().lookup_seconds)
    evidence = _evidence(attempt, answer)
    if not isinstance(answer, Found) or attempt.sent_as != settings().razorpayx_identity:
        # Not answered, or answered by one who may never have heard of it.
        attempt.absent_since, attempt.absent_looks = None, 0
        journey.note(session, withdrawal, "looked_up:no_answer", actor="lookup", **evidence)
        if is_older(session, attempt.created_at, UNANSWERED_SECONDS):
            journey.flag(session, withdrawal, journey.UNANSWERED, actor="lookup", **evidence)
        return
    journey.note(session, withdrawal, "looked_up:none", actor="lookup", **evidence)
    attempt.absent_since = attempt.absent_since or session.scalar(select(func.now()))
    attempt.absent_looks += 1
    for_an_hour = is_older(session, attempt.absent_since, settings().absent_seconds)
    if for_an_hour and attempt.absent_looks >= ABSENT_LOOKS and not journey.is_blocked(withdrawal):
        attempt.state = AttemptState.REFUSED
        attempt.ended_at = func.now()
        effects.fail(session, withdrawal, actor="lookup", reason="never_arrived", **evidence)


def _wait_for_provider(withdrawal: Withdrawal, answer: Answer, *, seconds: float) -> None:
    """Wait `seconds`, within bounds, or as long as the provider asks for."""
    asked = getattr(answer, "retry_after_seconds", None) or 0
    seconds = max(settings().throttle_seconds, min(seconds, MAX_WAIT_SECONDS), asked)
    because = answer.because if isinstance(answer, Throttled) else "busy"
    why = WAITS_FOR.get(because, Reason.PROVIDER_BUSY)
    # Spread out, so that all who were sent away do not come back at once.
    journey.wait(withdrawal, why, seconds * random.uniform(1.0, 1.25))  # noqa: S311  no secret
