"""One person proposes, a second who is independent confirms just what was shown, in time."""

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

from shared import audit, maker_checker, operators
from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.maker_checker import Matter
from shared.models import AdminProposal, Invitation, Operator
from shared.notifications.mail import notices
from shared.proposals import kinds
from shared.proposals.kinds import KINDS, Kind, Wanted
from shared.roles import Role
from shared.settings import settings

CONFIRMED, REJECTED = "confirmed", "rejected"
# Who stands as the creator of the first two admins: neither added the other, so they are independent.
FIRST_ADMINS, TWO = "shell:first-admins", 2
EXPIRED = "system:expired"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What came of a proposal: the link of an invitation when one was made, and whether it was mailed."""

    proposal: AdminProposal
    invitation: Invitation | None = None
    is_mailed: bool = False


def propose(
    kind: Kind, subject: str, wanted: Wanted, *, reason: str, actor: str, pays: frozenset[str] | None = None
) -> Confirmed:
    """Propose it; without the need of a second person it is done at once (`proposal.alone`).

    `pays` names the operators whom its file would pay, where it needs one.

    Raises BadRequest (it cannot be done, no reason), NotFound, Conflict (a proposal waits, who may not
    propose it), SettingsError, Unavailable.
    """
    if not reason.strip():
        raise BadRequest("A reason is required", "Say why", code="reason_required")
    if pays is None:
        kinds.must_need_no_file(kind)
    with transaction() as session:
        alone = not needs_second(session, kind, subject, wanted)
        is_first = alone and _is_of_first_admins(session, kind, subject, wanted)
        if settings().second_admin_required == "on" and not is_first:
            actor = maker_checker.must_be_maker(session, actor, _matter(kind, subject, pays))
        _end_expired(session, kind, subject)
        if session.scalar(_open(kind, subject)) is not None:
            raise Conflict("A proposal waits", "Confirm or reject it first", code="proposal_waits")
        made = AdminProposal(
            kind=kind.word,
            subject=subject,
            wanted=wanted,
            fingerprint=_fingerprint(session, kind, subject, wanted),
            alone=alone,
            reason=reason.strip(),
            proposed_by=FIRST_ADMINS if is_first else actor,
            expires_at=func.now() + timedelta(hours=settings().admin_proposal_hours),
        )
        session.add(made)
        session.flush()
        session.refresh(made)
        if alone:
            return _carried_out(session, kind, made, actor)
        _write(session, made, "proposed", actor)
        return Confirmed(made)


def confirm(proposal_id: UUID, *, shown: str, actor: str, pays: frozenset[str] | None = None) -> Confirmed:
    """A second person confirms what they were shown (its `fingerprint`), and it is done.

    `pays` is as in `propose`, of the file that this person has.

    Raises NotFound, Conflict (not a second person, decided, expired, something changed), BadRequest,
    SettingsError, Unavailable.
    """
    with transaction() as session:
        made, kind = _locked(session, proposal_id)
        if pays is None:
            kinds.must_need_no_file(kind)
        matter = _matter(kind, made.subject, pays)
        actor = maker_checker.must_be_checker(session, actor, matter, maker=made.proposed_by)
        if session.scalar(select(made.expires_at <= func.now())):
            raise Conflict("Expired", "Propose it again", code="proposal_expired")
        now = _fingerprint(session, kind, made.subject, made.wanted)
        if not shown == made.fingerprint == now:
            raise Conflict("Something changed", "Reject it, and propose it again", code="proposal_stale")
        return _carried_out(session, kind, made, actor)


def reject(proposal_id: UUID, *, actor: str) -> AdminProposal:
    """Take a proposal off the table; its own author may. Raises NotFound, Conflict, Unavailable."""
    with transaction() as session:
        made, kind = _locked(session, proposal_id)
        if settings().second_admin_required == "on":
            actor = maker_checker.must_be_maker(session, actor, _matter(kind, made.subject))
        made.outcome, made.decided_by, made.decided_at = REJECTED, actor, func.now()
        session.flush()
        session.refresh(made)
        _write(session, made, "rejected", actor)
        return made


def claim(proposal_id: UUID, *, actor: str) -> tuple[str, str]:
    """Words and the secret of what was confirmed: once, and only for who proposed it.

    Raises NotFound, Conflict (not confirmed, another's, claimed before, too late), BadRequest, Unavailable.
    """
    with transaction() as session:
        made = session.get(AdminProposal, proposal_id, with_for_update=True, populate_existing=True)
        kind = KINDS.get(made.kind) if made else None
        if made is None or kind is None or kind.shows is None:
            raise NotFound(
                "Nothing to claim", "There is no such proposal of a secret", code="nothing_to_claim"
            )
        if settings().second_admin_required == "on":
            actor = maker_checker.must_be_maker(session, actor, _matter(kind, made.subject))
        if made.outcome != CONFIRMED or made.claimed_at is not None or made.proposed_by != actor:
            why = "claimed before" if made.claimed_at else f"proposed by {made.proposed_by}"
            words = f"It is {why}" if made.outcome == CONFIRMED else "A second person must confirm it first"
            raise Conflict("Not yours to claim", words, code="not_claimable")
        if session.scalar(select(_is_old(made.decided_at))):
            raise Conflict("Expired", "Propose it again", code="proposal_expired")
        made.claimed_at = func.now()
        session.flush()
        words, secret = kind.shows(session, made)
        _write(session, made, "claimed", actor)
        return words, secret


def needs_second(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """Whether a second person must confirm it, as things stand."""
    if settings().second_admin_required == "off" or not kinds.gives_power(session, kind, subject, wanted):
        return False
    return not _is_of_first_admins(session, kind, subject, wanted)


def confirmed(session: Session, kind: Kind, subject: str) -> AdminProposal | None:
    """What a second person confirmed lately, the newest: for what people then do themselves, as an import."""
    lately = (
        select(AdminProposal)
        .where(AdminProposal.kind == kind.word, AdminProposal.subject == subject)
        .where(AdminProposal.outcome == CONFIRMED, ~_is_old(AdminProposal.decided_at))
        # What one person did alone, while that was allowed, is nobody's confirmation later.
        .where(AdminProposal.alone.is_(False))
    )
    return session.scalar(lately.order_by(AdminProposal.decided_at.desc()).limit(1))


def waiting(session: Session) -> Sequence[AdminProposal]:
    """What waits for a second person, oldest first; not what has expired."""
    query = select(AdminProposal).where(_WAITS).order_by(AdminProposal.proposed_at, AdminProposal.id)
    return session.scalars(query).all()


def number_waiting(session: Session) -> int:
    """How many proposals wait for a second person."""
    return session.scalars(select(func.count()).select_from(AdminProposal).where(_WAITS)).one()


def decided_lately(session: Session, *, limit: int = 20) -> Sequence[AdminProposal]:
    """What was decided last, newest first: among it what can still be claimed."""
    query = select(AdminProposal).where(AdminProposal.decided_at.is_not(None))
    return session.scalars(query.order_by(AdminProposal.decided_at.desc()).limit(limit)).all()


def find(session: Session, proposal_id: UUID) -> AdminProposal:
    """One proposal. Raises NotFound."""
    made = session.get(AdminProposal, proposal_id)
    if made is None:
        raise NotFound("No such proposal", f"There is no proposal {proposal_id}", code="proposal_not_found")
    return made


_WAITS = AdminProposal.decided_at.is_(None) & (AdminProposal.expires_at > func.now())


def _is_old(decided_at: object) -> Any:
    return decided_at <= func.now() - timedelta(hours=settings().admin_proposal_hours)


def _open(kind: Kind, subject: str) -> Any:
    return select(AdminProposal).where(
        AdminProposal.kind == kind.word, AdminProposal.subject == subject, AdminProposal.decided_at.is_(None)
    )


def _end_expired(session: Session, kind: Kind, subject: str) -> None:
    old = _open(kind, subject).where(AdminProposal.expires_at <= func.now()).with_for_update()
    for one in session.scalars(old):
        one.outcome, one.decided_by, one.decided_at = REJECTED, EXPIRED, func.now()
    session.flush()


def _locked(session: Session, proposal_id: UUID) -> tuple[AdminProposal, Kind]:
    made = session.get(AdminProposal, proposal_id, with_for_update=True, populate_existing=True)
    if made is None or made.kind not in KINDS:
        raise NotFound("No such proposal", f"There is no proposal {proposal_id}", code="proposal_not_found")
    if made.decided_at is not None:
        raise Conflict("Decided already", f"{made.decided_by} {made.outcome} it", code="proposal_decided")
    return made, KINDS[made.kind]


def _carried_out(session: Session, kind: Kind, made: AdminProposal, actor: str) -> Confirmed:
    made.outcome, made.decided_by, made.decided_at = CONFIRMED, actor, func.now()
    session.flush()
    invitation = kind.does(session, made)
    session.flush()
    session.refresh(made)
    return Confirmed(made, invitation, _write(session, made, CONFIRMED, actor, invitation))


def _write(
    session: Session, made: AdminProposal, done: str, actor: str, invitation: Invitation | None = None
) -> bool:
    """Into the audit log, and to all admins and whom it concerns; whether the invitation was mailed."""
    kind = KINDS[made.kind]
    audit.changed(
        session,
        f"{made.kind}_{done}",
        subject=made.subject,
        actor=actor,
        reason=made.reason,
        before={},
        after={"proposal": str(made.id), "wanted": made.wanted, "alone": made.alone},
    )
    # Asked for each time: a logger that was kept would write beside where this process logs now.
    structlog.get_logger().warning(
        "[ADMIN] proposal", kind=made.kind, done=done, proposal=str(made.id), actor=actor
    )
    return notices.tell(
        session,
        f"{kind.title}: {made.subject[:100]}, {done}" + (" by one person alone" if made.alone else ""),
        [*kind.tells(made.subject, made.wanted), f"Proposed by {made.proposed_by}: {made.reason}"]
        + ([f"{done.capitalize()} by {actor}."] if done != "proposed" else [])
        + ([_waits_for(kind)] if done == "proposed" else []),
        about=kinds.operator_of(session, kind, made.subject),
        invitation=invitation,
    )


def _waits_for(kind: Kind) -> str:
    if kind.needs_file:
        return "A second person confirms it at a shell, with the file, or rejects it in the panel."
    return "A second person confirms or rejects it in the panel."


def _matter(kind: Kind, subject: str, pays: frozenset[str] | None = None) -> Matter:
    return Matter(kind.needs, operator=subject if kind.is_about_operator else None, pays=pays or frozenset())


def _fingerprint(session: Session, kind: Kind, subject: str, wanted: Wanted) -> str:
    facts = [kind.word, subject, wanted, kind.stands(session, subject, wanted)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _is_of_first_admins(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """The one exception: on a system that never had two admins, a shell invites the first two.

    Who was an admin once counts for ever, so nobody gets back here by disabling the others.
    """
    if kind.word == kinds.ADD and wanted.get("role") == Role.ADMIN:
        return not operators.has_first_admins(session)
    if kind.word == kinds.PASSWORD:
        invited = session.get(Operator, subject)
        is_new = invited is not None and invited.role == Role.ADMIN and invited.password_hash is None
        return is_new and _number(session, Operator.was_admin) < TWO
    return False


def _number(session: Session, which: Any) -> int:
    return session.scalars(select(func.count()).select_from(Operator).where(which)).one()
