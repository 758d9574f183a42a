"""The one door for what RazorpayX says of a payout: reply, webhook, poll, look-up, reconciliation.

Reports come early, twice, late and out of order. What each does is a table (`MEANING`); one that would move
money against an end that we already acted on moves nothing and calls a person.
"""

from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session

from shared.ids import parse_id
from shared.models import PayoutAttempt, Withdrawal
from shared.razorpayx.answers import PROGRESS, Outcome, PayoutReport
from shared.razorpayx.reasons import REVERSED, in_plain_words, policy
from shared.settings import settings
from shared.states import UNSETTLED, AttemptState, Reason, Status
from shared.withdrawals import journey, paid_outside, pausing

STOPPED = frozenset({"cancelled", "rejected"})
Effect = Literal["follow", "pay", "fail", "reverse", "repeat", "late", "conflict"]

# (how the attempt stands, what the report says) -> what the report does
MEANING: dict[tuple[str, Outcome], Effect] = {
    **{(state, "waiting"): "follow" for state in UNSETTLED},
    **{(state, "paid"): "pay" for state in UNSETTLED},
    **{(state, "not_paid"): "fail" for state in UNSETTLED},
    **{(state, "reversed"): "fail" for state in UNSETTLED},
    (AttemptState.PAID, "waiting"): "late",
    (AttemptState.PAID, "paid"): "repeat",
    (AttemptState.PAID, "not_paid"): "conflict",
    (AttemptState.PAID, "reversed"): "reverse",
    # Refused means that there never was a payout: one that lives is news of the worst kind.
    (AttemptState.REFUSED, "waiting"): "conflict",
    (AttemptState.REFUSED, "paid"): "conflict",
    (AttemptState.REFUSED, "not_paid"): "late",
    (AttemptState.REFUSED, "reversed"): "late",
    (AttemptState.FAILED, "waiting"): "late",
    (AttemptState.FAILED, "paid"): "conflict",
    (AttemptState.FAILED, "not_paid"): "repeat",
    # A debit may be credited back after the failure (razorpayx.md §2): not paid either way.
    (AttemptState.FAILED, "reversed"): "late",
    (AttemptState.REVERSED, "waiting"): "late",
    (AttemptState.REVERSED, "paid"): "late",
    (AttemptState.REVERSED, "not_paid"): "late",
    (AttemptState.REVERSED, "reversed"): "repeat",
}


def meaning(state: str, outcome: Outcome, *, on_peoples_word: bool) -> Effect:
    """What a report does to an attempt. `on_peoples_word`: its withdrawal is completed, and no attempt of it
    was paid. Then two people said what was, and news that it ended otherwise may be about just that.
    """
    effect = MEANING[AttemptState(state), outcome]
    return "conflict" if on_peoples_word and effect == "late" and outcome != "waiting" else effect


_is_meant = or_(PayoutAttempt.id == bindparam("reference"), PayoutAttempt.payout_id == bindparam("payout_id"))
_ours_first = (PayoutAttempt.id == bindparam("reference")).desc().nulls_last()
OWNER_LOCKED = (
    select(Withdrawal)
    .where(
        Withdrawal.id
        == select(PayoutAttempt.withdrawal_id)
        .where(_is_meant)
        .order_by(_ours_first)
        .limit(1)
        .scalar_subquery()
    )
    .with_for_update()
    .execution_options(populate_existing=True)
)
MEANT = (
    select(PayoutAttempt)
    .where(PayoutAttempt.withdrawal_id == bindparam("withdrawal_id"), _is_meant)
    .order_by(_ours_first)
    .limit(1)
    .execution_options(populate_existing=True)
)


def apply_report(session: Session, report: PayoutReport, channel: str) -> str:
    """Let a report do what it means, all or nothing, in the caller's transaction.

    Returns what it did: an Effect, or `unmatched` when no attempt of ours has this reference or payout id.
    """
    withdrawal, attempt = _locked(session, report)
    if withdrawal is None or attempt is None:
        return "unmatched"
    evidence: dict[str, Any] = {
        "attempt_id": str(attempt.id),
        "payout_id": report.payout_id,
        "provider_status": report.status,
        "details": report.details or None,
    }
    fault = _contradiction(session, withdrawal, attempt, report)
    if fault:
        evidence |= {"amount_paise": report.amount_paise, "reference_id": report.reference_id}
        journey.flag(session, withdrawal, fault, actor=channel, **evidence)
        return "conflict"
    on_word = _is_paid_on_peoples_word(session, withdrawal, attempt)
    effect = meaning(attempt.state, report.outcome, on_peoples_word=on_word)
    if effect == "reverse" and journey.is_blocked(withdrawal):
        effect = "conflict"  # another payout of it may have been paid: people decide whose coins these are
    if effect in ("repeat", "reverse") and _was_paid_otherwise(withdrawal, attempt, report):
        effect = "conflict"
        attempt.utr = attempt.utr or report.utr  # told once
    if effect == "conflict":
        evidence |= {"utr": report.utr}
        journey.flag(session, withdrawal, f"{report.status}_after_{attempt.state}", actor=channel, **evidence)
    elif effect == "follow":
        _follow(session, withdrawal, attempt, report, channel, evidence)
    elif effect in ("pay", "fail", "reverse"):
        _end(session, withdrawal, attempt, report, channel, evidence)
    elif effect == "repeat" and _tells_more(attempt, report):
        _learn(attempt, report)
        if attempt.state == AttemptState.PAID:
            withdrawal.utr = withdrawal.utr or attempt.utr  # the one that people named stays
        journey.note(session, withdrawal, "learnt", actor=channel, **evidence, utr=report.utr)
    return effect


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
    words = REVERSED if withdrawal.status == Status.COMPLETED else in_plain_words(reason)
    journey.move(
        session,
        withdrawal,
        Status.FAILED,
        actor=actor,
        reason=reason or "not_paid",
        failure_reason=words,
        **data,
    )


def seconds_to_next_poll(attempt: PayoutAttempt) -> float:
    """Each look at a payout waits twice as long as the one before, up to a limit."""
    doublings = min(attempt.checks, 20)
    return float(min(settings().poll_seconds * 2**doublings, settings().poll_max_seconds))


def _locked(session: Session, report: PayoutReport) -> tuple[Withdrawal | None, PayoutAttempt | None]:
    """The attempt that the report is about, by our reference first, read under its withdrawal's lock."""
    reference = parse_id(report.reference_id) if report.reference_id else None
    named = {"reference": reference, "payout_id": report.payout_id}
    withdrawal = session.scalar(OWNER_LOCKED, named)
    if withdrawal is None:
        return None, None
    return withdrawal, session.scalars(MEANT, {**named, "withdrawal_id": withdrawal.id}).one()


def _contradiction(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> str | None:
    """Why a report cannot be about the payout that we know; None when it can."""
    if attempt.payout_id is not None and attempt.payout_id != report.payout_id:
        return "two_payouts"
    if report.reference_id and parse_id(report.reference_id) != attempt.id:
        return "reference_differs"  # it has our payout's id, and says that it is somebody else's
    if report.amount_paise != withdrawal.amount_paise:
        return "wrong_amount"
    utr = report.utr or attempt.utr
    if utr and utr != withdrawal.utr and paid_outside.is_of_another(session, withdrawal, utr):
        return paid_outside.UTR_OF_ANOTHER  # a bank's reference is one payment: whose it is, people find out
    if attempt.payout_id is None:  # else it is this one's, and the database lets nobody else have it
        owner = session.scalar(select(PayoutAttempt.id).where(PayoutAttempt.payout_id == report.payout_id))
        if owner is not None:
            return "payout_of_another"
    return None


def _is_paid_on_peoples_word(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    if withdrawal.status != Status.COMPLETED or attempt.state == AttemptState.PAID:
        return False
    paid = select(PayoutAttempt.id).where(
        PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state == AttemptState.PAID
    )
    return session.scalar(paid) is None


def _was_paid_otherwise(withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """Whether people said that it was paid, and this news is about a payout that they did not mean.

    Then its payment is a second one, and its reversal gives nothing back. They named the UTR.
    """
    if attempt.state != AttemptState.PAID or withdrawal.utr is None:
        return False
    if report.outcome == "reversed":
        return withdrawal.utr != (attempt.utr or report.utr)
    return attempt.utr is None and report.utr not in (None, withdrawal.utr)


def _follow(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    news = attempt.state != AttemptState.ACCEPTED or report.status != attempt.provider_status
    if channel == "webhook" and not news and attempt.status_details == (report.details or None):
        return  # told already: nothing is written, and the next poll stays as planned
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


def _end(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    was_paid = attempt.state == AttemptState.PAID
    _learn(attempt, report)
    if report.outcome == "paid":
        attempt.state = AttemptState.PAID
        attempt.recheck_at = func.now() + timedelta(seconds=min(settings().recheck_seconds))
        # The attempt's, for it may have been told before the end was.
        journey.move(
            session, withdrawal, Status.COMPLETED, actor=channel, reason="paid", utr=attempt.utr, **evidence
        )
        pausing.learn_from_report(session, withdrawal, report)
        return
    attempt.recheck_at = None
    attempt.state = AttemptState.REVERSED if report.outcome == "reversed" else AttemptState.FAILED
    attempt.ended_at = func.now()
    if was_paid:
        fail(session, withdrawal, actor=channel, reason="reversed", **evidence)
        return
    # What somebody stopped is not begun anew, whatever had delayed it before.
    reason = report.status if report.status in STOPPED else report.reason or report.status
    end_or_retry(session, withdrawal, attempt, actor=channel, reason=reason, **evidence)
    pausing.learn_from_report(session, withdrawal, report)


def _tells_more(attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """Whether it fills in what we do not know yet. What differs from what we know is for reconciliation."""
    if report.utr and attempt.utr and report.utr != attempt.utr:
        return False
    pairs = (
        (attempt.utr, report.utr),
        (attempt.fees_paise, report.fees_paise),
        (attempt.tax_paise, report.tax_paise),
    )
    return any(ours is None and theirs is not None for ours, theirs in pairs)


def _learn(attempt: PayoutAttempt, report: PayoutReport) -> None:
    attempt.payout_id = report.payout_id
    attempt.provider_status = report.status
    attempt.status_details = report.details or None
    attempt.utr = report.utr or attempt.utr
    attempt.fees_paise = report.fees_paise if report.fees_paise is not None else attempt.fees_paise
    attempt.tax_paise = report.tax_paise if report.tax_paise is not None else attempt.tax_paise
    attempt.answered_at = func.now()
