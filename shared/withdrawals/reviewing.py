"""Review: a withdrawal that awaits a person's approval is not sent until one has said yes to just that.

Whether it awaits one is written into its row when it is asked for, or when its payee is blocked or its user's
wallet is frozen while it waits; what the settings say later changes nothing of it. It can be cancelled all
the time. An approval is bound to the facts that were shown, and is never the requester's own.
"""

import hashlib
import json
from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from shared import blocks, maker_checker, queues
from shared.db import transaction
from shared.errors import BadRequest, Conflict
from shared.maker_checker import Matter
from shared.models import Review, Withdrawal, WithdrawalEvent
from shared.roles import Permission
from shared.settings import settings
from shared.states import Awaits, Reason, Status
from shared.withdrawals import journey, reading

# What users read in `admin_notes`.
AWAITING, APPROVED = "Awaiting admin approval", "Approved by an admin"
NOT_APPROVED = "Your withdrawal was not approved."
REJECTED = "rejected_in_review"
# How often the system looks at one that awaits approval. Only people end that.
LOOK_SECONDS = 3600

log = structlog.get_logger()


def needed(coins: int) -> Awaits | None:
    """Why a withdrawal of so many coins awaits approval; None when it needs none."""
    if settings().review_all == "on":
        return Awaits.EVERY
    above = settings().review_above_coins
    return Awaits.AMOUNT if above is not None and coins > above else None


def waiting(
    session: Session, *, limit: int = 200, after: reading.Position | None = None
) -> Sequence[Withdrawal]:
    """What awaits approval, oldest first; `after` (created_at, id) goes on behind one."""
    query = select(Withdrawal).where(
        Withdrawal.status == Status.PENDING, Withdrawal.awaits_approval.is_not(None)
    )
    if after is not None:
        query = query.where(tuple_(Withdrawal.created_at, Withdrawal.id) > after)
    return session.scalars(query.order_by(Withdrawal.created_at, Withdrawal.id).limit(limit)).all()


def number_waiting(session: Session) -> int:
    """How many await approval."""
    waits = select(func.count()).where(
        Withdrawal.status == Status.PENDING, Withdrawal.awaits_approval.is_not(None)
    )
    return session.scalars(waits).one()


def facts(session: Session, withdrawal: Withdrawal) -> str:
    """A hash of what an approval is about: whose, how much, to whom, and which time it is asked for."""
    before = select(func.count()).select_from(Review).where(Review.withdrawal_id == withdrawal.id)
    about = [
        str(withdrawal.id),
        withdrawal.user_id,
        withdrawal.coins_amount,
        withdrawal.amount_paise,
        withdrawal.upi_id,
        withdrawal.awaits_approval,
        session.scalar(before),
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def approve_review(
    withdrawal_id: UUID, *, shown: str, reason: str, actor: str, version: int | None = None
) -> Withdrawal:
    """Let it be paid: at once, or after what is left of its cancel window and its wait.

    `shown` are the `facts` that the approver saw. Raises NotFound, BadRequest (no reason), Conflict (it
    awaits no approval any more, other facts, who may not: maker_checker.py, blocked or frozen), Stale,
    Unavailable.
    """
    with transaction() as session:
        withdrawal = _awaiting(session, withdrawal_id, shown, reason, version)
        requested_by = _requested_by(session, withdrawal)
        matter = Matter.of(withdrawal, Permission.REVIEW, requested_by)
        actor = maker_checker.must_be_independent(session, actor, matter)
        _must_be_payable(session, withdrawal)
        _write(session, withdrawal, "approved", requested_by, shown, reason, actor)
        why, withdrawal.awaits_approval = withdrawal.awaits_approval, None
        withdrawal.admin_notes = APPROVED
        seconds = seconds_left(session, withdrawal)
        is_new = seconds > settings().cancel_window_seconds
        journey.wait(withdrawal, Reason.NEW_UPI_ID if is_new else Reason.CANCEL_WINDOW, seconds)
        journey.note(session, withdrawal, "approved", actor=actor, why=why, because=reason.strip())
    log.info("[ADMIN] approved", withdrawal_id=str(withdrawal_id), actor=actor)
    if not is_new:
        queues.nudge_sweep(in_seconds=seconds)
    return withdrawal


def reject_review(
    withdrawal_id: UUID,
    *,
    shown: str,
    reason: str,
    actor: str,
    words: str = NOT_APPROVED,
    version: int | None = None,
) -> Withdrawal:
    """Do not pay it: it fails, and the coins go back. `reason` is for the books, `words` for the user.

    Raises NotFound, BadRequest (no reason, no words), Conflict (it awaits no approval any more, other facts),
    Unavailable.
    """
    if not words.strip():
        raise BadRequest("Words are required", "Say to the user why", code="words_required")
    with transaction() as session:
        withdrawal = _awaiting(session, withdrawal_id, shown, reason, version)
        requested_by = _requested_by(session, withdrawal)
        actor = maker_checker.must_hold(session, actor, Permission.REVIEW)
        _write(session, withdrawal, "rejected", requested_by, shown, reason, actor)
        withdrawal.admin_notes = f"Rejected: {words.strip()}"
        journey.move(
            session,
            withdrawal,
            Status.FAILED,
            actor=actor,
            reason=REJECTED,
            failure_reason=words.strip(),
            why=withdrawal.awaits_approval,
            because=reason.strip(),
        )
    log.info("[ADMIN] rejected", withdrawal_id=str(withdrawal_id), actor=actor)
    return withdrawal


def await_approval(session: Session, withdrawal: Withdrawal, why: Awaits | None) -> None:
    """Hold a withdrawal of which nothing was sent yet, for a person; one that is held already waits on."""
    if withdrawal.awaits_approval is None:
        assert why, "what is held anew is held for something"
        withdrawal.awaits_approval = why
        withdrawal.admin_notes = AWAITING
        journey.note(session, withdrawal, "awaits_approval", actor="worker", awaits_approval=why)
    journey.wait(withdrawal, Reason.AWAITING_REVIEW, LOOK_SECONDS)


def seconds_left(session: Session, withdrawal: Withdrawal) -> float:
    """How long it must still wait before anything may be sent."""
    if withdrawal.not_before is None:
        return 0.0
    left = session.scalar(select(func.extract("epoch", withdrawal.not_before - func.now())))
    return max(0.0, float(left or 0))


def _awaiting(
    session: Session, withdrawal_id: UUID, shown: str, reason: str, version: int | None
) -> Withdrawal:
    """The withdrawal, locked, if it awaits approval with just these facts."""
    if not reason.strip():
        raise BadRequest("A reason is required", "Say why", code="reason_required")
    withdrawal = reading.find(session, withdrawal_id, lock=True, version=version)
    if withdrawal.status != Status.PENDING or withdrawal.awaits_approval is None:
        stands = "approved already" if withdrawal.status == Status.PENDING else withdrawal.status
        raise Conflict("It awaits no approval", f"It is {stands}", code="not_awaiting_approval")
    if facts(session, withdrawal) != shown:
        raise Conflict("Something has changed", "Look again, then decide", code="stale_review")
    return withdrawal


def _requested_by(session: Session, withdrawal: Withdrawal) -> str:
    first = select(WithdrawalEvent.actor).where(WithdrawalEvent.withdrawal_id == withdrawal.id)
    return session.scalars(first.order_by(WithdrawalEvent.id).limit(1)).one()


def _must_be_payable(session: Session, withdrawal: Withdrawal) -> None:
    if blocks.is_frozen(session, withdrawal.user_id):
        raise Conflict("The wallet is frozen", "Unfreeze it first, or reject", code="wallet_frozen")
    if blocks.is_blocked(session, withdrawal.upi_id):
        raise Conflict("The UPI id is blocked", "Remove the block first, or reject", code="upi_blocked")


def _write(
    session: Session,
    withdrawal: Withdrawal,
    outcome: str,
    requested_by: str,
    shown: str,
    reason: str,
    actor: str,
) -> None:
    assert withdrawal.awaits_approval, "only what awaits approval is decided on"
    made = Review(
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
    session.add(made)
    session.flush()  # before the row says so: the database asks for it
