"""The one door for what RazorpayX says of a payout: a reply, a poll, a look-up, reconciliation.

Reports come early, twice, late and out of order. What each does is a table (`meaning.py`); one that would
move money against an end that we already acted on moves nothing and calls a person. What a webhook says is a
hint (`hinting.py`): of all that it could do here it may only complete a payout that our own call named.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from shared.ids import parse_id
from shared.models import PayoutAttempt, Withdrawal
from shared.razorpayx.answers import ALIVE, PayoutReport
from shared.states import AttemptState, Status
from shared.withdrawals import correcting, effects, journey, paid_outside
from shared.withdrawals.meaning import Effect, contradiction, meaning

# Our own calls, whose answers are the provider's word. A webhook's is worth less (`hinting.py`).
OWN_CALLS = frozenset({"reply", "poll", "lookup", "reconciliation"})

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


@dataclass(frozen=True, slots=True)
class Judged:
    """What a report does, and the contradiction in it when it cannot be about the payout that we know."""

    effect: Effect
    fault: str | None = None


def apply_report(session: Session, report: PayoutReport, channel: str) -> str:
    """Let the answer of a call of ours do what it means, all or nothing, in the caller's transaction.

    Returns what it did: an Effect, or `unmatched` when no attempt of ours has this reference or payout id.
    """
    assert channel in OWN_CALLS, "a webhook comes in through hinting.py"
    withdrawal, attempt = find(session, report)
    if withdrawal is None or attempt is None:
        return "unmatched"
    return act(session, withdrawal, attempt, report, channel)


def judge(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport) -> Judged:
    """What a report does as the provider's word. Reads only; the caller holds the withdrawal's lock."""
    fault = _contradiction(session, withdrawal, attempt, report)
    if fault:
        return Judged("conflict", fault)
    effect = meaning(
        attempt.state,
        report.outcome,
        on_peoples_word=_is_paid_on_peoples_word(session, withdrawal, attempt),
        unconfirmed=attempt.unconfirmed,
        told=attempt.provider_status,
    )
    if effect in ("reverse", "undo") and journey.is_blocked(withdrawal):
        effect = "conflict"  # another payout of it may have been paid: people decide whose coins these are
    if effect in ("repeat", "reverse") and _was_paid_otherwise(withdrawal, attempt, report):
        effect = "conflict"
    is_told = contradiction(attempt.state, attempt.provider_status) == report.outcome == "paid"
    if effect == "conflict" and is_told and correcting.is_taken_back(session, withdrawal):
        effect = "repeat"  # told of this very payout already, and two people took the coins back for it
    return Judged(effect)


def act(
    session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt, report: PayoutReport, channel: str
) -> Effect:
    """Do what the report means."""
    judged = judge(session, withdrawal, attempt, report)
    evidence: dict[str, Any] = {
        "attempt_id": str(attempt.id),
        "payout_id": report.payout_id,
        "provider_status": report.status,
        "details": report.details or None,
    }
    if judged.effect == "conflict":
        _call_people(session, withdrawal, attempt, report, judged.fault, channel, evidence)
    elif judged.effect == "follow":
        effects.follow(session, withdrawal, attempt, report, channel, evidence)
    elif judged.effect in ("pay", "fail", "reverse", "undo"):
        effects.end(session, withdrawal, attempt, report, channel, evidence)
    elif judged.effect == "confirm":
        effects.confirm(session, withdrawal, attempt, report, channel, evidence)
    elif judged.effect == "late" and attempt.unconfirmed:
        effects.call_a_person(session, withdrawal, effects.NOT_CONFIRMED, channel, evidence)
    elif judged.effect == "repeat" and effects.tells_more(attempt, report):
        effects.learn_more(session, withdrawal, attempt, report, channel, evidence)
    return judged.effect


def _call_people(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt,
    report: PayoutReport,
    fault: str | None,
    channel: str,
    evidence: dict[str, Any],
) -> None:
    """What contradicts itself moves nothing, and neither do the coins of a user who has them back already."""
    if fault:
        evidence |= {"amount_paise": report.amount_paise, "reference_id": report.reference_id}
    else:
        fault = f"{report.status}_after_{attempt.state}"
        evidence |= {"utr": report.utr}
        effects.hold_against(attempt, report)
    journey.flag(session, withdrawal, fault, actor=channel, **evidence)
    if report.outcome in ALIVE:
        effects.freeze_if_refunded(session, withdrawal)


def find(session: Session, report: PayoutReport) -> tuple[Withdrawal | None, PayoutAttempt | None]:
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
