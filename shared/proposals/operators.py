"""Proposals about operators: the facts that each depends on, and how it is carried out."""

from typing import Any

from sqlalchemy.orm import Session

from shared.errors import Conflict
from shared.models import AdminProposal, Invitation
from shared.people import invitations, operators, second_factor
from shared.roles import Role
from shared.text import names

Wanted = dict[str, Any]


def _actor(proposal: AdminProposal) -> str:
    assert proposal.decided_by, "the decision is recorded before it is carried out"
    return proposal.decided_by


def check_new_operator(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return no facts: the operator does not exist yet. Raises BadRequest, Conflict."""
    operators.require_new_name(session, name)
    Role(wanted["role"])
    operators.require_unused_email(session, names.normalize_email(wanted.get("email")))
    return {}


def add(session: Session, proposal: AdminProposal) -> Invitation:
    """Add the operator and invite them."""
    wanted = proposal.wanted
    operators.add(
        session,
        proposal.subject,
        role=Role(wanted["role"]),
        email=wanted.get("email"),
        actor=proposal.proposed_by,
        confirmed_by=None if proposal.alone else proposal.decided_by,
    )
    return invitations.create(session, proposal.subject, actor=_actor(proposal))


def operator_state(session: Session, name: str, _: Wanted) -> Wanted:
    """Return the facts about an operator; a change of one makes the proposal stale. Raises NotFound."""
    operator = operators.lock(session, name)
    return {
        "role": operator.role,
        "email": operator.email,
        "is_disabled": operator.disabled_at is not None,
        "has_password": operator.password_hash is not None,
        "has_totp": operator.totp_secret is not None,
    }


def enabled_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about an enabled operator. Raises NotFound, Conflict."""
    state = operator_state(session, name, wanted)
    if state["is_disabled"]:
        raise Conflict("Disabled", f"{name} is disabled. Enable them first", code="operator_disabled")
    return state


def higher_role_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about an operator with a lower role. Raises NotFound, Conflict."""
    state = enabled_state(session, name, wanted)
    if Role(state["role"]).may(Role(wanted["role"])):
        raise Conflict("Not a higher role", f"{name} is already {state['role']}", code="role_not_higher")
    return state


def disabled_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about a disabled operator. Raises NotFound, Conflict."""
    state = operator_state(session, name, wanted)
    if not state["is_disabled"]:
        raise Conflict("Not disabled", f"{name} may sign in", code="operator_enabled")
    return state


def second_factor_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about an operator with a second factor. Raises NotFound, Conflict."""
    state = operator_state(session, name, wanted)
    if not state["has_totp"]:
        raise Conflict("No second factor", f"{name} has no second factor", code="no_second_factor")
    return state


def new_email_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about an operator, if the new address is unused. Raises NotFound, Conflict."""
    operators.require_unused_email(session, names.normalize_email(wanted["email"]))
    return operator_state(session, name, wanted)


def identity_state(session: Session, name: str, wanted: Wanted) -> Wanted:
    """Return the facts about an operator, with their identity. Raises NotFound, BadRequest."""
    names.normalize_email(wanted["email"])
    operator = operators.lock(session, name)
    return operator_state(session, name, wanted) | {"user_id": operator.user_id, "phone": operator.phone}


def link(session: Session, proposal: AdminProposal) -> None:
    """Set the operator's identity."""
    wanted = proposal.wanted
    operators.link(
        session,
        proposal.subject,
        user_id=wanted["user_id"],
        email=names.normalize_email(wanted["email"]),
        phone=wanted["phone"],
    )


def raise_role(session: Session, proposal: AdminProposal) -> None:
    """Give the operator the higher role."""
    operators.set_role(session, proposal.subject, Role(proposal.wanted["role"]))


def enable(session: Session, proposal: AdminProposal) -> None:
    """Enable the operator."""
    operators.enable(session, proposal.subject)


def invite(session: Session, proposal: AdminProposal) -> Invitation:
    """Create a new invitation."""
    return invitations.create(session, proposal.subject, actor=_actor(proposal))


def reset_totp(session: Session, proposal: AdminProposal) -> None:
    """Remove the second factor."""
    second_factor.remove(session, operators.lock(session, proposal.subject))


def set_email(session: Session, proposal: AdminProposal) -> None:
    """Change the e-mail address."""
    operators.set_email(session, proposal.subject, proposal.wanted["email"])
