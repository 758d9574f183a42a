"""Corrections: coins that were refunded although the rupees arrived too. Two operators take them back.

It happens when the provider reports "paid" after it had reported, or shown for an hour, that nothing was
paid. The withdrawal stays final; its coins move by an adjustment that names it. Operators can also give them
back again. The database lets the adjustments of a withdrawal sum only to zero, or to all of its coins taken
back.
"""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.coins import wallet
from shared.db.transactions import now
from shared.errors import BadRequest
from shared.models import Adjustment, PayoutAttempt, Resolution, Withdrawal
from shared.providers.answers import ALIVE
from shared.states import Decision, Status
from shared.withdrawals import transitions
from shared.withdrawals.report_meaning import contradiction

CORRECTIONS: Final = frozenset({Decision.TAKE_BACK, Decision.GIVE_BACK})
# The user's failure reason after a correction.
TAKEN_BACK = "The payment reached you after all, so its coins were taken from your balance."
GIVEN_BACK = "The payment did not stay with you. Your coins are back."


def is_taken_back(session: Session, withdrawal: Withdrawal) -> bool:
    """True if operators took its coins back after the refund."""
    adjusted_coins = select(func.coalesce(func.sum(Adjustment.coins), 0)).where(
        Adjustment.withdrawal_id == withdrawal.id
    )
    return session.scalars(adjusted_coins).one() < 0


def has_live_payout(session: Session, withdrawal: Withdrawal) -> bool:
    """True if the provider last reported that a payout of it lives, or was paid, after it had ended here."""
    attempts = select(PayoutAttempt.state, PayoutAttempt.provider_status).where(
        PayoutAttempt.withdrawal_id == withdrawal.id
    )
    return any(contradiction(state, status) in ALIVE for state, status in session.execute(attempts))


def require_possible(session: Session, withdrawal: Withdrawal, decision: Decision) -> None:
    """Refuse a correction that is not possible now. Raises BadRequest, NotFound."""
    if decision == Decision.GIVE_BACK:
        _require_give_back_possible(session, withdrawal)
        return
    if withdrawal.status != Status.FAILED:
        raise BadRequest("Its coins were not refunded", f"It is {withdrawal.status}", code="not_refunded")
    if is_taken_back(session, withdrawal):
        raise BadRequest("Already taken back", "Its coins were taken back", code="taken_back_already")
    if not transitions.was_contradicted(session, withdrawal):
        raise BadRequest(
            "There is no evidence that it was paid",
            "Coins can be taken back only after a report contradicted the failure",
            code="not_contradicted",
        )
    if not has_live_payout(
        session, withdrawal
    ) and transitions.CONTRADICTION_INFIX in transitions.last_hold_reason(session, withdrawal):
        raise BadRequest(
            "It was not paid in the end",
            "RazorpayX last reported that its payout was not paid",
            code="not_paid",
        )
    wallet.require_balance(wallet.find(session, withdrawal.user_id), -withdrawal.coins_amount)


def carry_out(session: Session, withdrawal: Withdrawal, resolution: Resolution, actor: str) -> None:
    """Move the coins by an adjustment that names the withdrawal and the resolution, which is approved."""
    takes_back = resolution.decision == Decision.TAKE_BACK
    correction = Adjustment(
        kind="adjustment",
        user_id=withdrawal.user_id,
        coins=-withdrawal.coins_amount if takes_back else withdrawal.coins_amount,
        reason=resolution.evidence,
        needs_two=True,
        proposed_by=resolution.proposed_by,
        proposed_at=resolution.proposed_at,
        decided_by=actor,
        decided_at=func.now(),
        outcome="approved",
        withdrawal_id=withdrawal.id,
        resolution_id=resolution.id,
    )
    session.add(correction)
    session.flush()
    balance = wallet.adjust(session, correction, actor)
    withdrawal.failure_reason = TAKEN_BACK if takes_back else GIVEN_BACK
    withdrawal.updated_at = now(session)
    transitions.record(
        session,
        withdrawal,
        f"resolved:{resolution.decision}",
        actor=actor,
        resolution=str(resolution.id),
        proposed_by=resolution.proposed_by,
        evidence=resolution.evidence,
        adjustment=str(correction.id),
        coins=correction.coins,
        balance_coins=balance,
    )


def _require_give_back_possible(session: Session, withdrawal: Withdrawal) -> None:
    if not is_taken_back(session, withdrawal):
        raise BadRequest("Nothing to give back", "Its coins were not taken back", code="not_taken_back")
    if has_live_payout(session, withdrawal):
        raise BadRequest(
            "It may still be paid",
            "RazorpayX last reported that the payment arrived or is on its way",
            code="may_be_paid",
        )
