"""Proposals about app keys and webhook endpoints. The secret is created when the maker claims it."""

from typing import Any

from sqlalchemy.orm import Session

from shared.access import app_keys
from shared.models import AdminProposal, AppKey
from shared.notifications.webhooks import endpoints

Wanted = dict[str, Any]


def check_new_key(session: Session, app: str, wanted: Wanted) -> Wanted:
    """Return no facts: a new key replaces nothing. Raises BadRequest."""
    app_keys.validate(app, wanted["scopes"])
    return {}


def current_key(session: Session, prefix: str, _: Wanted) -> Wanted:
    """Return the facts about the key to replace. Raises NotFound, Conflict."""
    key = app_keys.find_active(session, prefix)
    return {"app": key.app, "scopes": key.scopes}


def create_key(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    """Create the key; returns its description and the secret."""
    wanted = proposal.wanted
    key, secret = app_keys.create(
        session,
        app=proposal.subject,
        scopes=wanted["scopes"],
        actor=proposal.proposed_by,
        days=wanted.get("days"),
    )
    return f"{_describe_key(key)}. This key is not shown again", secret


def rotate_key(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    """Replace the key; returns the new one's description and secret."""
    hours = proposal.wanted["grace_hours"]
    key, secret = app_keys.rotate(session, proposal.subject, actor=proposal.proposed_by, grace_hours=hours)
    description = f"{_describe_key(key)}; the old key works for another {hours:g} h"
    return f"{description}. This key is not shown again", secret


def _describe_key(key: AppKey) -> str:
    until = f" until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    return f"{key.app} may {', '.join(key.scopes)}{until}"


def describe_new_key(app: str, wanted: Wanted) -> list[str]:
    """Say what happens when it is confirmed."""
    days = f"for {wanted['days']:g} days" if wanted.get("days") else "until it is revoked"
    return [
        f"{app} gets a key that may {', '.join(wanted['scopes'])}, for every user, {days}.",
        "The proposer then claims the key, which is shown once.",
    ]


def describe_rotated_key(prefix: str, wanted: Wanted) -> list[str]:
    """Say what happens when it is confirmed."""
    return [
        f"The key {prefix} is replaced by a new one for the same app and scopes.",
        f"The old one works for another {wanted['grace_hours']:g} h.",
        "The proposer then claims the new key, which is shown once.",
    ]


def check_new_endpoint(session: Session, url: str, wanted: Wanted) -> Wanted:
    """Return no facts: a new endpoint replaces nothing. Raises BadRequest, Conflict."""
    endpoints.validate(session, url, allow_private=wanted["allow_private"])
    return {}


def add_endpoint(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    """Add the endpoint; returns its description and secret."""
    endpoint, secret = endpoints.add(
        session,
        proposal.subject,
        actor=proposal.proposed_by,
        allow_private=proposal.wanted["allow_private"],
    )
    return f"{endpoint.id} receives all changes from now on. Its secret", secret


def current_endpoint(session: Session, subject: str, _: Wanted) -> Wanted:
    """Return the facts about the endpoint. Raises NotFound, Conflict."""
    endpoint = endpoints.find(session, subject)
    return {"id": str(endpoint.id), "url": endpoint.url, "generation": endpoint.generation}


def rotate_secret(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    """Replace the endpoint's secret; returns a description and the new secret."""
    hours = proposal.wanted["grace_hours"]
    endpoint, secret = endpoints.rotate(
        session, proposal.subject, actor=proposal.proposed_by, grace_hours=hours
    )
    return f"{endpoint.url}: the old secret also signs for another {hours:g} h. The new one", secret


def describe_new_endpoint(url: str, wanted: Wanted) -> list[str]:
    """Say what happens when it is confirmed."""
    private = [f"{url} may be a private address and use http://."] if wanted["allow_private"] else []
    return [
        f"{url} receives every change of every withdrawal from then on.",
        *private,
        "The proposer then claims its secret.",
    ]


def describe_new_secret(subject: str, wanted: Wanted) -> list[str]:
    """Say what happens when it is confirmed."""
    return [
        f"{subject} gets a new secret; the old one also signs for another {wanted['grace_hours']:g} h.",
        "The proposer then claims the new secret.",
    ]
