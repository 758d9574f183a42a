"""API keys of apps: create, find, rotate, revoke. A key is shown once; only its hash is stored.

A key is 256 random bits, so a fast hash is as safe as a slow one: no one can try them all.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from shared.db.transactions import autocommit, map_db_errors
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import AppKey

SCOPES = ("withdraw", "read", "credit")
KEY_MARKER = "cpk"  # identifies a leaked key in a log or a repository
PREFIX_BYTES = 5
SECRET_BYTES = 32
MAX_APP_CHARACTERS = 50
LAST_USED_PRECISION_SECONDS = 60  # `last_used_at` is not more precise: else every request would write


@dataclass(frozen=True, slots=True)
class Caller:
    """The app that a key belongs to, and the key's scopes."""

    app: str
    scopes: frozenset[str]


def create(
    session: Session, *, app: str, scopes: Collection[str], actor: str, days: float | None = None
) -> tuple[AppKey, str]:
    """Create a key; returns it with its secret, which cannot be shown again. Raises BadRequest."""
    validate(app, scopes)
    prefix = f"{KEY_MARKER}_{secrets.token_hex(PREFIX_BYTES)}"
    secret = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    key = AppKey(
        prefix=prefix,
        secret_sha256=_sha256(secret),
        app=app,
        scopes=[scope for scope in SCOPES if scope in scopes],
        created_by=actor,
        expires_at=None if days is None else func.now() + timedelta(days=days),
    )
    session.add(key)
    session.flush()
    session.refresh(key)
    return key, secret


def validate(app: str, scopes: Collection[str]) -> None:
    """Check the app's name and the scopes of a new key. Raises BadRequest."""
    if not 0 < len(app) <= MAX_APP_CHARACTERS or not app.isprintable() or not app.isascii() or " " in app:
        raise BadRequest(
            "Invalid name",
            f"Use 1 to {MAX_APP_CHARACTERS} ASCII characters without spaces for the app's name",
            code="bad_app",
        )
    if not scopes or not set(scopes) <= set(SCOPES):
        raise BadRequest("Invalid scope", f"Use one or more of: {', '.join(SCOPES)}", code="bad_scope")


def revoke(session: Session, prefix: str, *, actor: str) -> AppKey:
    """Revoke a key. Raises NotFound, Conflict if it is revoked already."""
    key = find_active(session, prefix)
    key.revoked_at = func.now()
    key.revoked_by = actor
    session.flush()
    return key


def rotate(session: Session, prefix: str, *, actor: str, grace_hours: float) -> tuple[AppKey, str]:
    """Create a key for the same app and scopes; the old one works `grace_hours` more. Raises as revoke."""
    old = find_active(session, prefix)
    days = (old.expires_at - old.created_at) / timedelta(days=1) if old.expires_at else None
    # PostgreSQL's least() ignores NULL, which here means "never expires".
    old.expires_at = func.least(old.expires_at, func.now() + timedelta(hours=grace_hours))
    return create(session, app=old.app, scopes=old.scopes, actor=actor, days=days)


def list_keys(session: Session, app: str | None = None) -> list[AppKey]:
    """Return all keys, or those of one app, newest last."""
    keys = select(AppKey).order_by(AppKey.created_at, AppKey.prefix)
    return list(session.scalars(keys.where(AppKey.app == app) if app else keys))


def find_caller(secret: str) -> Caller | None:
    """Return the caller of this key, or None if the key is not valid. Raises Unavailable."""
    usable = (AppKey.revoked_at.is_(None)) & or_(AppKey.expires_at.is_(None), AppKey.expires_at > func.now())
    query = select(
        AppKey.app,
        AppKey.scopes,
        or_(
            AppKey.last_used_at.is_(None),
            AppKey.last_used_at < func.now() - timedelta(seconds=LAST_USED_PRECISION_SECONDS),
        ).label("is_stale"),
    ).where(AppKey.secret_sha256 == _sha256(secret), usable)
    with map_db_errors(), autocommit() as connection:
        key = connection.execute(query).one_or_none()
        if key is None:
            return None
        if key.is_stale:
            touch = update(AppKey).where(AppKey.secret_sha256 == _sha256(secret))
            connection.execute(touch.values(last_used_at=func.now()))
    return Caller(key.app, frozenset(key.scopes))


def looks_like_key(secret: str) -> bool:
    """True if `secret` can be one of these keys: only then is the database queried."""
    return secret.startswith(f"{KEY_MARKER}_") and secret.isascii() and len(secret) < 100


def find_active(session: Session, prefix: str) -> AppKey:
    """Return the key with this prefix, if it is not revoked. `prefix` may also be the whole key.

    Raises NotFound, Conflict if it is revoked.
    """
    key_prefix = "_".join(prefix.split("_")[:2])
    key = session.scalar(select(AppKey).where(AppKey.prefix == key_prefix).with_for_update())
    if key is None:
        raise NotFound("No such key", f"No key starts with {key_prefix[:30]}", code="key_not_found")
    if key.revoked_at is not None:
        raise Conflict("Already revoked", f"The key {key.prefix} is revoked", code="key_revoked")
    return key


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
