"""Authentication and scopes: apps with an API key, and users with a token from their app.

Keys are stored in the database with their scopes (`payouts keys`). Keys in API_KEYS have all scopes. A token
(user_tokens.py) acts for its own user only.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from flask import Flask, current_app, g, request
from werkzeug.exceptions import Forbidden, Unauthorized

from api.user_tokens import BadToken, TokenExpired, UserTokens
from shared.access import app_keys
from shared.access.app_keys import SCOPES
from shared.errors import PayoutsError
from shared.settings import Settings, is_loopback
from shared.telemetry import metrics

# A valid key is cached this long without a query, so a revoked key works this long.
KEY_CACHE_SECONDS = 5.0
MAX_CACHED_KEYS = 1000
# A key that was valid this recently is exempt from the limits for unknown callers of its address
# (rate_limits.py).
RECENTLY_VALID_SECONDS = 600.0
ALL_SCOPES = frozenset(SCOPES)
USER_SCOPES = frozenset({"withdraw", "read"})

View = TypeVar("View", bound=Callable[..., Any])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller. `actor` is recorded with what they do; `user_id` is set for user tokens."""

    actor: str
    scopes: frozenset[str]
    user_id: str | None = None


LOCAL = Caller("app:local", ALL_SCOPES)


class KeyCache:
    """The recently valid keys of this process."""

    def __init__(self) -> None:
        self._callers: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, secret: str, digest: bytes, settings: Settings) -> Caller | None:
        """Return the caller of the key with this hash, or None if it is not valid. Raises Unavailable."""
        now = time.monotonic()
        cached = self._callers.get(digest)
        if cached and now - cached[1] < KEY_CACHE_SECONDS:
            return cached[0]
        is_stored = app_keys.looks_like_key(secret)
        caller = _find_in_database(secret) if is_stored else _find_in_settings(digest, settings)
        if caller is None:
            self._callers.pop(digest, None)
        else:
            if len(self._callers) >= MAX_CACHED_KEYS:
                self._callers.clear()
            self._callers[digest] = (caller, now)
        return caller

    def was_valid_recently(self, digest: bytes) -> bool:
        """True if the key with this hash was valid in the last `RECENTLY_VALID_SECONDS`."""
        cached = self._callers.get(digest)
        return cached is not None and time.monotonic() - cached[1] < RECENTLY_VALID_SECONDS


def register(app: Flask) -> None:
    """Add the key cache and the token reader, and identify the caller of each request."""
    app.extensions["key_cache"] = KeyCache()
    app.extensions["user_tokens"] = UserTokens(app.config["SETTINGS"])
    app.before_request(identify_caller)


def needs(scope: str, *, users: bool = False) -> Callable[[View], View]:
    """Mark a view with the scope that it requires, and whether it accepts user tokens.

    A view without a mark refuses every caller.
    """

    def mark(view: View) -> View:
        view.needs = scope  # type: ignore[attr-defined]
        view.accepts_users = users  # type: ignore[attr-defined]
        return view

    return mark


def identify_caller() -> None:
    """Identify the caller, as far as possible without the database, before any limit counts the request."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # each use of a proxy looks it up
    here = g._get_current_object()
    here.caller = here.token_error = None
    here.credential = ""
    here.is_known = app.config["SETTINGS"].api_auth == "off"
    secret = here.secret = _bearer_token()
    if not secret:
        return
    here.digest = _digest(secret)
    here.credential = here.digest.hex()
    keys: KeyCache = app.extensions["key_cache"]
    tokens: UserTokens = app.extensions["user_tokens"]
    if keys.was_valid_recently(here.digest):
        here.is_known = True
    elif tokens.looks_like_token(secret):
        try:
            user_id = tokens.user_id(secret)
            here.caller = Caller(f"user:{user_id}", USER_SCOPES, user_id)
            here.is_known = True
        except PayoutsError as error:
            here.token_error = error


def require_access() -> None:
    """Authenticate the caller and check the view's scope; sets `g.actor`.

    Raises Unauthorized, BadToken, TokenExpired, Forbidden, Unavailable.
    """
    here = g._get_current_object()
    caller = here.caller = here.caller or _authenticate(here)
    here.actor = caller.actor
    view = current_app.view_functions.get(request.endpoint or "")
    scope = getattr(view, "needs", None)
    if caller.user_id is not None and not getattr(view, "accepts_users", False):
        raise _forbidden("User tokens are not accepted here. Use an API key")
    if scope not in caller.scopes:
        raise _forbidden(f"This key does not have the scope {scope}")


def require_own_user(user_id: str) -> None:
    """Check that a user token acts for its own user; API keys act for all users. Raises Forbidden."""
    if g.caller.user_id not in (None, user_id):
        raise _forbidden("This token is for another user")


def _bearer_token() -> str:
    scheme, _, token = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _authenticate(here: Any) -> Caller:
    """Return the caller of the request's key. Raises what `require_access` does."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    settings: Settings = app.config["SETTINGS"]
    if settings.api_auth == "off":
        _require_loopback()
        return LOCAL
    if here.token_error is not None:
        here.has_failed = isinstance(here.token_error, BadToken) and not isinstance(
            here.token_error, TokenExpired
        )
        metrics.AUTH_FAILURES.labels("bad_token" if here.has_failed else "no_good_token").inc()
        raise here.token_error
    keys: KeyCache = app.extensions["key_cache"]
    caller = keys.caller(here.secret, here.digest, settings) if here.secret else None
    if caller is None:
        here.has_failed = True
        metrics.AUTH_FAILURES.labels("wrong_key" if here.secret else "no_key").inc()
        log.warning("[API] refused", path=request.path, address=request.remote_addr)
        raise Unauthorized(www_authenticate=None)
    return caller


def _forbidden(why: str) -> Forbidden:
    metrics.AUTH_FAILURES.labels("not_allowed").inc()
    log.warning("[API] not allowed", path=request.path, actor=g.actor, why=why)
    return Forbidden(why)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _find_in_database(secret: str) -> Caller | None:
    caller = app_keys.find_caller(secret)
    return Caller(f"app:{caller.app}", caller.scopes) if caller else None


def _find_in_settings(digest: bytes, settings: Settings) -> Caller | None:
    """Find a key of API_KEYS. Its actor is the start of its hash, because the key itself is secret."""
    digests = [_digest(key.get_secret_value()) for key in settings.api_keys]
    # Compare with all of them: the time must not reveal which one matched.
    matches = [hmac.compare_digest(digest, known) for known in digests]
    return Caller(f"app:{digest.hex()[:8]}", ALL_SCOPES) if any(matches) else None


def _require_loopback() -> None:
    """With auth off, accept only local requests whose Host is local too, against DNS rebinding."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if not is_loopback(request.remote_addr or "") or not is_loopback(host):
        raise Unauthorized(www_authenticate=None)
