"""Tokens that authenticate an operator at a shell: short-lived, created by `payouts operator sign-in`, stored
hashed.

A token is valid until it expires, while its operator is enabled and their role, password, second factor and
sessions have not changed: a token is a session, and ends with the others.
"""

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from shared.models import Operator, OperatorToken
from shared.settings import settings

PREFIX = "cpo"  # makes a leaked token recognizable in a log
SECRET_BYTES = 32


def issue(
    session: Session, operator: Operator, *, seconds: float | None = None, token: str | None = None
) -> str:
    """Issue a token to an operator who has just authenticated, and delete their expired ones."""
    expired = delete(OperatorToken).where(OperatorToken.operator == operator.name)
    session.execute(expired.where(OperatorToken.expires_at < func.now()))
    token = token or f"{PREFIX}_{secrets.token_urlsafe(SECRET_BYTES)}"
    lifetime_seconds = settings().operator_token_seconds if seconds is None else seconds
    row = OperatorToken(
        token_sha256=_hash(token),
        operator=operator.name,
        role=operator.role,
        generation=operator.generation,
        expires_at=func.now() + timedelta(seconds=lifetime_seconds),
    )
    session.add(row)
    session.flush()
    return token


def find_operator(session: Session, token: str) -> Operator | None:
    """Return the operator of a valid token; None if the token is not valid."""
    query = (
        select(Operator)
        .join(OperatorToken, OperatorToken.operator == Operator.name)
        .where(
            OperatorToken.token_sha256 == _hash(token),
            OperatorToken.expires_at > func.now(),
            OperatorToken.role == Operator.role,
            OperatorToken.generation == Operator.generation,
            Operator.disabled_at.is_(None),
        )
    )
    return session.scalar(query)


def revoke(session: Session, token: str) -> None:
    """Delete a token."""
    session.execute(delete(OperatorToken).where(OperatorToken.token_sha256 == _hash(token)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
