"""Browsers in which an operator signed in before, remembered in a cookie.

Their sign-in attempts are counted separately, so a stranger who fails with an operator's name does not lock
the operator out of their own browser. The cookie grants no access: a thief can try passwords for that name
as often as anyone else.
"""

import secrets

from flask import current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

COOKIE_SECONDS = 90 * 86_400


def remember(response: Response, name: str) -> None:
    """Record in this response that `name` signed in in this browser."""
    value = _signer().dumps([name, secrets.token_hex(8)])
    is_secure = current_app.config["SESSION_COOKIE_SECURE"]
    response.set_cookie(
        _cookie_name(),
        value,
        max_age=COOKIE_SECONDS,
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="Strict",
    )


def known_device(name: str) -> str | None:
    """The id of this browser if the operator signed in here before, else None."""
    try:
        owner, device = _signer().loads(request.cookies.get(_cookie_name(), ""), max_age=COOKIE_SECONDS)
    except (BadData, TypeError, ValueError):
        return None
    return str(device) if owner == name else None


def _cookie_name() -> str:
    return f"{current_app.config['SESSION_COOKIE_NAME']}-known"


def _signer() -> URLSafeTimedSerializer:
    assert current_app.secret_key, "app.py sets it"
    return URLSafeTimedSerializer(current_app.secret_key, salt="known browsers")
