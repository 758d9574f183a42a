"""Resolutions: two operators settle what the system cannot. One proposes with evidence, another approves.

A missing answer is not a failure: only the provider's evidence or two operators end an unknown outcome. An
approval is bound to the facts at the time of the proposal; if any has changed, it is refused.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.transactions import now, now_for, transaction
from shared.errors import BadRequest, NotFound
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.people import eligibility, exception_records
from shared.people.eligibility import Subject
from shared.people.maker_checker import PAGE_ROWS, Flow
from shared.roles import Permission
from shared.settings import settings
from shared.states import FINAL, LIVE, AttemptState, Decision, Status
from shared.withdrawals import corrections, decisions, effects, paid_outside, queries, transitions
from shared.withdrawals.corrections import CORRECTIONS
from shared.withdrawals.paid_outside import NO_PAYMENT, Payment

FLOW = Flow(Resolution)
NOT_ARRIVED = "The payment did not reach you."  # the user's failure reason when operators refund
RESOLUTION_TEXTS = {
    Decision.PAID: "paid",
    Decision.REFUND: "not paid, refunded",
    Decision.GO_ON: "explained, continues",
    Decision.TAKE_BACK: "paid after all, coins taken back",
    Decision.GIVE_BACK: "not paid in the end, coins given back",
}


def propose(
    withdrawal_id: UUID,
    decision: Decision,
    *,
    evidence: str,
    actor: str,
    paid: Payment = NO_PAYMENT,
    version: int | None = None,
) -> Resolution:
    """Propose how a withdrawal ends; nothing moves yet. `evidence` says what was seen, and where.

    The decision `paid` needs the payment. Raises NotFound, BadRequest (it cannot end this way, no evidence,
    invalid UTR or time), Conflict (another proposal is open, the UTR belongs to another withdrawal, the maker
    is not eligible), Stale, Unavailable.
    """
    if not evidence.strip():
        raise BadRequest("Evidence is required", "State what you saw, and where", code="evidence_required")
    with transaction() as session:
        withdrawal = queries.find(session, withdrawal_id, lock=True, version=version)
        maker = eligibility.require_maker(session, actor, decision_subject(withdrawal, decision))
        decisions.require_possible(session, withdrawal, decision)
        paid = paid_outside.validate(session, withdrawal, decision, paid)
        resolution = FLOW.propose(
            session,
            withdrawal_id=withdrawal_id,
            decision=decision,
            evidence=evidence.strip(),
            **paid.columns(),
            fingerprint=decisions.fingerprint(session, withdrawal),
            proposed_by=maker,
        )
        withdrawal.updated_at = now(session)
        session.flush()
        details = {"resolution": str(resolution.id), "evidence": resolution.evidence, **paid.event_data()}
        transitions.record(session, withdrawal, f"proposed:{decision}", actor=maker, **details)
        return resolution


def approve(
    resolution_id: UUID, *, actor: str, version: int | None = None, withdrawal_id: UUID | None = None
) -> Withdrawal:
    """Approve a proposal as the checker; it is carried out at once.

    `withdrawal_id` is the withdrawal that the checker looked at, if known. Raises NotFound (also: the
    proposal is about another withdrawal), Conflict (the checker is not eligible; already decided; the facts
    changed), Stale, BadRequest, Unavailable.
    """
    with transaction() as session:
        resolution, withdrawal = _lock(session, resolution_id, version, withdrawal_id)
        decision = Decision(resolution.decision)
        checker = FLOW.approve(
            session,
            resolution,
            decision_subject(withdrawal, decision),
            actor=actor,
            facts=lambda: (resolution.fingerprint, decisions.fingerprint(session, withdrawal)),
        )
        decisions.require_possible(session, withdrawal, decision)
        paid = paid_outside.validate(session, withdrawal, decision, paid_outside.proposed_payment(resolution))
        with paid_outside.map_utr_conflict(paid):
            _carry_out(session, withdrawal, resolution, paid, checker)
        exception_records.close_all(
            session, withdrawal_id=withdrawal.id, resolution=RESOLUTION_TEXTS[decision], actor=checker
        )
        return withdrawal


def reject(
    resolution_id: UUID,
    *,
    actor: str,
    why: str | None = None,
    version: int | None = None,
    withdrawal_id: UUID | None = None,
) -> Resolution:
    """Close a proposal without effect; anyone who may propose it may reject it, including its maker.

    Raises NotFound, Conflict, Stale, Unavailable.
    """
    with transaction() as session:
        resolution, withdrawal = _lock(session, resolution_id, version, withdrawal_id)
        decision = Decision(resolution.decision)
        person = FLOW.reject(session, resolution, decision_subject(withdrawal, decision), actor=actor)
        withdrawal.updated_at = now(session)
        details = {"resolution": str(resolution.id), "why": why}
        transitions.record(session, withdrawal, f"rejected:{decision}", actor=person, **details)
        return resolution


def decision_subject(withdrawal: Withdrawal, decision: Decision) -> Subject:
    """Return the subject of a decision, for the eligibility rules; a correction moves coins manually."""
    permission = Permission.COINS if decision in CORRECTIONS else Permission.RESOLVE
    return Subject.of_withdrawal(withdrawal, permission)


def _carry_out(
    session: Session, withdrawal: Withdrawal, resolution: Resolution, paid: Payment, actor: str
) -> None:
    attempt = session.scalar(
        select(PayoutAttempt).where(
            PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state.in_(LIVE)
        )
    )
    # The hold goes first: `transitions.transition` refuses to refund a withdrawal that is on hold.
    withdrawal.hold = None
    if resolution.decision in CORRECTIONS:
        corrections.carry_out(session, withdrawal, resolution, actor)
        return
    evidence: dict[str, Any] = {
        "resolution": str(resolution.id),
        "proposed_by": resolution.proposed_by,
        "evidence": resolution.evidence,
    }
    if resolution.decision == Decision.REFUND:
        _refund(session, withdrawal, attempt, actor, evidence)
    elif resolution.decision == Decision.PAID and withdrawal.status == Status.PROCESSING:
        _complete(session, withdrawal, attempt, paid, actor, evidence)
    else:
        if withdrawal.status not in FINAL:
            withdrawal.due_at = now(session)
        elif attempt is not None:
            attempt.recheck_at = now(session)  # query it now, whatever was decided
        transitions.record(session, withdrawal, f"resolved:{resolution.decision}", actor=actor, **evidence)


def _refund(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt | None,
    actor: str,
    evidence: dict[str, Any],
) -> None:
    if attempt is not None:
        state = AttemptState.REVERSED if attempt.state == AttemptState.PAID else AttemptState.REFUSED
        _end_attempt(attempt, state)
    transitions.transition(
        session,
        withdrawal,
        Status.FAILED,
        actor=actor,
        reason="resolved",
        failure_reason=NOT_ARRIVED,
        **evidence,
    )
    if corrections.has_live_payout(session, withdrawal):
        effects.freeze_if_refunded(session, withdrawal)


def _complete(
    session: Session,
    withdrawal: Withdrawal,
    attempt: PayoutAttempt | None,
    paid: Payment,
    actor: str,
    evidence: dict[str, Any],
) -> None:
    if attempt is not None and attempt.payout_id:
        attempt.state = AttemptState.PAID
        attempt.recheck_at = now(session) + timedelta(seconds=min(settings().recheck_seconds))
    elif attempt is not None:
        _end_attempt(attempt, AttemptState.REFUSED)  # paid another way, so this attempt never will be
    transitions.transition(
        session, withdrawal, Status.COMPLETED, actor=actor, reason="resolved", paid=paid, **evidence
    )


def _end_attempt(attempt: PayoutAttempt, state: AttemptState) -> None:
    attempt.state = state
    attempt.ended_at = now_for(attempt)
    attempt.recheck_at = None
    attempt.unconfirmed = False


def why_not_propose(session: Session, withdrawal: Withdrawal, decision: Decision) -> str | None:
    """Return why this cannot be proposed now, as a sentence; None if it can (with a payment, if needed)."""
    if open_proposal(session, withdrawal.id) is not None:
        return "A proposal is open. Approve or reject it first"
    try:
        decisions.require_possible(session, withdrawal, decision)
    except BadRequest as error:
        return error.details
    return None


def open_proposal(session: Session, withdrawal_id: UUID) -> Resolution | None:
    """Return the open proposal about this withdrawal, if there is one."""
    return session.scalar(FLOW.open_proposals(Resolution.withdrawal_id == withdrawal_id))


def open_proposals(
    session: Session, *, after: queries.Position | None = None, limit: int = PAGE_ROWS
) -> list[tuple[Resolution, Withdrawal]]:
    """Return open proposals with their withdrawals, oldest first; `after` (proposed_at, id) continues."""
    query = FLOW.open_proposals().add_columns(Withdrawal)
    query = query.join(Withdrawal, Withdrawal.id == Resolution.withdrawal_id)
    rows = session.execute(FLOW.page(query, after, limit))
    return [(resolution, withdrawal) for resolution, withdrawal in rows]


def count_open(session: Session) -> int:
    """Return the number of open proposals."""
    return FLOW.count_open(session)


def _lock(
    session: Session, resolution_id: UUID, version: int | None, withdrawal_id: UUID | None
) -> tuple[Resolution, Withdrawal]:
    """Lock the withdrawal first, as everywhere, then the proposal."""
    subject_id = FLOW.find(session, resolution_id).withdrawal_id
    if withdrawal_id not in (None, subject_id):
        raise NotFound("No such proposal", f"There is no proposal {resolution_id}", code="proposal_not_found")
    withdrawal = queries.find(session, subject_id, lock=True, version=version)
    return FLOW.lock(session, resolution_id), withdrawal
