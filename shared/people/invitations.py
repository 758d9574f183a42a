"""Invitations: links with which operators choose a password. A link works once, expires, and only the newest
works.

The link is signed, not stored: its signature is derived from the invitation's id and ADMIN_SECRET_KEY. So
neither the database nor a queued mail in it contains a working link.
"""

import hashlib
import hmac
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.errors import NotFound, SettingsError
from shared.ids import parse_id
from shared.models import Invitation, Operator
from shared.settings import settings

PATH = "invitation/"
ID_LENGTH = 36  # of a UUID, in characters
SIGNATURE_PREFIX = b"operator invitation "  # separates these signatures from others with the same key
OPEN = Invitation.used_at.is_(None) & Invitation.ended_at.is_(None)


def create(session: Session, operator: str, *, actor: str) -> Invitation:
    """Create an invitation for an operator, revoking the previous one. Raises SettingsError without a key."""
    _key()  # raise before anything changes: without the key there is no link and no panel
    revoke(session, operator)
    lifetime = timedelta(hours=settings().admin_invitation_hours)
    invitation = Invitation(operator=operator, created_by=actor, expires_at=func.now() + lifetime)
    session.add(invitation)
    session.flush()
    session.refresh(invitation)
    return invitation


def revoke(session: Session, operator: str) -> None:
    """Revoke this operator's open invitation, if there is one."""
    invitation = update(Invitation).where(Invitation.operator == operator, OPEN)
    session.execute(invitation.values(ended_at=func.now()))


def url_of(invitation_id: UUID) -> str:
    """Return the invitation's URL; without ADMIN_URL, only its path."""
    base = (settings().admin_url or "/admin/").rstrip("/")
    return f"{base}/{PATH}?token={invitation_id}{_signature(invitation_id)}"


def find(session: Session, token: str, *, lock: bool = False) -> Invitation:
    """Return the open invitation of a token.

    Raises NotFound: forged, used, replaced, expired, or the operator is disabled.
    """
    invitation_id = parse_id(token[:ID_LENGTH])
    signature = token[ID_LENGTH:]
    is_signed = invitation_id is not None and hmac.compare_digest(
        _signature(invitation_id).encode(), signature.encode("utf-8", "replace")
    )
    query = (
        select(Invitation)
        .join(Operator, Operator.name == Invitation.operator)
        .where(Invitation.id == invitation_id, OPEN, Invitation.expires_at > func.now())
        .where(Operator.disabled_at.is_(None))
    )
    invitation = (
        session.scalar(query.with_for_update(of=Invitation) if lock else query) if is_signed else None
    )
    if invitation is None:
        raise NotFound(
            "This link does not work",
            "It was used, replaced or has expired. Ask an admin for a new one",
            code="invitation_not_found",
        )
    return invitation


def open_invitations(session: Session) -> dict[str, Invitation]:
    """Return the invitations that are not used and not expired, by operator."""
    query = select(Invitation).where(OPEN, Invitation.expires_at > func.now())
    return {invitation.operator: invitation for invitation in session.scalars(query)}


def _signature(invitation_id: UUID) -> str:
    return hmac.new(_key(), SIGNATURE_PREFIX + invitation_id.bytes, hashlib.sha256).hexdigest()


def _key() -> bytes:
    key = settings().admin_secret_key
    if key is None:
        raise SettingsError(["ADMIN_SECRET_KEY: is required for the panel and for links into it"])
    return key.get_secret_value().encode()
