"""The link with which an operator chooses their own password: for one use, for a time, and only the newest.

The link is signed, not kept: its mark is derived from the invitation's id and ADMIN_SECRET_KEY. So neither
the database nor a mail that waits in it holds anything that lets somebody in.
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
ID_LETTERS = 36  # of a UUID
DOMAIN = b"operator invitation "  # no other signature with this key is one of these
OPEN = Invitation.used_at.is_(None) & Invitation.ended_at.is_(None)


def make(session: Session, operator: str, *, actor: str) -> Invitation:
    """A new link for an operator; the one before works no more. Raises SettingsError without a key."""
    _key()  # without it there is neither a link nor a panel: say so before anything is done
    end(session, operator)
    hours = timedelta(hours=settings().admin_invitation_hours)
    made = Invitation(operator=operator, created_by=actor, expires_at=func.now() + hours)
    session.add(made)
    session.flush()
    session.refresh(made)
    return made


def end(session: Session, operator: str) -> None:
    """Whatever link this operator has works no more."""
    mine = update(Invitation).where(Invitation.operator == operator, OPEN)
    session.execute(mine.values(ended_at=func.now()))


def link(invitation_id: UUID) -> str:
    """The address of the page; without ADMIN_URL only its path."""
    base = (settings().admin_url or "/admin/").rstrip("/")
    return f"{base}/{PATH}?token={invitation_id}{_mark(invitation_id)}"


def find(session: Session, token: str, *, lock: bool = False) -> Invitation:
    """The open invitation of a link. Raises NotFound: forged, used, replaced, expired, of a disabled one."""
    invitation_id, mark = parse_id(token[:ID_LETTERS]), token[ID_LETTERS:]
    is_ours = invitation_id is not None and hmac.compare_digest(
        _mark(invitation_id).encode(), mark.encode("utf-8", "replace")
    )
    query = (
        select(Invitation)
        .join(Operator, Operator.name == Invitation.operator)
        .where(Invitation.id == invitation_id, OPEN, Invitation.expires_at > func.now())
        .where(Operator.disabled_at.is_(None))
    )
    found = session.scalar(query.with_for_update(of=Invitation) if lock else query) if is_ours else None
    if found is None:
        raise NotFound(
            "This link does not work",
            "It was used, replaced or has expired. Ask an admin for a new one",
            code="invitation_not_found",
        )
    return found


def waiting(session: Session) -> dict[str, Invitation]:
    """The links that were not used yet, by operator."""
    query = select(Invitation).where(OPEN, Invitation.expires_at > func.now())
    return {one.operator: one for one in session.scalars(query)}


def _mark(invitation_id: UUID) -> str:
    return hmac.new(_key(), DOMAIN + invitation_id.bytes, hashlib.sha256).hexdigest()


def _key() -> bytes:
    key = settings().admin_secret_key
    if key is None:
        raise SettingsError(["ADMIN_SECRET_KEY: is required for the panel and for links into it"])
    return key.get_secret_value().encode()
