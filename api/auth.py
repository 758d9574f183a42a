"""Who may call, and what they may do: apps with a key, and users with a token that their app gave them.

Keys come from the database (`payouts keys`), each with its scopes. Those of API_KEYS may do everything.
A token (user_tokens.py) acts for its own user only.
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
from shared import app_keys, metrics
from shared.app_keys import SCOPES
from shared.errors import PayoutsError
from shared.settings import Settings, is_loopback

# A key that was good is believed for so long without asking the database; so a revoked one works that long.
BELIEVED_SECONDS, MOST_BELIEVED = 5.0, 1000
# For so long an address with many wrong keys does not keep the right one out (rates.py).
KNOWN_SECONDS = 600.0
EVERYTHING = frozenset(SCOPES)
OF_USERS = frozenset({"withdraw", "read"})

View = TypeVar("View", bound=Callable[..., Any])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `actor` is how they stand in the books; `user_id` is set where it is a user's own token."""

    actor: str
    scopes: frozenset[str]
    user_id: str | None = None


LOCAL = Caller("app:local", EVERYTHING)


class Believed:
    """The keys that let somebody in lately, by the process that asked."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, secret: str, settings: Settings) -> Caller | None:
        """Who has this key; None when nobody may come in with it. Raises Unavailable."""
        digest, now = _digest(secret), time.monotonic()
        known = self._known.get(digest)
        if known and now - known[1] < BELIEVED_SECONDS:
            return known[0]
        found = _of_database(secret) if app_keys.looks_like_one(secret) else _of_settings(digest, settings)
        if found is None:
            self._known.pop(digest, None)
        else:
            if len(self._known) >= MOST_BELIEVED:
                self._known.clear()
            self._known[digest] = (found, now)
        return found

    def knows(self, secret: str) -> bool:
        """Whether this key let somebody in lately."""
        known = self._known.get(_digest(secret))
        return known is not None and time.monotonic() - known[1] < KNOWN_SECONDS


def prepare(app: Flask) -> None:
    """Give the application its memory of keys and its reader of tokens."""
    app.extensions["believed_keys"] = Believed()
    app.extensions["user_tokens"] = UserTokens(app.config["SETTINGS"])
    app.before_request(recognise)


def needs(scope: str, *, users: bool = False) -> Callable[[View], View]:
    """Marks a view with what a key must allow for it, and whether users' tokens may come in as well.

    A view without a mark lets nobody in.
    """

    def mark(view: View) -> View:
        view.needs, view.lets_users_in = scope, users  # type: ignore[attr-defined]
        return view

    return mark


def recognise() -> None:
    """Before anything is counted or refused: who asks, as far as no database is needed to know it."""
    g.caller, g.credential, g.refusal = None, "", None
    g.is_known = current_app.config["SETTINGS"].api_auth == "off"
    given = _given()
    if not given:
        return
    g.credential = _digest(given).hex()
    believed: Believed = current_app.extensions["believed_keys"]
    tokens: UserTokens = current_app.extensions["user_tokens"]
    if believed.knows(given):
        g.is_known = True
    elif tokens.may_be_one(given):
        try:
            user_id = tokens.user_id(given)
            g.caller, g.is_known = Caller(f"user:{user_id}", OF_USERS, user_id), True
        except PayoutsError as refusal:
            g.refusal = refusal


def require_app() -> None:
    """Let only those in who may do this; sets `g.actor`.

    Raises Unauthorized, BadToken, TokenExpired, Forbidden, Unavailable.
    """
    caller = g.caller = g.caller or _caller()
    g.actor = caller.actor
    view = current_app.view_functions.get(request.endpoint or "")
    needed = getattr(view, "needs", None)
    if caller.user_id is not None and not getattr(view, "lets_users_in", False):
        raise _not_allowed("A user's token may not do this")
    if needed not in caller.scopes:
        raise _not_allowed(f"This key lacks the scope {needed}")


def only_for(user_id: str) -> None:
    """Let a user's token act for its own user only; keys of apps act for all. Raises Forbidden."""
    if g.caller.user_id not in (None, user_id):
        raise _not_allowed("This token acts for its own user only")


def _given() -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _caller() -> Caller:
    """Who has this key, if anybody. Raises what `require_app` does."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.api_auth == "off":
        _only_this_machine()
        return LOCAL
    if g.refusal is not None:
        g.has_failed = isinstance(g.refusal, BadToken) and not isinstance(g.refusal, TokenExpired)
        metrics.AUTH_FAILURES.labels("bad_token" if g.has_failed else "no_good_token").inc()
        raise g.refusal
    given = _given()
    believed: Believed = current_app.extensions["believed_keys"]
    caller = believed.caller(given, settings) if given else None
    if caller is None:
        g.has_failed = True
        metrics.AUTH_FAILURES.labels("wrong_key" if given else "no_key").inc()
        log.warning("[API] refused", path=request.path, address=request.remote_addr)
        raise Unauthorized(www_authenticate=None)
    return caller


def _not_allowed(why: str) -> Forbidden:
    metrics.AUTH_FAILURES.labels("not_allowed").inc()
    log.warning("[API] not allowed", path=request.path, actor=g.actor, why=why)
    return Forbidden(why)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _of_database(secret: str) -> Caller | None:
    found = app_keys.caller(secret)
    return Caller(f"app:{found.app}", found.scopes) if found else None


def _of_settings(digest: bytes, settings: Settings) -> Caller | None:
    """A key of API_KEYS acts in the records under the beginning of its hash, never under itself."""
    known = [_digest(key.get_secret_value()) for key in settings.api_keys]
    # All are compared, so that the time taken does not tell how far the search went.
    matches = [hmac.compare_digest(digest, one) for one in known]
    return Caller(f"app:{digest.hex()[:8]}", EVERYTHING) if any(matches) else None


def _only_this_machine() -> None:
    """With auth off: whatever the server's address is, and whatever a web page in a browser says it is."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if not is_loopback(request.remote_addr or "") or not is_loopback(host):
        raise Unauthorized(www_authenticate=None)
