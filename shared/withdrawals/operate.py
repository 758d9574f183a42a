"""What one operator may do alone, because it moves no money: add a note, retry now, query now."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.transactions import now, transaction
from shared.errors import BadRequest, Conflict
from shared.models import PayoutAttempt, Withdrawal
from shared.queues import messages, soon
from shared.states import FINAL, UNSETTLED, AttemptState, Reason, Status
from shared.withdrawals import queries, transitions

# For these reasons a worker holds a lease on it, or the user can still cancel it.
IN_PROGRESS = (Reason.CANCEL_WINDOW, Reason.NEW_UPI_ID, Reason.PREPARING, Reason.SENDING)


def add_note(withdrawal_id: UUID, note: str, *, actor: str, version: int | None = None) -> Withdrawal:
    """Add a note to its timeline, for operators only. Raises NotFound, BadRequest, Stale, Unavailable."""
    if not note.strip():
        raise BadRequest("A note is required", "Enter a note", code="note_required")
    with transaction() as session:
        withdrawal = queries.find(session, withdrawal_id, lock=True, version=version)
        withdrawal.updated_at = now(session)
        transitions.record(session, withdrawal, "noted", actor=actor, note=note.strip())
        return withdrawal


def retry_now(withdrawal_id: UUID, *, reason: str, actor: str, version: int | None = None) -> Withdrawal:
    """Make a waiting withdrawal due now. An attempt that exists keeps its key.

    Raises NotFound, Conflict (see `why_not_retry`), Stale, Unavailable.
    """
    with transaction() as session:
        withdrawal = queries.find(session, withdrawal_id, lock=True, version=version)
        if (why_not := why_not_retry(session, withdrawal)) is not None:
            raise Conflict("It cannot be retried now", why_not, code="cannot_retry")
        _make_due_now(session, withdrawal, "retry_now", reason, actor)
    soon.nudge_soon(messages.SWEEP)
    return withdrawal


def query_now(withdrawal_id: UUID, *, reason: str, actor: str, version: int | None = None) -> Withdrawal:
    """Query the provider about its payout now: by a look-up, a poll, or a resend of the same key and bytes.

    Raises NotFound, Conflict (see `why_not_query`), Stale, Unavailable.
    """
    with transaction() as session:
        withdrawal = queries.find(session, withdrawal_id, lock=True, version=version)
        if (why_not := why_not_query(session, withdrawal)) is not None:
            raise Conflict("There is nothing to query now", why_not, code="cannot_ask")
        if withdrawal.status == Status.COMPLETED:
            attempt = _find_attempt(session, withdrawal, AttemptState.PAID)
            assert attempt is not None, "`why_not_query` found it"
            attempt.recheck_at = now(session)
            withdrawal.updated_at = now(session)
            transitions.record(session, withdrawal, "ask_now", actor=actor, why=reason)
        else:
            _make_due_now(session, withdrawal, "ask_now", reason, actor)
    soon.nudge_soon(messages.SWEEP)
    return withdrawal


def why_not_retry(session: Session, withdrawal: Withdrawal) -> str | None:
    """Return why it cannot be retried now, as a sentence; None if it can."""
    if withdrawal.status in FINAL:
        return f"It is {withdrawal.status}"
    if transitions.is_on_hold(withdrawal):
        return "It is on hold: two operators must decide first"
    if withdrawal.awaits_approval is not None:
        return "It awaits approval: approve or reject it"
    if _is_in_progress(session, withdrawal):
        return "A worker holds it, or the user can still cancel it. Wait until that is over"
    attempt = _find_attempt(session, withdrawal, *UNSETTLED)
    if attempt is not None and attempt.state != AttemptState.THROTTLED:
        return "A payout is under way. Query RazorpayX instead"
    return None


def why_not_query(session: Session, withdrawal: Withdrawal) -> str | None:
    """Return why the provider cannot be queried now, as a sentence; None if it can."""
    if withdrawal.status == Status.COMPLETED:
        is_ours = _find_attempt(session, withdrawal, AttemptState.PAID)
        return None if is_ours else "It was not paid through RazorpayX"
    if _find_attempt(session, withdrawal, *UNSETTLED) is None:
        return "No payout is under way"
    if _is_in_progress(session, withdrawal):
        return "A worker holds it. Wait until it has finished"
    return None


def count_attempts(session: Session, withdrawal: Withdrawal) -> int:
    """Return the number of its attempts so far."""
    count = select(func.count()).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalars(count.select_from(PayoutAttempt)).one()


def _make_due_now(session: Session, withdrawal: Withdrawal, event: str, reason: str, actor: str) -> None:
    assert withdrawal.status_reason, "a withdrawal that is not final has a reason why it waits"
    transitions.reschedule(withdrawal, Reason(withdrawal.status_reason), 0)
    transitions.record(session, withdrawal, event, actor=actor, why=reason)


def _is_in_progress(session: Session, withdrawal: Withdrawal) -> bool:
    """True if a worker's lease has not expired, or the user's cancel window has not closed."""
    if _find_attempt(session, withdrawal, AttemptState.SENDING) is not None:
        return True
    is_due = withdrawal.due_at is None or withdrawal.due_at <= now(session)
    return not is_due and withdrawal.status_reason in IN_PROGRESS


def _find_attempt(session: Session, withdrawal: Withdrawal, *states: AttemptState) -> PayoutAttempt | None:
    """Return its attempt in one of these states; at most one attempt is live."""
    attempt = select(PayoutAttempt).where(PayoutAttempt.withdrawal_id == withdrawal.id)
    return session.scalar(attempt.where(PayoutAttempt.state.in_(states)))
