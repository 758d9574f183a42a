"""Browsers in which an operator came in before. Their tries are counted apart: a stranger who fails with an
operator's name, from wherever, keeps nobody out who comes as always.

The cookie lets nobody in. Who steals it may try passwords of that one name, as often as anybody may.
"""

import secrets

from flask import current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

KEPT_SECONDS = 90 * 86_400


def remember(response: Response, name: str) -> None:
    """Write into this answer that `name` came in in this browser."""
    value = _signer().dumps([name, secrets.token_hex(8)])
    is_secure = current_app.config["SESSION_COOKIE_SECURE"]
    response.set_cookie(
        _cookie(), value, max_age=KEPT_SECONDS, path="/", secure=is_secure, httponly=True, samesite="Strict"
    )


def of(name: str) -> str | None:
    """Which browser of this operator's asks, if it is one."""
    try:
        owner, device = _signer().loads(request.cookies.get(_cookie(), ""), max_age=KEPT_SECONDS)
    except (BadData, TypeError, ValueError):
        return None
    return str(device) if owner == name else None


def _cookie() -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-known"


def _signer() -> URLSafeTimedSerializer:
    assert current_app.secret_key, "the panel has one"
    return URLSafeTimedSerializer(current_app.secret_key, salt="known browsers")
