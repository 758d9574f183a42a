"""Coins that came back although the rupees arrived too: two people take them back, or give them back again.

It happens when RazorpayX says "paid" after it had said, or shown for an hour, that nothing was. The
withdrawal has ended and stays ended; its coins move by an adjustment that is tied to it. The database lets
the adjustments of one withdrawal sum to nothing, or to all of its coins taken, and to no other number.
"""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import wallet
from shared.errors import BadRequest
from shared.models import Adjustment, PayoutAttempt, Resolution, Withdrawal
from shared.razorpayx.answers import ALIVE
from shared.states import Decision, Status
from shared.withdrawals import journey
from shared.withdrawals.meaning import contradiction

CORRECTIONS: Final = frozenset({Decision.TAKE_BACK, Decision.GIVE_BACK})
# What the user reads of a failed withdrawal afterwards.
TAKEN_BACK = "The payment reached you after all, so its coins were taken from your balance."
GIVEN_BACK = "The payment did not stay with you. Your coins are back."


def is_taken_back(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether people took its coins again after they had come back."""
    taken = select(func.coalesce(func.sum(Adjustment.coins), 0)).where(
        Adjustment.withdrawal_id == withdrawal.id
    )
    return session.scalars(taken).one() < 0


def lives(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether a payout of it lives, or was paid, by RazorpayX's last word, after it had ended here."""
    ends = select(PayoutAttempt.state, PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id
    )
    return any(contradiction(state, status) in ALIVE for state, status in session.execute(ends))


def must_be_possible(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Whether its coins can be taken back, or given back, as things stand. Raises BadRequest, NotFound."""
    if decision == Decision.GIVE_BACK:
        _must_be_due(session, withdrawal)
        return
    if withdrawal.status != Status.FAILED:
        raise BadRequest("Its coins are not back", f"It is {withdrawal.status}", code="not_refunded")
    if is_taken_back(session, withdrawal):
        raise BadRequest("Taken back already", "Its coins were taken back", code="taken_back_already")
    if not journey.was_contradicted(session, withdrawal):
        raise BadRequest(
            "Nothing says that it was paid",
            "Its coins are taken back only after something contradicted its end",
            code="not_contradicted",
        )
    if not lives(session, withdrawal) and journey.CONTRADICTS in journey.last_call(session, withdrawal):
        raise BadRequest(
            "It was not paid in the end", "RazorpayX's last word of its payout is no payment", code="not_paid"
        )
    wallet.must_hold(wallet.find(session, withdrawal.user_id), -withdrawal.coins_amount)


def carry_out(session: Session, withdrawal: Withdrawal, made: Resolution, actor: str) -> None:
    """Move the coins by an adjustment that names the withdrawal and the decision. The caller decided it."""
    takes = made.decision == Decision.TAKE_BACK
    correction = Adjustment(
        kind="adjustment",
        user_id=withdrawal.user_id,
        coins=-withdrawal.coins_amount if takes else withdrawal.coins_amount,
        reason=made.evidence,
        needs_two=True,
        proposed_by=made.proposed_by,
        proposed_at=made.proposed_at,
        decided_by=actor,
        decided_at=func.now(),
        outcome="approved",
        withdrawal_id=withdrawal.id,
        resolution_id=made.id,
    )
    session.add(correction)
    session.flush()
    balance = wallet.adjust(session, correction, actor)
    withdrawal.failure_reason = TAKEN_BACK if takes else GIVEN_BACK
    withdrawal.updated_at = func.now()
    journey.note(
        session,
        withdrawal,
        f"resolved:{made.decision}",
        actor=actor,
        resolution=str(made.id),
        proposed_by=made.proposed_by,
        evidence=made.evidence,
        adjustment=str(correction.id),
        coins=correction.coins,
        balance_coins=balance,
    )


def _must_be_due(session: Session, withdrawal: Withdrawal) -> None:
    if not is_taken_back(session, withdrawal):
        raise BadRequest("Nothing to give back", "Its coins were not taken back", code="not_taken_back")
    if lives(session, withdrawal):
        raise BadRequest(
            "It may still be paid",
            "RazorpayX's last word is that the payment arrived, or is on its way",
            code="may_be_paid",
        )
