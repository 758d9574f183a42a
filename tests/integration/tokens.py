"""Tokens of end users, as an app's own server makes them."""

import time
from typing import Any

import jwt
import pytest

from tests.world import forget_settings

SECRET, AUDIENCE, ISSUER = "a-secret-that-app-and-api-share-" * 2, "coin-payouts", "https://app.example"


def use_tokens(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Let users in by tokens of SECRET, or as `settings` say."""
    given = {"USER_TOKEN_SECRET": SECRET} if "USER_TOKEN_JWKS_URL" not in settings else {}
    given |= {"USER_TOKEN_AUDIENCE": AUDIENCE, "USER_TOKEN_ISSUER": ISSUER, **settings}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    forget_settings()


def token(
    user_id: Any = "user123",
    *,
    secret: Any = SECRET,
    alg: str = "HS256",
    kid: str | None = None,
    **claims: Any,
) -> str:
    """A token for this user; a claim that is None is left out."""
    told = {"sub": user_id, "aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 300, **claims}
    return jwt.encode(
        {name: value for name, value in told.items() if value is not None},
        secret,
        algorithm=alg,
        headers={"kid": kid} if kid else None,
    )
