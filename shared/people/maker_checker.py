"""Maker-checker: one operator proposes, a second one approves the same facts, or a permitted one rejects.

Every decision that needs two people goes through a `Flow`: how a withdrawal ends, manual coin changes, the
end of a block, operators, keys, endpoints and imports. The steps are always the same:

    propose   the maker is eligible and no other proposal about this is open; the proposal is written
    lock      the proposal is read under a lock, and is still open
    approve   the checker is eligible (`eligibility.py`), it has not expired, the facts are the ones shown
    reject    the proposal is closed without effect
    record    the outcome is written first; the database refuses its effects without it

The caller locks what the decision is about before the proposal, and carries the decision out last, all in one
transaction. A review of a withdrawal has no maker, but it checks the same facts (`require_same_facts`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.models.base import Proposal
from shared.people import eligibility
from shared.people.eligibility import Subject

APPROVED = "approved"
REJECTED = "rejected"
PAGE_ROWS = 200

P = TypeVar("P", bound=Proposal)


@dataclass(frozen=True, slots=True)
class Flow(Generic[P]):
    """One kind of decision that takes two people, and the table that keeps its proposals."""

    model: type[P]
    approved: str = APPROVED  # the outcome as this table stores it
    not_found_code: str = "proposal_not_found"
    decided_code: str = "proposal_decided"
    stale_code: str = "stale_proposal"

    def propose(self, session: Session, **values: Any) -> P:
        """Write a proposal; the caller has checked its maker. Raises Conflict if one about the same subject
        is open, by the table's unique index of open proposals.
        """
        new_row = insert(self.model).values({"id": new_id(), **values})
        proposal: P | None = session.scalar(new_row.on_conflict_do_nothing().returning(self.model))
        if proposal is None:
            raise open_proposal_exists()
        return proposal

    def find(self, session: Session, proposal_id: UUID) -> P:
        """Return the proposal with this id. Raises NotFound."""
        proposal = session.get(self.model, proposal_id)
        if proposal is None:
            raise NotFound(
                "No such proposal", f"There is no proposal {proposal_id}", code=self.not_found_code
            )
        return proposal

    def lock(self, session: Session, proposal_id: UUID) -> P:
        """Return the proposal under a lock, as it is now. Raises NotFound, Conflict (already decided)."""
        proposal = self.find(session, proposal_id)
        session.refresh(proposal, with_for_update=True)
        if proposal.decided_at is not None:
            raise Conflict(
                "Already decided", f"{proposal.decided_by} {proposal.outcome} it", code=self.decided_code
            )
        return proposal

    def approve(
        self,
        session: Session,
        proposal: P,
        subject: Subject,
        *,
        actor: str,
        expires_at: datetime | None = None,
        facts: Callable[[], Sequence[str]] = tuple,
    ) -> str:
        """Approve a locked proposal as the checker, and record that; returns the checker.

        `facts` returns fingerprints that must be equal: of what was shown, what was proposed, what is there
        now. It is called last, because it may lock what the decision is about.
        Raises Conflict with the code of the rule that refuses it.
        """
        checker = eligibility.require_checker(session, actor, subject, maker=proposal.proposed_by)
        if expires_at is not None and session.scalar(select(func.now() >= expires_at)):
            raise Conflict("Expired", "Propose it again", code="proposal_expired")
        if len(set(facts())) > 1:
            raise Conflict("Something has changed", "Reject it and propose it again", code=self.stale_code)
        self.record(session, proposal, self.approved, checker)
        return checker

    def reject(self, session: Session, proposal: P, subject: Subject, *, actor: str) -> str:
        """Reject a locked proposal; its maker may do so too. Returns the actor. Raises Conflict."""
        person = eligibility.require_permission(session, actor, subject.needs)
        self.record(session, proposal, REJECTED, person)
        return person

    def record(self, session: Session, proposal: P, outcome: str, actor: str) -> None:
        """Write the outcome before anything is carried out."""
        proposal.outcome = outcome
        proposal.decided_by = actor
        proposal.decided_at = func.now()
        session.flush()
        session.refresh(proposal)

    def open_proposals(self, *which: ColumnElement[bool]) -> Select[P]:
        """Return a query for the open proposals, oldest first."""
        query = select(self.model).where(self.model.decided_at.is_(None), *which)
        return query.order_by(self.model.proposed_at, self.model.id)

    def page(self, query: Select[Any], after: tuple[datetime, UUID] | None, limit: int) -> Select[Any]:
        """Limit such a query to a page; `after` (proposed_at, id) continues after a row."""
        if after is not None:
            query = query.where(tuple_(self.model.proposed_at, self.model.id) > after)
        return query.limit(limit)

    def count_open(self, session: Session, *which: ColumnElement[bool]) -> int:
        """Return the number of open proposals."""
        query = select(func.count()).select_from(self.model).where(self.model.decided_at.is_(None), *which)
        return session.scalars(query).one()


def open_proposal_exists() -> Conflict:
    """Return the error for a second proposal about the same subject."""
    return Conflict("A proposal is open", "Approve or reject it first", code="proposal_waits")


def require_same_facts(shown: str, current: str, *, code: str) -> None:
    """Refuse a decision if the facts are not the ones shown. Raises Conflict."""
    if shown != current:
        raise Conflict("Something has changed", "Reload it, then decide again", code=code)


def required_reason(reason: str) -> str:
    """Return the reason without surrounding spaces. Raises BadRequest if it is empty."""
    if not reason.strip():
        raise BadRequest("A reason is required", "Enter a reason", code="reason_required")
    return reason.strip()
