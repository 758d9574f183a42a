"""User tokens, as an app's own server signs them."""

import time
from typing import Any

import jwt
import pytest

from tests.support.world import forget_settings

SECRET = "a-secret-that-app-and-api-share-" * 2
AUDIENCE = "coin-payouts"
ISSUER = "https://app.example"


def use_tokens(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Accept user tokens signed with SECRET, or as `settings` say."""
    environment = {"USER_TOKEN_SECRET": SECRET} if "USER_TOKEN_JWKS_URL" not in settings else {}
    environment |= {"USER_TOKEN_AUDIENCE": AUDIENCE, "USER_TOKEN_ISSUER": ISSUER, **settings}
    for name, value in environment.items():
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
    """Return a token for this user; claims that are None are left out."""
    all_claims = {"sub": user_id, "aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 300, **claims}
    return jwt.encode(
        {name: value for name, value in all_claims.items() if value is not None},
        secret,
        algorithm=alg,
        headers={"kid": kid} if kid else None,
    )
