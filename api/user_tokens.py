"""Tokens of end users: signed JWTs that the app's own server gives them. `sub` is the user's id (RFC 7519).

Signed with a secret that the app shares with us (HS256), or with a key of the app's JWKS (RS256, ES256).
"""

import json
import threading
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import jwt
import structlog
from flask import request
from jwt import PyJWK, PyJWKSet
from pydantic_core import PydanticCustomError

from shared.errors import PayoutsError, Unavailable
from shared.fields import MAX_USER_ID, text
from shared.notifications import lines
from shared.settings import Settings

BY_SECRET, BY_KEY = "HS256", ("RS256", "ES256")
MAX_TOKEN = 8000  # characters; a token with a few claims has some hundred
# The keys are asked for anew after so long, and, when one is missing, so soon; old ones serve meanwhile.
KEYS_SECONDS, ASK_AGAIN_SECONDS, FETCH_SECONDS = 300.0, 10.0, 3.0
MAX_KEYS_BYTES = 256 * 1024  # a key has about one KiB

log = structlog.get_logger()


class BadToken(PayoutsError):
    """Nobody comes in with this token."""

    http_status = 401


class TokenExpired(BadToken):
    """It was good once: the user's app fetches a new one."""


class UserTokens:
    """Reads tokens as the settings say."""

    def __init__(self, settings: Settings) -> None:
        secrets = (settings.user_token_secret, settings.user_token_secret_previous)
        self._secrets = [secret.get_secret_value() for secret in secrets if secret is not None]
        jwks_url = settings.user_token_jwks_url
        self._keys = PublishedKeys(jwks_url, settings.api_threads) if jwks_url else None
        self._max_seconds = settings.user_token_max_seconds + settings.user_token_leeway_seconds
        self._claims: dict[str, Any] = {
            "audience": settings.user_token_audience,
            "issuer": settings.user_token_issuer,
            "leeway": settings.user_token_leeway_seconds,
            "options": {"require": ["exp", "sub", "aud", "iss"]},
        }

    def may_be_one(self, given: str) -> bool:
        """Whether tokens are used here, and this looks like one."""
        return bool(self._secrets or self._keys) and given.count(".") == 2 and len(given) <= MAX_TOKEN

    def user_id(self, token: str) -> str:
        """Whose token it is. Raises BadToken, TokenExpired, Unavailable (the app's keys cannot be read)."""
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if algorithm == BY_SECRET and self._secrets:
                return self._subject(self._by_secret(token))
            if algorithm in BY_KEY and self._keys:
                key = self._keys.key(jwt.get_unverified_header(token).get("kid"))
                return self._subject(jwt.decode(token, key, algorithms=list(BY_KEY), **self._claims))
        except jwt.ExpiredSignatureError:
            raise TokenExpired(
                "Authentication required", "The token has expired; fetch a new one", code="token_expired"
            ) from None
        except (jwt.PyJWTError, OverflowError) as error:  # exp: Infinity
            raise _bad(type(error).__name__) from None
        raise _bad("its alg is not one of ours")

    def _subject(self, claims: dict[str, Any]) -> str:
        # A token that is good for years is a password that nobody can change.
        if float(claims["exp"]) > time.time() + self._max_seconds:
            raise _bad("its exp is later than USER_TOKEN_MAX_SECONDS allows")
        return _subject(claims)

    def _by_secret(self, token: str) -> dict[str, Any]:
        for secret in self._secrets[:-1]:
            try:
                return dict(jwt.decode(token, secret, algorithms=[BY_SECRET], **self._claims))
            except jwt.InvalidSignatureError:
                continue  # signed before the secret was changed
        return dict(jwt.decode(token, self._secrets[-1], algorithms=[BY_SECRET], **self._claims))


class PublishedKeys:
    """The app's public keys, by their ids. While they cannot be read, those that are known go on to serve."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self._keys: dict[str | None, PyJWK] = {}
        self._asked_at = -ASK_AGAIN_SECONDS
        self._one_asks = threading.Lock()
        # Anybody can name an unknown key: half of the threads stay for others, whatever they wait for.
        self._waiters = threading.BoundedSemaphore(max(1, threads // 2))
        self._reading = threading.Thread(target=self._read, daemon=True)  # not begun

    def key(self, key_id: str | None) -> PyJWK:
        """The key with this id. Raises BadToken, Unavailable."""
        age = time.monotonic() - self._asked_at
        if age >= KEYS_SECONDS or (key_id not in self._keys and age >= ASK_AGAIN_SECONDS):
            self._ask()
        has_looked = key_id in self._keys or self._waited()
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._keys or not has_looked:
            raise Unavailable("Service unavailable", "The keys of user tokens cannot be read", code="no_keys")
        raise _bad("nobody knows its kid")

    def _waited(self) -> bool:
        """Wait for the look that is under way, no longer than it may take; False when too many do already."""
        if not self._reading.is_alive():
            return True
        if not self._waiters.acquire(blocking=False):
            return False
        try:
            self._reading.join(max(0, self._asked_at + FETCH_SECONDS - time.monotonic()))
        finally:
            self._waiters.release()
        return True

    def _ask(self) -> None:
        """Have them read in another thread: a name's look-up knows no limit of time."""
        with self._one_asks:
            if self._reading.is_alive() or time.monotonic() - self._asked_at < ASK_AGAIN_SECONDS:
                return
            self._asked_at = time.monotonic()
            self._reading = threading.Thread(target=self._read, daemon=True)
            self._reading.start()

    def _read(self) -> None:
        try:
            found = PyJWKSet.from_dict(json.loads(self._fetched()))
            usable = [key for key in found.keys if key.algorithm_name in BY_KEY]
            self._keys = {key.key_id: key for key in usable if key.public_key_use in (None, "sig")}
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError) as error:
            log.error("[API] keys of user tokens not read", error=f"no JWKS: {type(error).__name__}")
        except (OSError, HTTPException, lines.TooSlow) as error:
            log.error("[API] keys of user tokens not read", error=lines.words(error))

    def _fetched(self) -> bytes:
        """The answer, bounded in time and size; no redirect. Raises OSError, HTTPException, TooSlow."""
        deadline = time.monotonic() + FETCH_SECONDS
        parts = urlsplit(self._url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=FETCH_SECONDS)
        where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # Each read is bounded by itself; whoever drips is hung up on when the time is over.
        with closing(connection), lines.hung_up_at(deadline, lambda: connection.sock):
            connection.request("GET", where, headers={"Accept": "application/json", "Connection": "close"})
            response = connection.getresponse()
            body = response.read(MAX_KEYS_BYTES + 1)
            lines.left(deadline)
        if response.status != 200:
            raise HTTPException(f"HTTP {response.status}")
        if len(body) > MAX_KEYS_BYTES:
            raise HTTPException(f"more than {MAX_KEYS_BYTES} bytes")
        return body


def _subject(claims: dict[str, Any]) -> str:
    try:
        subject = text(claims["sub"], "sub", MAX_USER_ID)
    except PydanticCustomError:
        raise _bad("its sub is no user id") from None
    assert subject is not None, "a required text is a text"
    return subject


def _bad(why: str) -> BadToken:
    log.warning("[API] bad token", why=why, path=request.path, address=request.remote_addr)
    return BadToken(
        "Authentication required", "The token is not one that this system accepts", code="unauthorized"
    )
