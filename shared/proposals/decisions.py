"""Proposals of admins: one proposes; a second, independent one confirms the shown facts in time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.transactions import transaction
from shared.errors import Conflict, NotFound
from shared.models import AdminProposal, Invitation, Operator
from shared.notifications.mail import notices
from shared.people import audit, eligibility, operators
from shared.people.eligibility import Subject
from shared.people.maker_checker import REJECTED, Flow, required_reason
from shared.proposals import kinds
from shared.proposals.kinds import KINDS, Kind, Wanted
from shared.roles import Role
from shared.settings import settings

CONFIRMED = "confirmed"
FLOW = Flow(AdminProposal, approved=CONFIRMED, stale_code="proposal_stale")
# The first two admins are recorded as added by the shell: neither added the other, so they are independent.
FIRST_ADMINS = "shell:first-admins"
FIRST_ADMINS_COUNT = 2
EXPIRED = "system:expired"


@dataclass(frozen=True, slots=True)
class ProposalResult:
    """A proposal, with the invitation if it created one, and whether that was mailed."""

    proposal: AdminProposal
    invitation: Invitation | None = None
    is_mailed: bool = False


def propose(
    kind: Kind,
    subject: str,
    wanted: Wanted,
    *,
    reason: str,
    actor: str,
    paid_operators: frozenset[str] | None = None,
) -> ProposalResult:
    """Propose a change; if no second admin is needed, it is carried out at once (`proposal.alone`).

    `paid_operators` names the operators that its file would pay, for a kind that needs a file.

    Raises BadRequest (not possible, no reason), NotFound, Conflict (another proposal is open, the maker is
    not eligible), SettingsError, Unavailable.
    """
    reason = required_reason(reason)
    if paid_operators is None:
        kinds.require_no_file(kind)
    with transaction() as session:
        alone = not needs_second_person(session, kind, subject, wanted)
        is_first_admin = alone and _is_first_admin(session, kind, subject, wanted)
        if settings().second_admin_required == "on" and not is_first_admin:
            actor = eligibility.require_maker(
                session, actor, _decision_subject(kind, subject, paid_operators)
            )
        _close_expired(session, kind, subject)
        proposal = FLOW.propose(
            session,
            kind=kind.code,
            subject=subject,
            wanted=wanted,
            fingerprint=_fingerprint(session, kind, subject, wanted),
            alone=alone,
            reason=reason,
            proposed_by=FIRST_ADMINS if is_first_admin else actor,
            expires_at=func.now() + timedelta(hours=settings().admin_proposal_hours),
        )
        if alone:
            FLOW.record(session, proposal, CONFIRMED, actor)
            return _carry_out(session, kind, proposal, actor)
        _announce(session, proposal, "proposed", actor)
        return ProposalResult(proposal)


def confirm(
    proposal_id: UUID, *, shown: str, actor: str, paid_operators: frozenset[str] | None = None
) -> ProposalResult:
    """Confirm the facts that were shown (their `fingerprint`) as the checker; it is carried out at once.

    `paid_operators` is as in `propose`, from the checker's own copy of the file.

    Raises NotFound, Conflict (the checker is not eligible, decided, expired, the facts changed), BadRequest,
    SettingsError, Unavailable.
    """
    with transaction() as session:
        proposal, kind = _lock(session, proposal_id)
        if paid_operators is None:
            kinds.require_no_file(kind)
        checker = FLOW.approve(
            session,
            proposal,
            _decision_subject(kind, proposal.subject, paid_operators),
            actor=actor,
            expires_at=proposal.expires_at,
            facts=lambda: (
                shown,
                proposal.fingerprint,
                _fingerprint(session, kind, proposal.subject, proposal.wanted),
            ),
        )
        return _carry_out(session, kind, proposal, checker)


def reject(proposal_id: UUID, *, actor: str) -> AdminProposal:
    """Close a proposal without effect; its maker may, too. Raises NotFound, Conflict, Unavailable."""
    with transaction() as session:
        proposal, kind = _lock(session, proposal_id)
        if settings().second_admin_required == "on":
            actor = eligibility.require_maker(session, actor, _decision_subject(kind, proposal.subject))
        FLOW.record(session, proposal, REJECTED, actor)
        _announce(session, proposal, REJECTED, actor)
        return proposal


def claim(proposal_id: UUID, *, actor: str) -> tuple[str, str]:
    """Return the description and the secret of a confirmed proposal: once, and only to the maker.

    Raises NotFound, Conflict (not confirmed, another's, already claimed, too late), BadRequest, Unavailable.
    """
    with transaction() as session:
        proposal = session.get(AdminProposal, proposal_id, with_for_update=True, populate_existing=True)
        kind = KINDS.get(proposal.kind) if proposal else None
        if proposal is None or kind is None or kind.reveal is None:
            raise NotFound(
                "Nothing to claim", "There is no such proposal with a secret", code="nothing_to_claim"
            )
        if settings().second_admin_required == "on":
            actor = eligibility.require_maker(session, actor, _decision_subject(kind, proposal.subject))
        _require_claimable(session, proposal, actor)
        proposal.claimed_at = func.now()
        session.flush()
        description, secret = kind.reveal(session, proposal)
        _announce(session, proposal, "claimed", actor)
        return description, secret


def _require_claimable(session: Session, proposal: AdminProposal, actor: str) -> None:
    if proposal.outcome != CONFIRMED:
        raise Conflict("You cannot claim it", "A second person must confirm it first", code="not_claimable")
    if proposal.claimed_at is not None:
        raise Conflict("You cannot claim it", "It is already claimed", code="not_claimable")
    if proposal.proposed_by != actor:
        raise Conflict("You cannot claim it", f"{proposal.proposed_by} proposed it", code="not_claimable")
    if session.scalar(select(_is_old(proposal.decided_at))):
        raise Conflict("Expired", "Propose it again", code="proposal_expired")


def needs_second_person(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """True if a second admin must confirm it, as things are now."""
    if settings().second_admin_required == "off" or not kinds.gives_power(session, kind, subject, wanted):
        return False
    return not _is_first_admin(session, kind, subject, wanted)


def latest_confirmation(session: Session, kind: Kind, subject: str) -> AdminProposal | None:
    """Return the newest confirmation that has not expired, for an import that an operator then runs."""
    recent = (
        select(AdminProposal)
        .where(AdminProposal.kind == kind.code, AdminProposal.subject == subject)
        .where(AdminProposal.outcome == CONFIRMED, ~_is_old(AdminProposal.decided_at))
        # A proposal that one admin carried out alone is not a confirmation.
        .where(AdminProposal.alone.is_(False))
    )
    return session.scalar(recent.order_by(AdminProposal.decided_at.desc()).limit(1))


def open_proposals(session: Session) -> Sequence[AdminProposal]:
    """Return the open proposals that have not expired, oldest first."""
    return session.scalars(FLOW.open_proposals(NOT_EXPIRED)).all()


def count_open(session: Session) -> int:
    """Return the number of open proposals that have not expired."""
    return FLOW.count_open(session, NOT_EXPIRED)


def recently_decided(session: Session, *, limit: int = 20) -> Sequence[AdminProposal]:
    """Return the proposals decided last, newest first, including those that can still be claimed."""
    query = select(AdminProposal).where(AdminProposal.decided_at.is_not(None))
    return session.scalars(query.order_by(AdminProposal.decided_at.desc()).limit(limit)).all()


def find(session: Session, proposal_id: UUID) -> AdminProposal:
    """Return one proposal. Raises NotFound."""
    return FLOW.find(session, proposal_id)


NOT_EXPIRED = AdminProposal.expires_at > func.now()


def _is_old(decided_at: object) -> Any:
    return decided_at <= func.now() - timedelta(hours=settings().admin_proposal_hours)


def _close_expired(session: Session, kind: Kind, subject: str) -> None:
    same_subject = (AdminProposal.kind == kind.code, AdminProposal.subject == subject)
    expired = FLOW.open_proposals(*same_subject, AdminProposal.expires_at <= func.now()).with_for_update()
    for proposal in session.scalars(expired).all():
        FLOW.record(session, proposal, REJECTED, EXPIRED)


def _lock(session: Session, proposal_id: UUID) -> tuple[AdminProposal, Kind]:
    proposal = FLOW.lock(session, proposal_id)
    if proposal.kind not in KINDS:
        raise NotFound("No such proposal", f"There is no proposal {proposal_id}", code="proposal_not_found")
    return proposal, KINDS[proposal.kind]


def _carry_out(session: Session, kind: Kind, proposal: AdminProposal, actor: str) -> ProposalResult:
    invitation = kind.carry_out(session, proposal)
    session.flush()
    session.refresh(proposal)
    return ProposalResult(proposal, invitation, _announce(session, proposal, CONFIRMED, actor, invitation))


def _announce(
    session: Session,
    proposal: AdminProposal,
    event: str,
    actor: str,
    invitation: Invitation | None = None,
) -> bool:
    """Write it to the audit log, and mail all admins and the operator concerned.

    Returns True if the invitation was mailed.
    """
    kind = KINDS[proposal.kind]
    audit.record_change(
        session,
        f"{proposal.kind}_{event}",
        subject=proposal.subject,
        actor=actor,
        reason=proposal.reason,
        before={},
        after={"proposal": str(proposal.id), "wanted": proposal.wanted, "alone": proposal.alone},
    )
    # A new logger each time, because one from import time would keep that time's log configuration.
    structlog.get_logger().warning(
        "[ADMIN] proposal", kind=proposal.kind, done=event, proposal=str(proposal.id), actor=actor
    )
    lines = [*kind.describe(proposal.subject, proposal.wanted)]
    lines.append(f"Proposed by {proposal.proposed_by}: {proposal.reason}")
    lines.append(_next_step(kind) if event == "proposed" else f"{event.capitalize()} by {actor}.")
    return notices.notify_admins(
        session,
        f"{kind.title}: {proposal.subject[:100]}, {event}"
        + (" by one person alone" if proposal.alone else ""),
        lines,
        about=kinds.operator_of(session, kind, proposal.subject),
        invitation=invitation,
    )


def _next_step(kind: Kind) -> str:
    if kind.needs_file:
        return "A second admin confirms it at a shell, with the file, or rejects it in the panel."
    return "A second admin confirms or rejects it in the panel."


def _decision_subject(kind: Kind, subject: str, paid_operators: frozenset[str] | None = None) -> Subject:
    operator = subject if kind.is_about_operator else None
    return Subject(kind.needs, operator=operator, paid_operators=paid_operators or frozenset())


def _fingerprint(session: Session, kind: Kind, subject: str, wanted: Wanted) -> str:
    facts = [kind.code, subject, wanted, kind.current_state(session, subject, wanted)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _is_first_admin(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """True for the one exception: on a system that never had two admins, a shell invites the first two alone.

    A former admin still counts, so disabling the others does not restore the exception.
    """
    if kind.code == kinds.ADD and wanted.get("role") == Role.ADMIN:
        return not operators.has_first_admins(session)
    if kind.code == kinds.PASSWORD:
        invited = session.get(Operator, subject)
        is_new = invited is not None and invited.role == Role.ADMIN and invited.password_hash is None
        admins = select(func.count()).select_from(Operator).where(Operator.was_admin)
        return is_new and session.scalars(admins).one() < FIRST_ADMINS_COUNT
    return False
