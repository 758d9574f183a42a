"""What is proposed about apps: keys and endpoints. The secret is made, and shown, when it is claimed."""

from typing import Any

from sqlalchemy.orm import Session

from shared import app_keys
from shared.models import AdminProposal, AppKey
from shared.notifications import endpoints

Wanted = dict[str, Any]


def new_key(session: Session, app: str, wanted: Wanted) -> Wanted:
    app_keys.must_be_possible(app, wanted["scopes"])
    return {}


def key(session: Session, prefix: str, _: Wanted) -> Wanted:
    key = app_keys.found(session, prefix)
    return {"app": key.app, "scopes": key.scopes}


def show_key(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    wanted = proposal.wanted
    key, secret = app_keys.create(
        session,
        app=proposal.subject,
        scopes=wanted["scopes"],
        actor=proposal.proposed_by,
        days=wanted.get("days"),
    )
    return f"{_key_words(key)}. This key is not shown again", secret


def show_rotated(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    hours = proposal.wanted["grace_hours"]
    key, secret = app_keys.rotate(session, proposal.subject, actor=proposal.proposed_by, grace_hours=hours)
    return f"{_key_words(key)}; the old key works for {hours:g} h more. This key is not shown again", secret


def _key_words(key: AppKey) -> str:
    until = f" until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    return f"{key.app} may {', '.join(key.scopes)}{until}"


def tells_key(app: str, wanted: Wanted) -> list[str]:
    days = f"for {wanted['days']:g} days" if wanted.get("days") else "until it is revoked"
    return [
        f"{app} gets a key that may {', '.join(wanted['scopes'])}, for every user, {days}.",
        "Whoever proposed it claims the key afterwards; it is shown once.",
    ]


def tells_rotated(prefix: str, wanted: Wanted) -> list[str]:
    return [
        f"The key {prefix} is replaced by a new one for the same app and scopes.",
        f"The old one works for {wanted['grace_hours']:g} h more.",
        "Whoever proposed it claims the new key afterwards; it is shown once.",
    ]


def new_endpoint(session: Session, url: str, wanted: Wanted) -> Wanted:
    endpoints.must_be_possible(session, url, allow_private=wanted["allow_private"])
    return {}


def show_endpoint(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    made, secret = endpoints.add(
        session,
        proposal.subject,
        actor=proposal.proposed_by,
        allow_private=proposal.wanted["allow_private"],
    )
    return f"{made.id} is told of each change from now on. Its secret", secret


def an_endpoint(session: Session, which: str, _: Wanted) -> Wanted:
    one = endpoints.find(session, which)
    return {"id": str(one.id), "url": one.url, "generation": one.generation}


def show_secret(session: Session, proposal: AdminProposal) -> tuple[str, str]:
    hours = proposal.wanted["grace_hours"]
    one, secret = endpoints.rotate(session, proposal.subject, actor=proposal.proposed_by, grace_hours=hours)
    return f"{one.url}: the old secret signs too for {hours:g} h. The new one", secret


def tells_endpoint(url: str, wanted: Wanted) -> list[str]:
    private = [f"{url} may be a private address, and http://."] if wanted["allow_private"] else []
    return [
        f"{url} is told of each change of each withdrawal from then on.",
        *private,
        "Whoever proposed it claims its secret afterwards.",
    ]


def tells_secret(which: str, wanted: Wanted) -> list[str]:
    return [
        f"{which} gets another secret; the old one signs too for {wanted['grace_hours']:g} h.",
        "Whoever proposed it claims the new secret afterwards.",
    ]
