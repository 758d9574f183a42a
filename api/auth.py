"""Who may call, and what they may do: apps with a key.

Keys come from the database (`payouts keys`), each with its scopes. Those of API_KEYS may do everything.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from flask import Flask, current_app, g, request
from werkzeug.exceptions import Forbidden, Unauthorized

from shared import app_keys
from shared.app_keys import SCOPES, Caller
from shared.settings import Settings, is_loopback

# A key that was good is believed for so long without asking the database; so a revoked one works that long.
BELIEVED_SECONDS, MOST_BELIEVED = 5.0, 1000
EVERYTHING = frozenset(SCOPES)

View = TypeVar("View", bound=Callable[..., Any])

log = structlog.get_logger()


class Believed:
    """The keys that the database has just vouched for, by the process that asked."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, secret: str) -> Caller | None:
        """Who has this key; None when nobody may come in with it. Raises Unavailable."""
        digest, now = hashlib.sha256(secret.encode()).digest(), time.monotonic()
        known = self._known.get(digest)
        if known and known[1] > now:
            return known[0]
        found = app_keys.caller(secret)
        if found is None:
            self._known.pop(digest, None)
        else:
            if len(self._known) >= MOST_BELIEVED:
                self._known.clear()
            self._known[digest] = (found, now + BELIEVED_SECONDS)
        return found


def prepare(app: Flask) -> None:
    """Give the application its memory of keys."""
    app.extensions["believed_keys"] = Believed()


def needs(scope: str) -> Callable[[View], View]:
    """Marks a view with what a key must allow for it. A view of apps without a mark lets nobody in."""

    def mark(view: View) -> View:
        view.needs = scope  # type: ignore[attr-defined]
        return view

    return mark


def require_app() -> None:
    """Let only apps in whose key allows this; sets `g.actor`. Raises Unauthorized, Forbidden, Unavailable."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.api_auth == "off":
        _only_this_machine()
        g.actor = "app:local"
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    caller = _caller(given.strip(), settings) if scheme.lower() == "bearer" else None
    if caller is None:
        log.warning("[API] refused", path=request.path, address=request.remote_addr)
        raise Unauthorized(www_authenticate=None)
    g.actor = f"app:{caller.app}"
    if _needed() not in caller.scopes:
        log.warning("[API] not allowed", path=request.path, actor=g.actor, needs=_needed())
        raise Forbidden(f"This key lacks the scope {_needed()}")


def _needed() -> str | None:
    return getattr(current_app.view_functions.get(request.endpoint or ""), "needs", None)


def _caller(given: str, settings: Settings) -> Caller | None:
    if app_keys.looks_like_one(given):
        believed: Believed = current_app.extensions["believed_keys"]
        return believed.caller(given)
    return _of_settings(given, settings)


def _of_settings(given: str, settings: Settings) -> Caller | None:
    """A key of API_KEYS acts in the records under the beginning of its hash, never under itself."""
    digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
    known = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys]
    # All are compared, so that the time taken does not tell how far the search went.
    matches = [hmac.compare_digest(digest, one) for one in known]
    return Caller(digest.hex()[:8], EVERYTHING) if any(matches) else None


def _only_this_machine() -> None:
    """With auth off: whatever the server's address is, and whatever a web page in a browser says it is."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if not is_loopback(request.remote_addr or "") or not is_loopback(host):
        raise Unauthorized
