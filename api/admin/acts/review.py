"""The word on a withdrawal that awaits approval."""

from uuid import UUID

from api.admin.acts.base import WHY, Act, Given, Seen
from shared import withdrawals
from shared.db import transaction
from shared.money import rupees_text
from shared.roles import Permission
from shared.states import Status
from shared.withdrawals import reviewing


def _cannot_review(seen: Seen) -> str | None:
    is_waiting = seen.withdrawal.status == Status.PENDING and seen.withdrawal.awaits_approval is not None
    return None if is_waiting else "It awaits no approval"


def _tells_approve_review(seen: Seen) -> list[str]:
    return [
        f"{seen.rupees} is paid to {seen.payee}: this amount to this UPI id, as soon as its time has come.",
        f"It awaits approval because of: {seen.withdrawal.awaits_approval}.",
        "Until it is sent, the user may cancel.",
    ]


def _tells_reject_review(seen: Seen) -> list[str]:
    return [
        f"{seen.rupees} to {seen.payee} is not paid: it fails.",
        f"{seen.withdrawal.coins_amount} coins go back to {seen.withdrawal.user_id} at once.",
        f"The user reads: {reviewing.NOT_APPROVED} Your reason is for operators only.",
    ]


def _shown(withdrawal_id: UUID, version: int) -> str:
    """The facts that were on the page: those of this version of the row. Raises NotFound, Stale."""
    with transaction() as session:
        return reviewing.facts(session, withdrawals.find(session, withdrawal_id, version=version))


def _approve_review(withdrawal_id: UUID, given: Given) -> str:
    shown = _shown(withdrawal_id, given.version)
    done = withdrawals.approve_review(
        withdrawal_id, shown=shown, reason=given.reason, actor=given.actor, version=given.version
    )
    return f"Approved: {rupees_text(done.amount_paise)} is paid when its time has come."


def _reject_review(withdrawal_id: UUID, given: Given) -> str:
    shown = _shown(withdrawal_id, given.version)
    done = withdrawals.reject_review(
        withdrawal_id, shown=shown, reason=given.reason, actor=given.actor, version=given.version
    )
    back = f"{done.coins_amount} coins are back"
    return f"Rejected: {rupees_text(done.amount_paise)} is not paid; {back}."


ACTS = (
    Act(
        "approve-review",
        "Approve",
        WHY,
        _cannot_review,
        _tells_approve_review,
        _approve_review,
        in_bulk=True,
        needs=Permission.REVIEW,
    ),
    Act(
        "reject-review",
        "Reject and refund",
        WHY,
        _cannot_review,
        _tells_reject_review,
        _reject_review,
        in_bulk=True,
        needs=Permission.REVIEW,
    ),
)
