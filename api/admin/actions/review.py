"""Approving or rejecting a withdrawal that needs approval before it is sent."""

from uuid import UUID

from api.admin.actions.base import REASON, Action, ActionContext, ActionInput
from shared import withdrawals
from shared.db.transactions import transaction
from shared.money import grouped, rupees_text
from shared.roles import Permission
from shared.states import Status
from shared.withdrawals import review


def _why_not_review(context: ActionContext) -> str | None:
    withdrawal = context.withdrawal
    is_waiting = withdrawal.status == Status.PENDING and withdrawal.awaits_approval is not None
    return None if is_waiting else "It no longer needs approval"


def _describe_approve(context: ActionContext) -> list[str]:
    return [
        f"{context.rupees} is paid to {context.payee} when it is due.",
        f"Reason for approval: {context.withdrawal.awaits_approval}.",
        "The user can cancel until it is sent.",
    ]


def _describe_reject(context: ActionContext) -> list[str]:
    return [
        f"{context.rupees} is not paid to {context.payee}: the withdrawal fails.",
        f"{context.coins} coins return to {context.withdrawal.user_id} at once.",
        f"The user reads: {review.NOT_APPROVED} Only operators see your reason.",
    ]


def _shown_facts(withdrawal_id: UUID, version: int) -> str:
    """The hash of the facts in this version of the row, which the page showed. Raises NotFound, Stale."""
    with transaction() as session:
        return review.facts_hash(session, withdrawals.find(session, withdrawal_id, version=version))


def _approve(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawal = withdrawals.approve_review(
        withdrawal_id,
        shown=_shown_facts(withdrawal_id, entered.version),
        reason=entered.reason,
        actor=entered.actor,
        version=entered.version,
    )
    return f"Approved. {rupees_text(withdrawal.amount_paise)} is paid when it is due."


def _reject(withdrawal_id: UUID, entered: ActionInput) -> str:
    withdrawal = withdrawals.reject_review(
        withdrawal_id,
        shown=_shown_facts(withdrawal_id, entered.version),
        reason=entered.reason,
        actor=entered.actor,
        version=entered.version,
    )
    coins = grouped(withdrawal.coins_amount)
    return (
        f"Rejected. {rupees_text(withdrawal.amount_paise)} is not paid; {coins} coins are back in the wallet."
    )


ACTIONS = (
    Action(
        "approve-review",
        title="Approve",
        bulk_title="Approve selected",
        prompt=REASON,
        why_not=_why_not_review,
        describe=_describe_approve,
        run=_approve,
        needs=Permission.REVIEW,
    ),
    Action(
        "reject-review",
        title="Reject and refund",
        bulk_title="Reject and refund selected",
        prompt=REASON,
        why_not=_why_not_review,
        describe=_describe_reject,
        run=_reject,
        needs=Permission.REVIEW,
    ),
)
