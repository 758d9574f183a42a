"""The only entry for provider reports on a payout: from a reply, a poll, a look-up or reconciliation.

Reports arrive early, twice, late and out of order. A table maps each to its effect (`report_meaning.py`).
A report that would move money against an end that we already acted on moves nothing and holds the
withdrawal for operators. A webhook is only a hint (`hints.py`): of all effects, it may only complete a
payout that our own call named.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from shared.ids import parse_id
from shared.models import PayoutAttempt, Withdrawal
from shared.providers.answers import ALIVE, PayoutReport
from shared.states import AttemptState, Status
from shared.withdrawals import corrections, effects, paid_outside, transitions
from shared.withdrawals.report_meaning import Effect, contradiction, meaning

# Channels of our own calls, whose answers are evidence. A webhook is not (`hints.py`).
OWN_CALLS = frozenset({"reply", "poll", "lookup", "reconciliation"})

_matches_report = or_(
    PayoutAttempt.id == bindparam("reference"), PayoutAttempt.payout_id == bindparam("payout_id")
)
_by_reference_first = (PayoutAttempt.id == bindparam("reference")).desc().nulls_last()
WITHDRAWAL_LOCKED = (
    select(Withdrawal)
    .where(
        Withdrawal.id
        == select(PayoutAttempt.withdrawal_id)
        .where(_matches_report)
        .order_by(_by_reference_first)
        .limit(1)
        .scalar_subquery()
    )
    .with_for_update()
    .execution_options(populate_existing=True)
)
MATCHING_ATTEMPT = (
    select(PayoutAttempt)
    .where(PayoutAttempt.withdrawal_id == bindparam("withdrawal_id"), _matches_report)
    .order_by(_by_reference_first)
    .limit(1)
    .execution_options(populate_existing=True)
)


@dataclass(frozen=True, slots=True)
class Assessment:
    """A report's effect, and the contradiction that shows it cannot be about the payout that we know."""

    effect: Effect
    contradiction: str | None = None


def apply_report(session: Session, report: PayoutReport, channel: str) -> str:
    """Apply a report from one of our own calls, all or nothing, in the caller's transaction.

    Returns its Effect, or `unmatched` if no attempt has this reference or payout id.
    """
    assert channel in OWN_CALLS, "webhooks enter through hints.py"
    withdrawal, attempt = find_attempt(session, report)
    if withdrawal is None or attempt is None:
        return "unmatched"
    return apply_to_attempt(session, withdrawal, attempt, report, channel)


def assess(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> Assessment:
    """Return the effect that a report has as evidence. Reads only; the caller holds the withdrawal's lock."""
    fault = _mismatch(session, withdrawal, attempt, report)
    if fault:
        return Assessment("conflict", fault)
    effect = meaning(
        attempt.state,
        report.outcome,
        completed_by_people=_is_completed_by_people(session, withdrawal, attempt),
        unconfirmed=attempt.unconfirmed,
        reported_status=attempt.provider_status,
    )
    if effect in ("reverse", "undo") and transitions.is_on_hold(withdrawal):
        effect = "conflict"  # another payout of it may have been paid: operators decide about the coins
    if effect in ("repeat", "reverse") and _is_another_payment(withdrawal, attempt, report):
        effect = "conflict"
    already_reported = contradiction(attempt.state, attempt.provider_status) == report.outcome == "paid"
    if effect == "conflict" and already_reported and corrections.is_taken_back(session, withdrawal):
        effect = "repeat"  # two operators have already taken the coins back for this payout
    return Assessment(effect)


def apply_to_attempt(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport, channel: str
) -> Effect:
    """Apply the report's effect to its attempt and withdrawal."""
    assessment = assess(session, withdrawal, attempt, report)
    evidence: dict[str, Any] = {
        "attempt_id": str(attempt.id),
        "payout_id": report.payout_id,
        "provider_status": report.status,
        "details": report.details or None,
    }
    if assessment.effect == "conflict":
        _hold_conflict(session, withdrawal, attempt, report, assessment.contradiction, channel, evidence)
    elif assessment.effect == "follow":
        effects.follow(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect in ("pay", "fail", "reverse", "undo"):
        effects.end_attempt(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect == "confirm":
        effects.confirm(session, withdrawal, attempt, report, channel, evidence)
    elif assessment.effect == "late" and attempt.unconfirmed:
        effects.open_exception(session, withdrawal, effects.NOT_CONFIRMED, channel, evidence)
    elif assessment.effect == "repeat" and effects.adds_information(attempt, report):
        effects.add_information(session, withdrawal, attempt, report, channel, evidence)
    return assessment.effect


def _hold_conflict(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    fault: str | None,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """Hold the withdrawal for operators; if its coins were refunded and a payout lives, freeze the wallet."""
    if fault:
        evidence |= {"amount_paise": report.amount_paise, "reference_id": report.reference_id}
    else:
        fault = f"{report.status}_after_{attempt.state}"
        evidence |= {"utr": report.utr}
        effects.keep_contradiction(attempt, report)
    transitions.hold(session, withdrawal, fault, actor=channel, **evidence)
    if report.outcome in ALIVE:
        effects.freeze_if_refunded(session, withdrawal)


def find_attempt(session: Session, report: PayoutReport) -> tuple[Withdrawal | None, PayoutAttempt | None]:
    """Return the attempt that the report is about, by our reference first, under its withdrawal's lock."""
    reference = parse_id(report.reference_id) if report.reference_id else None
    ids = {"reference": reference, "payout_id": report.payout_id}
    withdrawal = session.scalar(WITHDRAWAL_LOCKED, ids)
    if withdrawal is None:
        return None, None
    return withdrawal, session.scalars(MATCHING_ATTEMPT, {**ids, "withdrawal_id": withdrawal.id}).one()


def _mismatch(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport
) -> str | None:
    """Return why a report cannot be about the payout that we know; None if it can."""
    if attempt.payout_id is not None and attempt.payout_id != report.payout_id:
        return "two_payouts"
    if report.reference_id and parse_id(report.reference_id) != attempt.id:
        return "reference_differs"  # it has our payout's id under another reference
    if report.amount_paise != withdrawal.amount_paise:
        return "wrong_amount"
    utr = report.utr or attempt.utr
    if utr and utr != withdrawal.utr and paid_outside.is_utr_of_another(session, withdrawal, utr):
        return paid_outside.UTR_OF_ANOTHER  # a UTR names one payment: operators find out which one
    if attempt.payout_id is None:  # otherwise it is this attempt's, and the database keeps it unique
        owner = session.scalar(select(PayoutAttempt.id).where(PayoutAttempt.payout_id == report.payout_id))
        if owner is not None:
            return "payout_of_another"
    return None


def _is_completed_by_people(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> bool:
    if withdrawal.status != Status.COMPLETED or attempt.state == AttemptState.PAID:
        return False
    paid_attempt = select(PayoutAttempt.id).where(
        PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state == AttemptState.PAID
    )
    return session.scalar(paid_attempt) is None


def _is_another_payment(withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> bool:
    """True if operators completed it under one UTR and this report is about a payment under another.

    That payment is then a second one, and its reversal refunds nothing.
    """
    if attempt.state != AttemptState.PAID or withdrawal.utr is None:
        return False
    if report.outcome == "reversed":
        return withdrawal.utr != (attempt.utr or report.utr)
    return attempt.utr is None and report.utr not in (None, withdrawal.utr)
