"""Changes that remove permissions: one admin makes them at once, and all admins are mailed."""

from typing import Any

from sqlalchemy.orm import Session

from shared.access import app_keys
from shared.db.transactions import transaction
from shared.errors import Conflict
from shared.models import AppKey, Endpoint, Operator
from shared.notifications.mail import notices
from shared.notifications.webhooks import endpoints
from shared.people import audit, operators
from shared.roles import Role


def disable(name: str, *, actor: str, reason: str | None = None) -> Operator:
    """Disable an operator at their next request. Raises NotFound, Conflict (disabled, the last admin)."""
    with transaction() as session:
        operator = operators.disable(session, name, actor=actor)
        _write(session, "operator_disabled", name, actor, reason, before={"role": operator.role})
        notices.notify_admins(session, f"{name} was disabled", [f"By {actor}."], about=operator)
        return operator


def lower_role(name: str, role: Role, *, actor: str, reason: str | None = None) -> Operator:
    """Lower an operator's role. Raises NotFound, Conflict (not lower, the last admin), Unavailable."""
    with transaction() as session:
        before = operators.lock(session, name).role
        if not Role(before).may(role):
            raise Conflict(
                "Not a lower role",
                f"{name} is {before}. A second admin must confirm a higher role",
                code="role_not_lower",
            )
        operator = operators.set_role(session, name, role)
        sides = {"before": {"role": before}, "after": {"role": str(role)}}
        _write(session, "operator_role_lowered", name, actor, reason, **sides)
        notices.notify_admins(
            session, f"{name} is {role} now", [f"They were {before}. By {actor}."], about=operator
        )
        return operator


def end_sessions(name: str, *, actor: str, reason: str | None = None) -> None:
    """End all sessions of an operator. Raises NotFound, Unavailable."""
    with transaction() as session:
        operator = operators.lock(session, name)
        operators.end_sessions(session, name)
        _write(session, "operator_signed_out", name, actor, reason)
        notices.notify_admins(session, f"{name} was signed out everywhere", [f"By {actor}."], about=operator)


def revoke_key(prefix: str, *, actor: str, reason: str | None = None) -> AppKey:
    """Revoke an app key. Raises NotFound, Conflict (already revoked), Unavailable."""
    with transaction() as session:
        key = app_keys.revoke(session, prefix, actor=actor)
        before = {"app": key.app, "scopes": key.scopes}
        _write(session, "key_revoked", key.prefix, actor, reason, before=before)
        notices.notify_admins(session, f"The key {key.prefix} of {key.app} was revoked", [f"By {actor}."])
        return key


def remove_endpoint(endpoint_id: str, *, actor: str, reason: str | None = None) -> Endpoint:
    """Remove a webhook endpoint. Raises NotFound, Conflict (already removed), Unavailable."""
    with transaction() as session:
        endpoint = endpoints.remove(session, endpoint_id, actor=actor)
        _write(session, "endpoint_removed", endpoint.id, actor, reason, before={"url": endpoint.url})
        notices.notify_admins(session, f"The endpoint {endpoint.url} was removed", [f"By {actor}."])
        return endpoint


def _write(
    session: Session,
    action: str,
    subject: object,
    actor: str,
    reason: str | None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    audit.record_change(
        session,
        action,
        subject=subject,
        actor=actor,
        reason=reason,
        before=before or {},
        after=after or {},
    )
