"""The keys of apps: made, looked up, replaced, withdrawn. A key is shown once; only its hash is kept.

A key is 256 random bits, so a plain hash of it is as good as a slow one: nobody can try them all.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from shared.db import one_statement, told_plainly
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import AppKey

SCOPES = ("withdraw", "read", "credit")
MARK = "cpk"  # so that a leaked key is found in a log, and says what it is
PREFIX_BYTES, SECRET_BYTES = 5, 32
MAX_APP = 50
USED_SECONDS = 60  # the time of the last use is kept to this, or every request would write


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to, and what it may do."""

    app: str
    scopes: frozenset[str]


def create(
    session: Session, *, app: str, scopes: Collection[str], actor: str, days: float | None = None
) -> tuple[AppKey, str]:
    """A new key, and its secret, which nobody can be told again. Raises BadRequest."""
    must_be_possible(app, scopes)
    prefix = f"{MARK}_{secrets.token_hex(PREFIX_BYTES)}"
    secret = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    key = AppKey(
        prefix=prefix,
        secret_sha256=_hashed(secret),
        app=app,
        scopes=[scope for scope in SCOPES if scope in scopes],
        created_by=actor,
        expires_at=None if days is None else func.now() + timedelta(days=days),
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def must_be_possible(app: str, scopes: Collection[str]) -> None:
    """Whether there can be such a key. Raises BadRequest."""
    if not 0 < len(app) <= MAX_APP or not app.isprintable() or not app.isascii() or " " in app:
        raise BadRequest(
            "Invalid name",
            f"An app's name has 1 to {MAX_APP} ASCII characters without blanks",
            code="bad_app",
        )
    if not scopes or not set(scopes) <= set(SCOPES):
        raise BadRequest("Invalid scope", f"Scopes are {', '.join(SCOPES)}", code="bad_scope")


def revoke(session: Session, prefix: str, *, actor: str) -> AppKey:
    """From now on it lets nobody in. Raises NotFound, Conflict when that was so already."""
    key = found(session, prefix)
    key.revoked_at, key.revoked_by = func.now(), actor
    session.flush()
    return key


def rotate(session: Session, prefix: str, *, actor: str, grace_hours: float) -> tuple[AppKey, str]:
    """A new key for the same app and scopes; the old one lets in for so long still. Raises as revoke does."""
    old = found(session, prefix)
    days = (old.expires_at - old.created_at) / timedelta(days=1) if old.expires_at else None
    # PostgreSQL's least() passes over NULL, which here means "for ever".
    old.expires_at = func.least(old.expires_at, func.now() + timedelta(hours=grace_hours))
    return create(session, app=old.app, scopes=old.scopes, actor=actor, days=days)


def listing(session: Session, app: str | None = None) -> list[AppKey]:
    """Every key, newest last; of one app if given."""
    keys = select(AppKey).order_by(AppKey.created_at, AppKey.prefix)
    return list(session.scalars(keys.where(AppKey.app == app) if app else keys))


def caller(secret: str) -> Caller | None:
    """Who has this key; None when nobody may come in with it. Raises Unavailable."""
    usable = (AppKey.revoked_at.is_(None)) & or_(AppKey.expires_at.is_(None), AppKey.expires_at > func.now())
    query = select(
        AppKey.app,
        AppKey.scopes,
        or_(
            AppKey.last_used_at.is_(None),
            AppKey.last_used_at < func.now() - timedelta(seconds=USED_SECONDS),
        ).label("is_stale"),
    ).where(AppKey.secret_sha256 == _hashed(secret), usable)
    with told_plainly(), one_statement() as connection:
        found = connection.execute(query).one_or_none()
        if found is None:
            return None
        if found.is_stale:
            used = update(AppKey).where(AppKey.secret_sha256 == _hashed(secret))
            connection.execute(used.values(last_used_at=func.now()))
    return Caller(found.app, frozenset(found.scopes))


def looks_like_one(given: str) -> bool:
    """Whether it can be one of these keys, so that the database need not be asked about anything else."""
    return given.startswith(f"{MARK}_") and given.isascii() and len(given) < 100


def found(session: Session, prefix: str) -> AppKey:
    """A key that is not revoked, by what people see of it or as a whole: it begins with that.

    Raises NotFound, Conflict when it was revoked.
    """
    wanted = "_".join(prefix.split("_")[:2])
    key = session.scalar(select(AppKey).where(AppKey.prefix == wanted).with_for_update())
    if key is None:
        raise NotFound("No such key", f"No key begins with {wanted[:30]}", code="key_not_found")
    if key.revoked_at is not None:
        raise Conflict("Revoked already", f"{key.prefix} was revoked before", code="key_revoked")
    return key


def _hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
