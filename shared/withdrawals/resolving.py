"""What the system cannot end, two people do: one proposes with evidence, another approves the same facts.

Promise 3: no answer is not a failure, and only the provider's word or two people end "we do not know". An
approval is bound to what stood there when it was proposed; if anything has changed, it is refused.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from shared import exception_records, maker_checker
from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.maker_checker import Matter
from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.roles import Permission
from shared.settings import settings
from shared.states import FINAL, LIVE, AttemptState, Decision, Status
from shared.withdrawals import correcting, deciding, effects, journey, paid_outside, reading
from shared.withdrawals.correcting import CORRECTIONS
from shared.withdrawals.paid_outside import NOT_TOLD, Payment

NOT_ARRIVED = "The payment did not reach you."  # to the user, of what people give back
IN_WORDS = {
    Decision.PAID: "paid",
    Decision.REFUND: "not paid, refunded",
    Decision.GO_ON: "explained, goes on",
    Decision.TAKE_BACK: "paid after all, coins taken back",
    Decision.GIVE_BACK: "not paid in the end, coins given back",
}


def propose(
    withdrawal_id: UUID,
    decision: Decision,
    *,
    evidence: str,
    actor: str,
    paid: Payment = NOT_TOLD,
    version: int | None = None,
) -> Resolution:
    """Propose how a withdrawal ends; nothing moves yet. `evidence` says what was seen where.

    That it was `paid` needs the payment. Raises NotFound, BadRequest (it cannot end so, no evidence, no such
    UTR or time), Conflict (a proposal waits, the UTR is another's, who may not), Stale, Unavailable.
    """
    if not evidence.strip():
        raise BadRequest("Evidence is required", "Say what was seen, and where", code="evidence_required")
    with transaction() as session:
        withdrawal = reading.find(session, withdrawal_id, lock=True, version=version)
        actor = maker_checker.must_be_maker(session, actor, matter(withdrawal, decision))
        deciding.must_be_possible(session, withdrawal, decision)
        paid = paid_outside.checked(session, withdrawal, decision, paid)
        if _open_proposal(session, withdrawal_id):
            raise Conflict("A proposal waits", "Approve or reject it first", code="proposal_waits")
        made = Resolution(
            withdrawal_id=withdrawal_id,
            decision=decision,
            evidence=evidence.strip(),
            **paid.columns(),
            fingerprint=deciding.fingerprint(session, withdrawal),
            proposed_by=actor,
        )
        session.add(made)
        withdrawal.updated_at = func.now()
        session.flush()
        told = {"resolution": str(made.id), "evidence": made.evidence, **paid.told()}
        journey.note(session, withdrawal, f"proposed:{decision}", actor=actor, **told)
        return made


def approve(
    resolution_id: UUID, *, actor: str, version: int | None = None, of: UUID | None = None
) -> Withdrawal:
    """A second person agrees, and it is done. `of` is the withdrawal that they looked at, if they named one.

    Raises NotFound (also: it is not of that withdrawal), Conflict (no second person: maker_checker.py;
    decided already; something changed), Stale, BadRequest, Unavailable.
    """
    with transaction() as session:
        made, withdrawal = _locked(session, resolution_id, version, of)
        decision = Decision(made.decision)
        actor = maker_checker.must_be_checker(
            session, actor, matter(withdrawal, decision), maker=made.proposed_by
        )
        if made.fingerprint != deciding.fingerprint(session, withdrawal):
            raise Conflict(
                "Something has changed", "Reject it, look again, propose anew", code="stale_proposal"
            )
        deciding.must_be_possible(session, withdrawal, decision)
        paid = paid_outside.checked(session, withdrawal, decision, paid_outside.of(made))
        _decide(made, "approved", actor)
        session.flush()
        with paid_outside.one_utr(paid):
            _carry_out(session, withdrawal, made, paid, actor)
        exception_records.close_all(
            session, withdrawal_id=withdrawal.id, resolution=IN_WORDS[decision], actor=actor
        )
        return withdrawal


def reject(
    resolution_id: UUID,
    *,
    actor: str,
    why: str | None = None,
    version: int | None = None,
    of: UUID | None = None,
) -> Resolution:
    """Take a proposal off the table; whoever could have made it may, also its author.

    Raises NotFound, Conflict, Stale, Unavailable.
    """
    with transaction() as session:
        made, withdrawal = _locked(session, resolution_id, version, of)
        actor = maker_checker.must_hold(session, actor, matter(withdrawal, Decision(made.decision)).needs)
        _decide(made, "rejected", actor)
        withdrawal.updated_at = func.now()
        told = {"resolution": str(made.id), "why": why}
        journey.note(session, withdrawal, f"rejected:{made.decision}", actor=actor, **told)
        return made


def matter(withdrawal: Withdrawal, decision: Decision) -> Matter:
    """Whom a decision would serve, and what it takes: a correction moves coins by hand."""
    return Matter.of(withdrawal, Permission.COINS if decision in CORRECTIONS else Permission.RESOLVE)


def _carry_out(session: Session, withdrawal: Withdrawal, made: Resolution, paid: Payment, actor: str) -> None:
    attempt = session.scalar(
        select(PayoutAttempt).where(
            PayoutAttempt.withdrawal_id == withdrawal.id, PayoutAttempt.state.in_(LIVE)
        )
    )
    # From here on the system has the word again, so the flag goes first: `journey.move` refuses beside it.
    withdrawal.review = None
    if made.decision in CORRECTIONS:
        correcting.carry_out(session, withdrawal, made, actor)
        return
    told: dict[str, Any] = {"resolution": str(made.id), "proposed_by": made.proposed_by}
    told["evidence"] = made.evidence
    if made.decision == Decision.REFUND:
        if attempt is not None:
            _end(
                attempt, AttemptState.REVERSED if attempt.state == AttemptState.PAID else AttemptState.REFUSED
            )
        told |= {"reason": "resolved", "failure_reason": NOT_ARRIVED}
        journey.move(session, withdrawal, Status.FAILED, actor=actor, **told)
        if correcting.lives(session, withdrawal):
            effects.freeze_if_refunded(session, withdrawal)
    elif made.decision == Decision.PAID and withdrawal.status == Status.PROCESSING:
        if attempt is not None and attempt.payout_id:
            attempt.state = AttemptState.PAID
            attempt.recheck_at = func.now() + timedelta(seconds=min(settings().recheck_seconds))
        elif attempt is not None:
            _end(attempt, AttemptState.REFUSED)  # paid by another way: this one never will be
        journey.move(session, withdrawal, Status.COMPLETED, actor=actor, reason="resolved", paid=paid, **told)
    else:
        if withdrawal.status not in FINAL:
            withdrawal.due_at = func.now()
        elif attempt is not None:
            attempt.recheck_at = func.now()  # how it stands now, whatever was explained
        journey.note(session, withdrawal, f"resolved:{made.decision}", actor=actor, **told)


def _end(attempt: PayoutAttempt, state: AttemptState) -> None:
    attempt.state, attempt.ended_at, attempt.recheck_at = state, func.now(), None
    attempt.unconfirmed = False


def cannot(session: Session, withdrawal: Withdrawal, decision: Decision) -> str | None:
    """Why this cannot be proposed now, in words; None when it can, with a payment where one is told."""
    if _open_proposal(session, withdrawal.id):
        return "A proposal waits; approve or reject it first"
    try:
        deciding.must_be_possible(session, withdrawal, decision)
    except BadRequest as error:
        return error.details
    return None


def waiting(session: Session, withdrawal_id: UUID) -> Resolution | None:
    """The proposal that waits for a second person, if there is one."""
    made = _open_proposal(session, withdrawal_id)
    return session.get(Resolution, made) if made else None


def all_waiting(
    session: Session, *, after: reading.Position | None = None, limit: int = 200
) -> list[tuple[Resolution, Withdrawal]]:
    """The proposals that wait, each with its withdrawal, oldest first; `after` (proposed_at, id) goes on."""
    query = select(Resolution, Withdrawal).join(Withdrawal, Withdrawal.id == Resolution.withdrawal_id)
    query = query.where(Resolution.decided_at.is_(None))
    if after is not None:
        query = query.where(tuple_(Resolution.proposed_at, Resolution.id) > after)
    rows = session.execute(query.order_by(Resolution.proposed_at, Resolution.id).limit(limit))
    return [(made, withdrawal) for made, withdrawal in rows]


def number_waiting(session: Session) -> int:
    """How many proposals wait for a second person."""
    waits = select(func.count()).select_from(Resolution).where(Resolution.decided_at.is_(None))
    return session.scalars(waits).one()


def _open_proposal(session: Session, withdrawal_id: UUID) -> UUID | None:
    return session.scalar(
        select(Resolution.id).where(
            Resolution.withdrawal_id == withdrawal_id, Resolution.decided_at.is_(None)
        )
    )


def _locked(
    session: Session, resolution_id: UUID, version: int | None, of: UUID | None
) -> tuple[Resolution, Withdrawal]:
    made = session.get(Resolution, resolution_id)
    if made is None or of not in (None, made.withdrawal_id):
        raise NotFound("No such proposal", f"There is no proposal {resolution_id}", code="proposal_not_found")
    # The withdrawal first, as everywhere; then the proposal as it is now.
    withdrawal = reading.find(session, made.withdrawal_id, lock=True, version=version)
    session.refresh(made, with_for_update=True)
    if made.decided_at is not None:
        raise Conflict("Decided already", f"{made.decided_by} {made.outcome} it", code="proposal_decided")
    return made, withdrawal


def _decide(made: Resolution, outcome: str, actor: str) -> None:
    made.outcome, made.decided_by, made.decided_at = outcome, actor, func.now()
