"""User tokens: JWTs that the app's own server signs for its users. `sub` is the user's id (RFC 7519).

They are signed with a secret that the app shares with us (HS256), or with a key of the app's JWKS (RS256,
ES256).
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
from shared.net import sockets
from shared.settings import Settings
from shared.text.fields import MAX_USER_ID_CHARACTERS, parse_text

HMAC_ALGORITHM = "HS256"
KEY_ALGORITHMS = ("RS256", "ES256")
MAX_TOKEN_CHARACTERS = 8000  # a token with a few claims has some hundred
KEYS_MAX_AGE_SECONDS = 300.0  # then the keys are fetched again; the old ones stay in use meanwhile
MIN_FETCH_INTERVAL_SECONDS = 10.0  # also if a key is missing
FETCH_TIMEOUT_SECONDS = 3.0
MAX_KEYS_BYTES = 256 * 1024  # a key has about one KiB

log = structlog.get_logger()


class BadToken(PayoutsError):
    """The token is not valid."""

    http_status = 401


class TokenExpired(BadToken):
    """The token has expired: the user's app must fetch a new one."""


class UserTokens:
    """Verifies tokens according to the settings."""

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

    def looks_like_token(self, secret: str) -> bool:
        """True if tokens are configured and `secret` looks like one."""
        is_configured = bool(self._secrets or self._keys)
        return is_configured and secret.count(".") == 2 and len(secret) <= MAX_TOKEN_CHARACTERS

    def user_id(self, token: str) -> str:
        """Return the token's user id. Raises BadToken, TokenExpired, Unavailable (no keys)."""
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if algorithm == HMAC_ALGORITHM and self._secrets:
                return self._subject(self._decode_with_secret(token))
            if algorithm in KEY_ALGORITHMS and self._keys:
                key = self._keys.key(jwt.get_unverified_header(token).get("kid"))
                return self._subject(jwt.decode(token, key, algorithms=list(KEY_ALGORITHMS), **self._claims))
        except jwt.ExpiredSignatureError:
            raise TokenExpired(
                "Authentication required", "The token has expired. Fetch a new one", code="token_expired"
            ) from None
        except (jwt.PyJWTError, OverflowError) as error:  # exp: Infinity
            raise _bad_token(type(error).__name__) from None
        raise _bad_token("alg is not accepted")

    def _subject(self, claims: dict[str, Any]) -> str:
        # A token that is valid for years is a password that no one can change.
        if float(claims["exp"]) > time.time() + self._max_seconds:
            raise _bad_token("exp is later than USER_TOKEN_MAX_SECONDS allows")
        return _subject(claims)

    def _decode_with_secret(self, token: str) -> dict[str, Any]:
        for secret in self._secrets[:-1]:
            try:
                return dict(jwt.decode(token, secret, algorithms=[HMAC_ALGORITHM], **self._claims))
            except jwt.InvalidSignatureError:
                continue  # it may be signed with the next secret
        return dict(jwt.decode(token, self._secrets[-1], algorithms=[HMAC_ALGORITHM], **self._claims))


class PublishedKeys:
    """The app's public keys, by id. If fetching fails, the known keys stay in use."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        self._keys: dict[str | None, PyJWK] = {}
        self._fetch_started_at = -MIN_FETCH_INTERVAL_SECONDS
        self._fetch_lock = threading.Lock()
        # Anyone can send an unknown key id: half of the threads stay free of waiting for a fetch.
        self._waiters = threading.BoundedSemaphore(max(1, threads // 2))
        self._fetch_thread = threading.Thread(target=self._fetch, daemon=True)  # not started yet

    def key(self, key_id: str | None) -> PyJWK:
        """Return the key with this id. Raises BadToken, Unavailable."""
        age = time.monotonic() - self._fetch_started_at
        if age >= KEYS_MAX_AGE_SECONDS or (key_id not in self._keys and age >= MIN_FETCH_INTERVAL_SECONDS):
            self._start_fetch()
        is_fetched = key_id in self._keys or self._wait_for_fetch()
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._keys or not is_fetched:
            details = "The keys of user tokens are not available. Retry later"
            raise Unavailable("Service unavailable", details, code="no_keys")
        raise _bad_token("kid is unknown")

    def _wait_for_fetch(self) -> bool:
        """Wait for a running fetch, at most its timeout. Returns False if too many wait already."""
        if not self._fetch_thread.is_alive():
            return True
        if not self._waiters.acquire(blocking=False):
            return False
        try:
            self._fetch_thread.join(max(0, self._fetch_started_at + FETCH_TIMEOUT_SECONDS - time.monotonic()))
        finally:
            self._waiters.release()
        return True

    def _start_fetch(self) -> None:
        """Fetch in another thread: a DNS look-up has no timeout."""
        with self._fetch_lock:
            age = time.monotonic() - self._fetch_started_at
            if self._fetch_thread.is_alive() or age < MIN_FETCH_INTERVAL_SECONDS:
                return
            self._fetch_started_at = time.monotonic()
            self._fetch_thread = threading.Thread(target=self._fetch, daemon=True)
            self._fetch_thread.start()

    def _fetch(self) -> None:
        try:
            key_set = PyJWKSet.from_dict(json.loads(self._download()))
            usable = [key for key in key_set.keys if key.algorithm_name in KEY_ALGORITHMS]
            self._keys = {key.key_id: key for key in usable if key.public_key_use in (None, "sig")}
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError) as error:
            log.error("[API] keys of user tokens not fetched", error=f"no JWKS: {type(error).__name__}")
        except (OSError, HTTPException, sockets.DeadlineExceeded) as error:
            log.error("[API] keys of user tokens not fetched", error=sockets.describe_error(error))

    def _download(self) -> bytes:
        """Download the keys within limits of time and size, without following redirects.

        Raises OSError, HTTPException, DeadlineExceeded.
        """
        deadline = time.monotonic() + FETCH_TIMEOUT_SECONDS
        parts = urlsplit(self._url)
        connection_class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = connection_class(parts.hostname or "", parts.port, timeout=FETCH_TIMEOUT_SECONDS)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # Each read has its own timeout; a server that sends byte by byte is cut off at the deadline.
        with closing(connection), sockets.hang_up_at(deadline, lambda: connection.sock):
            connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
            response = connection.getresponse()
            body = response.read(MAX_KEYS_BYTES + 1)
            sockets.seconds_left(deadline)
        if response.status != 200:
            raise HTTPException(f"HTTP {response.status}")
        if len(body) > MAX_KEYS_BYTES:
            raise HTTPException(f"more than {MAX_KEYS_BYTES} bytes")
        return body


def _subject(claims: dict[str, Any]) -> str:
    try:
        subject = parse_text(claims["sub"], "sub", MAX_USER_ID_CHARACTERS)
    except PydanticCustomError:
        raise _bad_token("sub is not a user id") from None
    assert subject is not None, "parse_text returns None only for optional texts"
    return subject


def _bad_token(why: str) -> BadToken:
    log.warning("[API] bad token", why=why, path=request.path, address=request.remote_addr)
    return BadToken("Authentication required", "The token is not valid. Fetch a new one", code="unauthorized")
