"""Who may call: apps with a key."""

import hashlib
import hmac

import structlog
from flask import current_app, g, request
from werkzeug.exceptions import Unauthorized

from shared.errors import SettingsError
from shared.settings import Settings, is_loopback

log = structlog.get_logger()


def check_settings(settings: Settings) -> None:
    """Refuse to start an API that nobody, or everybody, could call. Raises SettingsError."""
    if settings.api_auth == "on" and not settings.api_keys:
        raise SettingsError(["API_KEYS: is missing (or, on loopback only, set API_AUTH=off)"])


def require_app() -> None:
    """Let only apps with a key in; sets `g.actor`. Raises Unauthorized."""
    settings: Settings = current_app.config["SETTINGS"]
    if settings.api_auth == "off":
        _only_this_machine()
        g.actor = "app:local"
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    name = _name_of(given.strip(), settings) if scheme.lower() == "bearer" else None
    if name is None:
        log.warning("[API] refused", path=request.path, address=request.remote_addr)
        raise Unauthorized(www_authenticate=None)
    g.actor = name


def _name_of(given: str, settings: Settings) -> str | None:
    """The name under which a key acts in the records: the beginning of its hash, never the key."""
    digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
    known = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys]
    # All are compared, so that the time taken does not tell how far the search went.
    matches = [hmac.compare_digest(digest, one) for one in known]
    return f"app:{digest.hex()[:8]}" if any(matches) else None


def _only_this_machine() -> None:
    """With auth off: whatever the server's address is, and whatever a web page in a browser says it is."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if not is_loopback(request.remote_addr or "") or not is_loopback(host):
        raise Unauthorized
