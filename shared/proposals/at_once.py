"""What takes something away: one admin does it at once, and all admins are mailed."""

from typing import Any

from sqlalchemy.orm import Session

from shared import app_keys, audit, operators
from shared.db import transaction
from shared.errors import Conflict
from shared.models import AppKey, Endpoint, Operator
from shared.notifications import endpoints
from shared.notifications.mail import notices
from shared.roles import Role


def disable(name: str, *, actor: str, reason: str | None = None) -> Operator:
    """Out from the next request on. Raises NotFound, Conflict (disabled before, the last admin)."""
    with transaction() as session:
        operator = operators.disable(session, name, actor=actor)
        _write(session, "operator_disabled", name, actor, reason, before={"role": operator.role})
        notices.tell(session, f"{name} was disabled", [f"By {actor}."], about=operator)
        return operator


def lower_role(name: str, role: Role, *, actor: str, reason: str | None = None) -> Operator:
    """They may do less. Raises NotFound, Conflict (it is not lower, the last admin), Unavailable."""
    with transaction() as session:
        before = operators.locked(session, name).role
        if not Role(before).may(role):
            raise Conflict(
                "Not a lower role", f"{name} is {before}: a second admin confirms more", code="role_not_lower"
            )
        operator = operators.set_role(session, name, role)
        sides = {"before": {"role": before}, "after": {"role": str(role)}}
        _write(session, "operator_role_lowered", name, actor, reason, **sides)
        notices.tell(session, f"{name} is {role} now", [f"They were {before}. By {actor}."], about=operator)
        return operator


def end_sessions(name: str, *, actor: str, reason: str | None = None) -> None:
    """Signed out everywhere. Raises NotFound, Unavailable."""
    with transaction() as session:
        operator = operators.locked(session, name)
        operators.end_sessions(session, name)
        _write(session, "operator_signed_out", name, actor, reason)
        notices.tell(session, f"{name} was signed out everywhere", [f"By {actor}."], about=operator)


def revoke_key(prefix: str, *, actor: str, reason: str | None = None) -> AppKey:
    """From now on it lets nobody in. Raises NotFound, Conflict when that was so already, Unavailable."""
    with transaction() as session:
        key = app_keys.revoke(session, prefix, actor=actor)
        about = {"app": key.app, "scopes": key.scopes}
        _write(session, "key_revoked", key.prefix, actor, reason, before=about)
        notices.tell(session, f"The key {key.prefix} of {key.app} was revoked", [f"By {actor}."])
        return key


def remove_endpoint(which: str, *, actor: str, reason: str | None = None) -> Endpoint:
    """Tell it nothing more. Raises NotFound, Conflict when it was removed, Unavailable."""
    with transaction() as session:
        one = endpoints.remove(session, which, actor=actor)
        _write(session, "endpoint_removed", one.id, actor, reason, before={"url": one.url})
        notices.tell(session, f"The endpoint {one.url} was removed", [f"By {actor}."])
        return one


def _write(
    session: Session,
    action: str,
    subject: object,
    actor: str,
    reason: str | None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    audit.changed(
        session,
        action,
        subject=subject,
        actor=actor,
        reason=reason,
        before=before or {},
        after=after or {},
    )
