"""A worker's part: claim the next step in one transaction, do it on the wire, record it in another.

Between the two transactions a worker may die at any line. What it leaves is a lease that runs out
(`due_at`) and an attempt in state `sending`: we do not know. The next claim says so (`in_doubt`) and goes
on with the same key and the same bytes, which RazorpayX answers with the same payout (razorpayx.md §3).
"""

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.ids import new_id
from shared.models import Destination, PayoutAttempt, Wallet, Withdrawal
from shared.razorpayx import bodies
from shared.razorpayx.answers import Accepted, Answer, Found, Prepared, Refused, Throttled
from shared.settings import settings
from shared.states import OPEN, UNSETTLED, AttemptState, Reason, Status
from shared.steps import LookUp, Poll, Prepare, Send, Step
from shared.withdrawals import journey, reporting

WORKER = "worker"
# RazorpayX forgets a key after 7 days and would then pay again (razorpayx.md §3): stop well before.
RESEND_WITHIN_DAYS = 6
# After an hour the provider's page counts an absent payout as settled (razorpayx.md §3): tell a person.
UNANSWERED_SECONDS = 3600
MAX_WAIT_SECONDS = 600


def claim(withdrawal_id: UUID) -> Step | None:
    """Take what is due for this withdrawal, for `lease_seconds`.

    None when it is not due, final, or in another worker's hands: a second message is harmless.
    Raises Unavailable.
    """
    with transaction() as session:
        withdrawal = session.scalar(
            select(Withdrawal)
            .where(
                Withdrawal.id == withdrawal_id, Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now()
            )
            .with_for_update(skip_locked=True)
        )
        return _next_step(session, withdrawal) if withdrawal else None


def record_answer(step: Step, answer: Answer) -> Step | None:
    """Write down what came of a step; returns the step that follows at once, if any. Raises Unavailable."""
    with transaction() as session:
        withdrawal = session.get_one(Withdrawal, step.withdrawal_id, with_for_update=True)
        if isinstance(step, Prepare):
            return _record_preparation(session, withdrawal, step, answer)
        attempt = session.get_one(PayoutAttempt, step.attempt_id, populate_existing=True)
        _record(session, withdrawal, attempt, step, answer)
        return None


# --- claim ------------------------------------------------------------------------------------------------


def _next_step(session: Session, withdrawal: Withdrawal) -> Step | None:
    attempt = _unsettled_attempt(session, withdrawal)
    if attempt is None:
        return _begin(session, withdrawal)
    if attempt.state == AttemptState.ACCEPTED:
        return _poll(session, withdrawal, attempt)
    if attempt.state == AttemptState.SENDING:
        # The lease ran out: somebody was on the wire with this and never came back.
        attempt.in_doubt = True
        attempt.state = AttemptState.UNKNOWN
        journey.note(session, withdrawal, "worker_lost", actor=WORKER, attempt_id=str(attempt.id))
    if _may_send_again(session, withdrawal, attempt):
        return _send(session, withdrawal, attempt)
    return _look_up(session, withdrawal, attempt)


def _begin(session: Session, withdrawal: Withdrawal) -> Step | None:
    """A first attempt, or a new one after a passing failure; first of all the payee."""
    if withdrawal.review is not None:
        journey.wait(withdrawal, Reason.IN_REVIEW, MAX_WAIT_SECONDS)
        return None
    destination = session.get(Destination, (withdrawal.user_id, withdrawal.upi_id))
    if destination is None:
        journey.wait(withdrawal, Reason.PREPARING, settings().lease_seconds)
        name = session.get_one(Wallet, withdrawal.user_id).name
        session.flush()
        return Prepare(withdrawal.id, withdrawal.version, withdrawal.user_id, name, withdrawal.upi_id)
    attempt = _new_attempt(session, withdrawal, destination)
    journey.wait(withdrawal, Reason.SENDING, settings().lease_seconds)
    evidence: dict[str, Any] = {"attempt_id": str(attempt.id), "number": attempt.number}
    if withdrawal.status == Status.PENDING:
        journey.move(session, withdrawal, Status.PROCESSING, actor=WORKER, reason="claimed", **evidence)
    else:
        journey.note(session, withdrawal, "new_attempt", actor=WORKER, **evidence)
    return Send(withdrawal.id, attempt.id, attempt.request_body, withdrawal.amount_paise)


def _new_attempt(session: Session, withdrawal: Withdrawal, destination: Destination) -> PayoutAttempt:
    number = session.scalar(
        select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id).select_from(PayoutAttempt)
    )
    attempt_id = new_id()
    body = bodies.payout(
        settings=settings(),
        attempt_id=str(attempt_id),
        fund_account_id=destination.fund_account_id,
        amount_paise=withdrawal.amount_paise,
    )
    attempt = PayoutAttempt(
        id=attempt_id,
        withdrawal_id=withdrawal.id,
        number=(number or 0) + 1,
        request_body=body,
        state=AttemptState.SENDING,
        sends=1,
    )
    session.add(attempt)
    session.flush()
    return attempt


def _may_send_again(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    young = session.scalar(select(func.now() - attempt.created_at < timedelta(days=RESEND_WITHIN_DAYS)))
    if withdrawal.review is not None or not young:
        return False
    return attempt.state == AttemptState.THROTTLED or attempt.sends <= len(settings().resend_seconds)


def _send(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Send:
    attempt.state = AttemptState.SENDING
    attempt.sends += 1
    attempt.last_sent_at = func.now()
    journey.wait(
        withdrawal, Reason.CONFIRMING if attempt.in_doubt else Reason.SENDING, settings().lease_seconds
    )
    journey.note(
        session, withdrawal, "sent_again", actor=WORKER, attempt_id=str(attempt.id), sends=attempt.sends
    )
    return Send(withdrawal.id, attempt.id, attempt.request_body, withdrawal.amount_paise)


def _look_up(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> LookUp:
    # `unknown`, whatever it was: from here on only evidence counts.
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    attempt.checks += 1
    journey.wait(withdrawal, Reason.CONFIRMING, settings().lease_seconds)
    return LookUp(withdrawal.id, attempt.id)


def _poll(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> Poll:
    assert attempt.payout_id, "an accepted attempt knows its payout"
    attempt.checks += 1
    withdrawal.due_at = func.now() + timedelta(seconds=settings().lease_seconds)
    return Poll(withdrawal.id, attempt.id, attempt.payout_id, withdrawal.amount_paise)


def _unsettled_attempt(session: Session, withdrawal: Withdrawal) -> PayoutAttempt | None:
    return session.scalar(
        select(PayoutAttempt).where(
            PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state.in_(UNSETTLED)
        )
    )


# --- record -----------------------------------------------------------------------------------------------


def _record_preparation(
    session: Session, withdrawal: Withdrawal, step: Prepare, answer: Answer
) -> Step | None:
    if isinstance(answer, Prepared):
        session.execute(
            upsert(Destination)
            .values(
                user_id=step.user_id,
                upi_id=step.upi_id,
                contact_id=answer.contact_id,
                fund_account_id=answer.fund_account_id,
            )
            .on_conflict_do_nothing()
        )
    if withdrawal.version != step.version:
        return None  # cancelled meanwhile, or another worker has it: theirs is the next word
    match answer:
        case Prepared():
            return _begin(session, withdrawal)
        case Refused():
            _end_unsent(session, withdrawal, answer)
        case Throttled():
            _wait_for_provider(withdrawal, answer, waits=1)
        case _:
            journey.wait(withdrawal, Reason.PREPARING, settings().throttle_seconds)
    return None


def _end_unsent(session: Session, withdrawal: Withdrawal, answer: Refused) -> None:
    """The provider does not take this payee: nothing was ever sent, the coins go back."""
    reporting.fail(session, withdrawal, actor="reply", reason=answer.reason, description=answer.description)


def _record(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, step: Step, answer: Answer
) -> None:
    channel = {Send: "reply", LookUp: "lookup", Poll: "poll"}[type(step)]
    if isinstance(answer, Accepted):
        reporting.apply_report(session, answer.report, channel)
    elif isinstance(answer, Found) and len(answer.reports) > 1:
        _two_payouts(session, withdrawal, attempt, answer)
    elif isinstance(answer, Found) and answer.reports:
        reporting.apply_report(session, answer.reports[0], channel)
    elif attempt.state not in UNSETTLED:
        return  # a report was faster and is worth more than the lack of one
    elif attempt.state == AttemptState.ACCEPTED:
        _poll_later(withdrawal, attempt)
    elif isinstance(step, LookUp):
        _not_found(session, withdrawal, attempt, answer)
    elif isinstance(answer, Refused):
        _refused(session, withdrawal, attempt, answer)
    elif isinstance(answer, Throttled):
        _throttled(session, withdrawal, attempt, answer)
    else:
        _unanswered(session, withdrawal, attempt, answer)


def _refused(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Refused) -> None:
    if attempt.in_doubt:
        # This send was refused, but an earlier one has no known end: it may be paid all the same.
        _unanswered(session, withdrawal, attempt, answer)
        return
    attempt.state = AttemptState.REFUSED
    attempt.answered_at = attempt.ended_at = func.now()
    attempt.status_details = {"reason": answer.reason, "description": answer.description}
    reporting.end_or_retry(
        session, withdrawal, attempt, actor="reply", reason=answer.reason, description=answer.description
    )


def _throttled(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Throttled) -> None:
    attempt.state = AttemptState.THROTTLED
    attempt.waits += 1
    _wait_for_provider(withdrawal, answer, waits=attempt.waits)
    journey.note(
        session, withdrawal, f"throttled:{answer.because}", actor="reply",
        attempt_id=str(attempt.id), description=answer.description,
    )  # fmt: skip


def _unanswered(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer) -> None:
    attempt.state = AttemptState.UNKNOWN
    attempt.in_doubt = True
    resends = settings().resend_seconds
    sent_again = attempt.sends - 1
    seconds = resends[sent_again] if sent_again < len(resends) else settings().lookup_seconds
    journey.wait(withdrawal, Reason.CONFIRMING, seconds)
    journey.note(
        session, withdrawal, "unanswered", actor="reply",
        attempt_id=str(attempt.id), description=getattr(answer, "description", None),
        http_status=getattr(answer, "http_status", None),
    )  # fmt: skip


def _two_payouts(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Found) -> None:
    """More than one payout under one reference: neither is picked, nothing moves, a person decides."""
    if withdrawal.status in OPEN:
        journey.wait(withdrawal, Reason.IN_REVIEW, settings().lookup_seconds)
    if withdrawal.review is None:
        payouts = [{"payout_id": report.payout_id, "status": report.status} for report in answer.reports]
        journey.flag(
            session, withdrawal, "two_payouts", actor="lookup", attempt_id=str(attempt.id), payouts=payouts
        )


def _not_found(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, answer: Answer) -> None:
    """A look-up that brought nothing. It ends nothing: the coins stay held, and a person is told in time."""
    journey.wait(withdrawal, Reason.CONFIRMING, settings().lookup_seconds)
    found_none = isinstance(answer, Found)
    evidence = {"attempt_id": str(attempt.id), "description": getattr(answer, "description", None)}
    reason = "looked_up:none" if found_none else "looked_up:no_answer"
    journey.note(session, withdrawal, reason, actor="lookup", **evidence)
    too_long = session.scalar(select(func.now() - attempt.created_at > timedelta(seconds=UNANSWERED_SECONDS)))
    if too_long and withdrawal.review is None:
        journey.flag(session, withdrawal, "unanswered", actor="lookup", **evidence)


def _poll_later(withdrawal: Withdrawal, attempt: PayoutAttempt) -> None:
    withdrawal.due_at = func.now() + timedelta(seconds=reporting.seconds_to_next_poll(attempt))


def _wait_for_provider(withdrawal: Withdrawal, answer: Throttled, *, waits: int) -> None:
    seconds = settings().throttle_seconds * 2 ** min(waits - 1, 10)
    seconds = max(min(seconds, MAX_WAIT_SECONDS), answer.retry_after_seconds or 0)
    why = Reason.PROVIDER_REFUSES_US if answer.because == "refuses_us" else Reason.PROVIDER_BUSY
    # Spread out, so that all who were sent away do not come back at once.
    journey.wait(withdrawal, why, seconds * random.uniform(1.0, 1.25))  # noqa: S311  no secret
