"""What one operator may do alone, for it moves neither coins nor rupees: note, try now, ask now."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import queues
from shared.db import transaction
from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Withdrawal
from shared.states import FINAL, UNSETTLED, AttemptState, Reason, Status
from shared.withdrawals import journey, reading

# While it waits for one of these, a worker has it in hand, or it is still the user's to take back.
IN_HAND = (Reason.CANCEL_WINDOW, Reason.NEW_UPI_ID, Reason.PREPARING, Reason.SENDING)


def add_note(withdrawal_id: UUID, words: str, *, actor: str, version: int | None = None) -> Withdrawal:
    """Write something into its story, for operators only. Raises NotFound, BadRequest, Stale, Unavailable."""
    if not words.strip():
        raise BadRequest("A note is required", "Say what you want to be known", code="note_required")
    with transaction() as session:
        withdrawal = reading.find(session, withdrawal_id, lock=True, version=version)
        withdrawal.updated_at = func.now()
        journey.note(session, withdrawal, "noted", actor=actor, note=words.strip())
        return withdrawal


def retry_now(withdrawal_id: UUID, *, reason: str, actor: str, version: int | None = None) -> Withdrawal:
    """Make due now what waits for its time, with the same key where there is one.

    Raises NotFound, Conflict (final, blocked, in a worker's or the user's hands), Stale, Unavailable.
    """
    with transaction() as session:
        withdrawal = reading.find(session, withdrawal_id, lock=True, version=version)
        if (why_not := cannot_retry(session, withdrawal)) is not None:
            raise Conflict("It cannot be tried now", why_not, code="cannot_retry")
        _due_now(session, withdrawal, "retry_now", reason, actor)
    queues.nudge_sweep(in_seconds=0)
    return withdrawal


def ask_now(withdrawal_id: UUID, *, reason: str, actor: str, version: int | None = None) -> Withdrawal:
    """Ask the provider now what became of its payout: by a look-up, or with the same key and bytes once more.

    Raises NotFound, Conflict (there is nothing to ask for, a worker has it), Stale, Unavailable.
    """
    with transaction() as session:
        withdrawal = reading.find(session, withdrawal_id, lock=True, version=version)
        if (why_not := cannot_ask(session, withdrawal)) is not None:
            raise Conflict("There is nothing to ask now", why_not, code="cannot_ask")
        if withdrawal.status == Status.COMPLETED:
            attempt = _attempt(session, withdrawal, AttemptState.PAID)
            assert attempt is not None, "it can be asked for"
            attempt.recheck_at = func.now()
            withdrawal.updated_at = func.now()
            journey.note(session, withdrawal, "ask_now", actor=actor, why=reason)
        else:
            _due_now(session, withdrawal, "ask_now", reason, actor)
    queues.nudge_sweep(in_seconds=0)
    return withdrawal


def cannot_retry(session: Session, withdrawal: Withdrawal) -> str | None:
    """Why it cannot be made due now, in words; None when it can."""
    if withdrawal.status in FINAL:
        return f"It is {withdrawal.status}"
    if journey.is_blocked(withdrawal):
        return "It contradicts itself; people must decide first"
    if withdrawal.awaits_approval is not None:
        return "It awaits approval; approve or reject it"
    if _is_in_hand(session, withdrawal):
        return "It is in hand; wait until then"
    attempt = _attempt(session, withdrawal, *UNSETTLED)
    if attempt is not None and attempt.state != AttemptState.THROTTLED:
        return "A payout is under way; ask the provider instead"
    return None


def cannot_ask(session: Session, withdrawal: Withdrawal) -> str | None:
    """Why the provider cannot be asked, in words; None when it can."""
    if withdrawal.status == Status.COMPLETED:
        return None if _attempt(session, withdrawal, AttemptState.PAID) else "It was paid by another way"
    if _attempt(session, withdrawal, *UNSETTLED) is None:
        return "No payout is under way"
    if _is_in_hand(session, withdrawal):
        return "A worker has it in hand; wait until then"
    return None


def number_of_attempts(session: Session, withdrawal: Withdrawal) -> int:
    """How many attempts were made for it so far."""
    theirs = select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalars(theirs.select_from(PayoutAttempt)).one()


def _due_now(session: Session, withdrawal: Withdrawal, what: str, reason: str, actor: str) -> None:
    assert withdrawal.status_reason, "what is not final waits for a reason"
    journey.wait(withdrawal, Reason(withdrawal.status_reason), 0)
    journey.note(session, withdrawal, what, actor=actor, why=reason)


def _is_in_hand(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether somebody acts on it now: a worker with a lease that runs, or the user in the cancel window."""
    if _attempt(session, withdrawal, AttemptState.SENDING) is not None:
        return True
    runs = session.scalar(select(Withdrawal.due_at > func.now()).where(Withdrawal.id == withdrawal.id))
    return bool(runs) and withdrawal.status_reason in IN_HAND


def _attempt(session: Session, withdrawal: Withdrawal, *states: AttemptState) -> PayoutAttempt | None:
    """Its attempt in one of these states: of the live ones there is one at most."""
    theirs = select(PayoutAttempt).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalar(theirs.where(PayoutAttempt.state.in_(states)))
