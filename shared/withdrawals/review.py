"""Review: a withdrawal that awaits approval is not sent until a person approves it.

The request decides whether it awaits approval; so does a block or a freeze while it waits. Settings that
change later do not. The user can cancel at any time. An approval holds for the facts that were shown, and the
requester cannot give it.
"""

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from shared.db.transactions import now, transaction
from shared.errors import BadRequest, Conflict
from shared.models import Review, Withdrawal, WithdrawalEvent
from shared.people import eligibility
from shared.people.eligibility import Subject
from shared.people.maker_checker import PAGE_ROWS, require_same_facts, required_reason
from shared.queues import messages, soon
from shared.roles import Permission
from shared.settings import settings
from shared.states import Reason, ReviewReason, Status
from shared.withdrawals import blocks, queries, transitions

# Users read these in `admin_notes`.
AWAITING = "Awaiting admin approval"
APPROVED = "Approved by an admin"
NOT_APPROVED = "Your withdrawal was not approved."
REJECTED = "rejected_in_review"
CHECK_SECONDS = 3600  # between two checks of one that awaits approval: only people end that

log = structlog.get_logger()


def approval_needed(coins: int) -> ReviewReason | None:
    """Return why a withdrawal of this many coins needs approval; None if it needs none."""
    if settings().review_all == "on":
        return ReviewReason.EVERY
    above = settings().review_above_coins
    return ReviewReason.AMOUNT if above is not None and coins > above else None


def awaiting_approval(
    session: Session, *, limit: int = PAGE_ROWS, after: queries.Position | None = None
) -> Sequence[Withdrawal]:
    """Return withdrawals that await approval, oldest first; `after` (created_at, id) continues after one."""
    query = select(Withdrawal).where(
        Withdrawal.status == Status.PENDING, Withdrawal.awaits_approval.is_not(None)
    )
    if after is not None:
        query = query.where(tuple_(Withdrawal.created_at, Withdrawal.id) > after)
    return session.scalars(query.order_by(Withdrawal.created_at, Withdrawal.id).limit(limit)).all()


def count_awaiting(session: Session) -> int:
    """Return the number of withdrawals that await approval."""
    query = select(func.count()).where(
        Withdrawal.status == Status.PENDING, Withdrawal.awaits_approval.is_not(None)
    )
    return session.scalars(query).one()


def facts_hash(session: Session, withdrawal: Withdrawal) -> str:
    """Return a hash of what is approved: the user, amount and payee, and the number of earlier reviews."""
    earlier_reviews = select(func.count()).select_from(Review).where(Review.withdrawal_id == withdrawal.id)
    facts = [
        str(withdrawal.id),
        withdrawal.user_id,
        withdrawal.coins_amount,
        withdrawal.amount_paise,
        withdrawal.upi_id,
        withdrawal.awaits_approval,
        session.scalar(earlier_reviews),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def approve_review(
    withdrawal_id: UUID, *, shown: str, reason: str, actor: str, version: int | None = None
) -> Withdrawal:
    """Approve it: it is paid once the rest of its cancel window or waiting time is over.

    `shown` is the `facts_hash` that the approver saw. Raises NotFound, BadRequest (no reason), Conflict (it
    no longer awaits approval, other facts, the approver is not eligible, blocked or frozen), Stale,
    Unavailable.
    """
    with transaction() as session:
        withdrawal = _lock_awaiting(session, withdrawal_id, shown, reason, version)
        requested_by = _requested_by(session, withdrawal)
        subject = Subject.of_withdrawal(withdrawal, Permission.REVIEW, requested_by)
        actor = eligibility.require_independent(session, actor, subject)
        _require_payable(session, withdrawal)
        _write_review(session, withdrawal, "approved", requested_by, shown, reason, actor)
        why = withdrawal.awaits_approval
        withdrawal.awaits_approval = None
        withdrawal.admin_notes = APPROVED
        seconds = seconds_until_sendable(session, withdrawal)
        is_new_upi_id = seconds > settings().cancel_window_seconds
        waiting_reason = Reason.NEW_UPI_ID if is_new_upi_id else Reason.CANCEL_WINDOW
        transitions.reschedule(withdrawal, waiting_reason, seconds)
        transitions.record(session, withdrawal, "approved", actor=actor, why=why, because=reason.strip())
    log.info("[ADMIN] approved", withdrawal_id=str(withdrawal_id), actor=actor)
    if not is_new_upi_id:
        soon.nudge_soon(messages.SWEEP_SENDS, in_seconds=seconds)
    return withdrawal


def reject_review(
    withdrawal_id: UUID,
    *,
    shown: str,
    reason: str,
    actor: str,
    user_message: str = NOT_APPROVED,
    version: int | None = None,
) -> Withdrawal:
    """Reject it: it fails, and the coins are refunded. `reason` is for the records, `user_message` for the
    user.

    Raises NotFound, BadRequest (no reason, no message), Conflict (it no longer awaits approval, other facts),
    Unavailable.
    """
    if not user_message.strip():
        raise BadRequest("A message is required", "Tell the user why", code="words_required")
    with transaction() as session:
        withdrawal = _lock_awaiting(session, withdrawal_id, shown, reason, version)
        requested_by = _requested_by(session, withdrawal)
        actor = eligibility.require_permission(session, actor, Permission.REVIEW)
        _write_review(session, withdrawal, "rejected", requested_by, shown, reason, actor)
        withdrawal.admin_notes = f"Rejected: {user_message.strip()}"
        transitions.transition(
            session,
            withdrawal,
            Status.FAILED,
            actor=actor,
            reason=REJECTED,
            failure_reason=user_message.strip(),
            why=withdrawal.awaits_approval,
            because=reason.strip(),
        )
    log.info("[ADMIN] rejected", withdrawal_id=str(withdrawal_id), actor=actor)
    return withdrawal


def await_approval(session: Session, withdrawal: Withdrawal, why: ReviewReason | None) -> None:
    """Make a withdrawal that was not sent yet wait for approval; one that waits already keeps waiting."""
    if withdrawal.awaits_approval is None:
        assert why, "a new review has a reason"
        withdrawal.awaits_approval = why
        withdrawal.admin_notes = AWAITING
        transitions.record(session, withdrawal, "awaits_approval", actor="worker", awaits_approval=why)
    transitions.reschedule(withdrawal, Reason.AWAITING_REVIEW, CHECK_SECONDS)


def seconds_until_sendable(session: Session, withdrawal: Withdrawal) -> float:
    """Return how many seconds it must still wait before it may be sent."""
    if withdrawal.not_before is None:
        return 0.0
    return max(0.0, (withdrawal.not_before - now(session)).total_seconds())


def _lock_awaiting(
    session: Session, withdrawal_id: UUID, shown: str, reason: str, version: int | None
) -> Withdrawal:
    """Lock the withdrawal if it awaits approval with these facts."""
    required_reason(reason)
    withdrawal = queries.find(session, withdrawal_id, lock=True, version=version)
    if withdrawal.status != Status.PENDING or withdrawal.awaits_approval is None:
        state = "already approved" if withdrawal.status == Status.PENDING else withdrawal.status
        raise Conflict("No longer needs approval", f"It is {state}", code="not_awaiting_approval")
    require_same_facts(shown, facts_hash(session, withdrawal), code="stale_review")
    return withdrawal


def _requested_by(session: Session, withdrawal: Withdrawal) -> str:
    first_actor = select(WithdrawalEvent.actor).where(WithdrawalEvent.withdrawal_id == withdrawal.id)
    return session.scalars(first_actor.order_by(WithdrawalEvent.id).limit(1)).one()


def _require_payable(session: Session, withdrawal: Withdrawal) -> None:
    if blocks.is_frozen(session, withdrawal.user_id):
        raise Conflict("The wallet is frozen", "Unfreeze it first, or reject", code="wallet_frozen")
    if blocks.is_blocked(session, withdrawal.upi_id):
        raise Conflict("The UPI id is blocked", "Remove the block first, or reject", code="upi_blocked")


def _write_review(
    session: Session,
    withdrawal: Withdrawal,
    outcome: str,
    requested_by: str,
    shown: str,
    reason: str,
    actor: str,
) -> None:
    assert withdrawal.awaits_approval, "only a withdrawal that awaits approval is reviewed"
    row = Review(
        withdrawal_id=withdrawal.id,
        why=withdrawal.awaits_approval,
        facts=shown,
        coins_amount=withdrawal.coins_amount,
        upi_id=withdrawal.upi_id,
        requested_by=requested_by,
        outcome=outcome,
        reason=reason.strip(),
        decided_by=actor,
    )
    session.add(row)
    session.flush()  # before the withdrawal changes: the database requires the review first
