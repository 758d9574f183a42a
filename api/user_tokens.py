"""Tokens of end users: signed JWTs that the app's own server gives them. `sub` is the user's id (RFC 7519).

Signed with a secret that the app shares with us (HS256), or with a key of the app's JWKS (RS256, ES256).
"""

import threading
import time
from typing import Any

import jwt
import structlog
from flask import request
from jwt import PyJWK, PyJWKClient, PyJWKSet
from pydantic_core import PydanticCustomError

from shared.errors import PayoutsError, Unavailable
from shared.fields import MAX_USER_ID, text
from shared.settings import Settings

BY_SECRET, BY_KEY = "HS256", ("RS256", "ES256")
MAX_TOKEN = 8000  # characters; a token with a few claims has some hundred
# The keys are asked for anew after so long, and, when one is missing, so soon; old ones serve meanwhile.
KEYS_SECONDS, ASK_AGAIN_SECONDS, FETCH_SECONDS = 300.0, 10.0, 3.0

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
        self._keys = PublishedKeys(settings.user_token_jwks_url) if settings.user_token_jwks_url else None
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
                return _subject(self._by_secret(token))
            if algorithm in BY_KEY and self._keys:
                key = self._keys.key(jwt.get_unverified_header(token).get("kid"))
                return _subject(jwt.decode(token, key, algorithms=list(BY_KEY), **self._claims))
        except jwt.ExpiredSignatureError:
            raise TokenExpired(
                "Authentication required", "The token has expired; fetch a new one", code="token_expired"
            ) from None
        except (jwt.PyJWTError, OverflowError) as error:  # exp: Infinity
            raise _bad(type(error).__name__) from None
        raise _bad("its alg is not one of ours")

    def _by_secret(self, token: str) -> dict[str, Any]:
        for secret in self._secrets[:-1]:
            try:
                return dict(jwt.decode(token, secret, algorithms=[BY_SECRET], **self._claims))
            except jwt.InvalidSignatureError:
                continue  # signed before the secret was changed
        return dict(jwt.decode(token, self._secrets[-1], algorithms=[BY_SECRET], **self._claims))


class PublishedKeys:
    """The app's public keys, by their ids. While they cannot be read, those that are known go on to serve."""

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: dict[str | None, PyJWK] = {}
        self._asked_at = -ASK_AGAIN_SECONDS
        self._one_asks = threading.Lock()
        self._reading = threading.Thread(target=self._read, daemon=True)  # not begun

    def key(self, key_id: str | None) -> PyJWK:
        """The key with this id. Raises BadToken, Unavailable."""
        age = time.monotonic() - self._asked_at
        if age >= KEYS_SECONDS or (key_id not in self._keys and age >= ASK_AGAIN_SECONDS):
            self._ask()
        if key_id not in self._keys:
            # No longer than one look, and that of everybody together: anybody can name an unknown key.
            self._reading.join(max(0, self._asked_at + FETCH_SECONDS - time.monotonic()))
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._keys:
            raise Unavailable("Service unavailable", "The keys of user tokens cannot be read", code="no_keys")
        raise _bad("nobody knows its kid")

    def _ask(self) -> None:
        """Have them read in another thread: a name's look-up, or one that drips, knows no limit of time."""
        with self._one_asks:
            if self._reading.is_alive() or time.monotonic() - self._asked_at < ASK_AGAIN_SECONDS:
                return
            self._asked_at = time.monotonic()
            self._reading = threading.Thread(target=self._read, daemon=True)
            self._reading.start()

    def _read(self) -> None:
        try:
            found = PyJWKSet.from_dict(self._client.fetch_data())
            usable = [key for key in found.keys if key.algorithm_name in BY_KEY]
            self._keys = {key.key_id: key for key in usable if key.public_key_use in (None, "sig")}
        except (jwt.PyJWTError, ValueError, OSError) as error:
            log.error("[API] keys of user tokens not read", error=type(error).__name__)


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
