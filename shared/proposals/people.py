"""What is proposed about operators: each checked against what stands there, and carried out."""

from typing import Any

from sqlalchemy.orm import Session

from shared import invitations, names, operators, second_factor
from shared.errors import Conflict
from shared.models import AdminProposal, Invitation
from shared.roles import Role

Wanted = dict[str, Any]


def _actor(proposal: AdminProposal) -> str:
    assert proposal.decided_by, "it is decided before it is carried out"
    return proposal.decided_by


def new_operator(session: Session, name: str, wanted: Wanted) -> Wanted:
    operators.must_be_new(session, name)
    Role(wanted["role"])
    operators.must_be_nobodys(session, names.clean_email(wanted.get("email")))
    return {}


def add(session: Session, proposal: AdminProposal) -> Invitation:
    wanted = proposal.wanted
    operators.add(
        session,
        proposal.subject,
        role=Role(wanted["role"]),
        email=wanted.get("email"),
        actor=proposal.proposed_by,
        confirmed_by=None if proposal.alone else proposal.decided_by,
    )
    return invitations.make(session, proposal.subject, actor=_actor(proposal))


def as_they_are(session: Session, name: str, _: Wanted) -> Wanted:
    """What a proposal about somebody leans on: changes of these make it stale."""
    one = operators.locked(session, name)
    return {
        "role": one.role,
        "email": one.email,
        "is_disabled": one.disabled_at is not None,
        "has_password": one.password_hash is not None,
        "has_totp": one.totp_secret is not None,
    }


def enabled(session: Session, name: str, wanted: Wanted) -> Wanted:
    stands = as_they_are(session, name, wanted)
    if stands["is_disabled"]:
        raise Conflict("Disabled", f"{name} is disabled: enable them first", code="operator_disabled")
    return stands


def higher_role(session: Session, name: str, wanted: Wanted) -> Wanted:
    stands = enabled(session, name, wanted)
    if Role(stands["role"]).may(Role(wanted["role"])):
        raise Conflict("Not a higher role", f"{name} is {stands['role']} already", code="role_not_higher")
    return stands


def disabled(session: Session, name: str, wanted: Wanted) -> Wanted:
    stands = as_they_are(session, name, wanted)
    if not stands["is_disabled"]:
        raise Conflict("Not disabled", f"{name} may sign in", code="operator_enabled")
    return stands


def with_second_factor(session: Session, name: str, wanted: Wanted) -> Wanted:
    stands = as_they_are(session, name, wanted)
    if not stands["has_totp"]:
        raise Conflict("No second factor", f"{name} has none to reset", code="no_second_factor")
    return stands


def other_email(session: Session, name: str, wanted: Wanted) -> Wanted:
    operators.must_be_nobodys(session, names.clean_email(wanted["email"]))
    return as_they_are(session, name, wanted)


def linked(session: Session, name: str, wanted: Wanted) -> Wanted:
    """What they are known by now."""
    names.clean_email(wanted["email"])
    one = operators.locked(session, name)
    return as_they_are(session, name, wanted) | {"user_id": one.user_id, "phone": one.phone}


def link(session: Session, proposal: AdminProposal) -> None:
    wanted = proposal.wanted
    operators.link(
        session,
        proposal.subject,
        user_id=wanted["user_id"],
        email=names.clean_email(wanted["email"]),
        phone=wanted["phone"],
    )


def raise_role(session: Session, proposal: AdminProposal) -> None:
    operators.set_role(session, proposal.subject, Role(proposal.wanted["role"]))


def enable(session: Session, proposal: AdminProposal) -> None:
    operators.enable(session, proposal.subject)


def invite(session: Session, proposal: AdminProposal) -> Invitation:
    return invitations.make(session, proposal.subject, actor=_actor(proposal))


def reset_totp(session: Session, proposal: AdminProposal) -> None:
    second_factor.remove(session, operators.locked(session, proposal.subject))


def set_email(session: Session, proposal: AdminProposal) -> None:
    operators.set_email(session, proposal.subject, proposal.wanted["email"])
