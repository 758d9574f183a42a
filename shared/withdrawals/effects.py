"""What a report does once it is clear what it means: it is followed, it ends an attempt, it is confirmed.

Callers hold the withdrawal's lock. `reporting.py` and `recording.py` decide which of these it is.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from shared import blocks, exception_records
from shared.errors import Conflict
from shared.models import PayoutAttempt, Withdrawal
from shared.razorpayx.answers import PROGRESS, PayoutReport
from shared.razorpayx.reasons import REVERSED, in_plain_words, policy
from shared.settings import settings
from shared.states import REFUNDED, AttemptState, Reason, Status
from shared.withdrawals import journey, pausing

STOPPED = frozenset({"cancelled", "rejected"})
WEBHOOK = "webhook"
NOT_CONFIRMED, WEBHOOK_UNTRUE = "not_confirmed", "webhook_untrue"  # exception records: nothing stops for them


def follow(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """The payout is on its way: the next look is planned, and what is new of it is written down."""
    news = attempt.state != AttemptState.ACCEPTED or report.status != attempt.provider_status
    journey.answered(session, withdrawal)
    pausing.learn_from_report(session, withdrawal, report)
    known = PROGRESS.get(attempt.provider_status or "", 0)
    if PROGRESS[report.status] >= known:
        _learn(attempt, report)
    attempt.state = AttemptState.ACCEPTED
    why = Reason.PROVIDER_QUEUED if attempt.provider_status != "processing" else Reason.BANK_PROCESSING
    journey.wait(withdrawal, why, seconds_to_next_poll(attempt))
    if news:
        journey.note(session, withdrawal, f"payout_{report.status}", actor=channel, **evidence)


def end(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """The attempt is over: paid, or not, or no more."""
    was_paid, was_unconfirmed = attempt.state == AttemptState.PAID, attempt.unconfirmed
    _learn(attempt, report)
    if report.outcome == "paid":
        attempt.state = AttemptState.PAID
        attempt.unconfirmed = channel == WEBHOOK
        soon = settings().confirm_seconds if attempt.unconfirmed else min(settings().recheck_seconds)
        attempt.recheck_at = func.now() + timedelta(seconds=soon)
        # The attempt's, for it may have been told before the end was.
        journey.move(
            session, withdrawal, Status.COMPLETED, actor=channel, reason="paid", utr=attempt.utr, **evidence
        )
        if not attempt.unconfirmed:
            pausing.learn_from_report(session, withdrawal, report)
        return
    if was_unconfirmed:
        # Whatever only a webhook told of its payment was never so: the UTR may be another's.
        withdrawal.utr = None if withdrawal.utr == attempt.utr else withdrawal.utr
        attempt.utr, attempt.fees_paise, attempt.tax_paise = report.utr, report.fees_paise, report.tax_paise
    attempt.recheck_at, attempt.unconfirmed = None, False
    attempt.state = AttemptState.REVERSED if report.outcome == "reversed" else AttemptState.FAILED
    attempt.ended_at = func.now()
    if was_unconfirmed:
        _close_calls(session, withdrawal, "RazorpayX told how it ended")
        if report.outcome == "not_paid":
            call_a_person(session, withdrawal, WEBHOOK_UNTRUE, channel, evidence)
    if was_paid:
        reason = "reversed" if report.outcome == "reversed" else report.reason or report.status
        fail(session, withdrawal, actor=channel, reason=reason, **evidence)
        return
    # What somebody stopped is not begun anew, whatever had delayed it before.
    reason = report.status if report.status in STOPPED else report.reason or report.status
    end_or_retry(session, withdrawal, attempt, actor=channel, reason=reason, **evidence)
    pausing.learn_from_report(session, withdrawal, report)


def confirm(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Our own call says what the webhook said. Where its UTR was another, ours counts from now on."""
    told = attempt.utr
    _learn(attempt, report)
    attempt.utr, attempt.unconfirmed = report.utr, False
    attempt.fees_paise, attempt.tax_paise = report.fees_paise, report.tax_paise
    if withdrawal.utr in (None, told):
        withdrawal.utr = attempt.utr
    was = told if told != attempt.utr else None
    journey.note(session, withdrawal, "confirmed", actor=channel, **evidence, utr=report.utr, told_before=was)
    _close_calls(session, withdrawal, "RazorpayX confirmed the payment")
    pausing.learn_from_report(session, withdrawal, report)


def learn_more(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Write down what was not known yet of a payout that has ended."""
    _learn(attempt, report)
    if attempt.state == AttemptState.PAID:
        withdrawal.utr = withdrawal.utr or attempt.utr  # the one that people named stays
    journey.note(session, withdrawal, "learnt", actor=channel, **evidence, utr=report.utr)


def tells_more(attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """Whether it fills in what we do not know yet. What differs from what we know is for reconciliation."""
    if report.utr and attempt.utr and report.utr != attempt.utr:
        return False
    pairs = (
        (attempt.utr, report.utr),
        (attempt.fees_paise, report.fees_paise),
        (attempt.tax_paise, report.tax_paise),
    )
    return any(ours is None and theirs is not None for ours, theirs in pairs)


def end_or_retry(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    *,
    actor: str,
    reason: str | None,
    **data: Any,
) -> None:
    """After a definite failure the table of reasons says: a new attempt, a person, or the coins back."""
    data["attempt_id"] = str(attempt.id)
    then = policy(reason)
    may_retry = then.action == "retry" and attempt.number < min(then.attempts, settings().max_attempts)
    if journey.is_blocked(withdrawal):
        # This attempt is over, but something else may have been paid: the coins stay where they are.
        journey.wait(withdrawal, Reason.IN_REVIEW, journey.REVIEW_SECONDS)
    elif may_retry and withdrawal.status == Status.PROCESSING:
        journey.wait(withdrawal, Reason.RETRY_LATER, settings().retry_seconds * then.minutes / 30)
    elif then.action == "hold" and withdrawal.status == Status.PROCESSING:
        journey.flag(session, withdrawal, f"held:{reason}", actor=actor, **data)
    else:
        fail(session, withdrawal, actor=actor, reason=reason, **data)
        return
    journey.note(session, withdrawal, f"attempt_failed:{reason}", actor=actor, **data)


def fail(session: Session, withdrawal: Withdrawal, *, actor: str, reason: str | None, **data: Any) -> None:
    """It definitely did not happen: the coins go back, and the user is told why in plain words."""
    was_paid = withdrawal.status == Status.COMPLETED
    words = REVERSED if was_paid and reason == "reversed" else in_plain_words(reason)
    journey.move(
        session,
        withdrawal,
        Status.FAILED,
        actor=actor,
        reason=reason or "not_paid",
        failure_reason=words,
        **data,
    )


def hold_against(attempt: PayoutAttempt, report: PayoutReport) -> None:
    """Keep what contradicts an attempt's end: people act on it, and the next word is held against it."""
    if attempt.state == AttemptState.PAID:
        attempt.utr = attempt.utr or report.utr  # told once
    if attempt.payout_id in (None, report.payout_id):
        attempt.payout_id, attempt.provider_status = report.payout_id, report.status
        attempt.answered_at = func.now()


def freeze_if_refunded(session: Session, withdrawal: Withdrawal) -> None:
    """A payout lives, or was paid, whose coins are back: its user withdraws nothing until people have looked.

    Whoever can make this happen could do it again with the same coins. The caller holds its lock.
    """
    if withdrawal.status not in REFUNDED:
        return
    reason = f"RazorpayX tells of a payout for withdrawal {withdrawal.id}, whose coins are back"
    with suppress(Conflict):  # it is frozen already
        blocks.freeze(session, withdrawal.user_id, reason=reason, actor="system")


def call_a_person(
    session: Session, withdrawal: Withdrawal, kind: str, channel: str, evidence: dict[str, Any]
) -> None:
    """Something for people to know that stops nothing: the provider's own word decides, now or soon."""
    exception_records.open_record(
        session,
        kind=kind,
        subject=str(withdrawal.id),
        source=channel,
        withdrawal_id=withdrawal.id,
        ours={"status": withdrawal.status, "utr": withdrawal.utr, "paid_by": WEBHOOK},
        theirs={key: value for key, value in evidence.items() if value is not None},
    )


def seconds_to_next_poll(attempt: PayoutAttempt) -> float:
    """Each look at a payout waits twice as long as the one before, up to a limit."""
    doublings = min(attempt.checks, 20)
    return float(min(settings().poll_seconds * 2**doublings, settings().poll_max_seconds))


def _close_calls(session: Session, withdrawal: Withdrawal, resolution: str) -> None:
    exception_records.close_all(
        session,
        kind=NOT_CONFIRMED,
        withdrawal_id=withdrawal.id,
        resolution=resolution,
        actor="system",
    )


def _learn(attempt: PayoutAttempt, report: PayoutReport) -> None:
    attempt.payout_id = report.payout_id
    attempt.provider_status = report.status
    attempt.status_details = report.details or None
    attempt.utr = report.utr or attempt.utr
    attempt.fees_paise = report.fees_paise if report.fees_paise is not None else attempt.fees_paise
    attempt.tax_paise = report.tax_paise if report.tax_paise is not None else attempt.tax_paise
    attempt.answered_at = func.now()
