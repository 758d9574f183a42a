"""Proof of who is at a shell: a short-lived token that `payouts operator sign-in` makes, kept as its hash.

It counts while it has not expired, its operator is enabled, and neither their role nor their password, second
factor or sessions were changed since: a token is a session, and ends with the others.
"""

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from shared.models import Operator, OperatorToken
from shared.settings import settings

MARK = "cpo"  # so that a leaked one is found in a log, and says what it is
SECRET_BYTES = 32


def issue(
    session: Session, operator: Operator, *, seconds: float | None = None, token: str | None = None
) -> str:
    """A new token for an operator who has just proved who they are. Their expired ones are deleted."""
    expired = delete(OperatorToken).where(OperatorToken.operator == operator.name)
    session.execute(expired.where(OperatorToken.expires_at < func.now()))
    token = token or f"{MARK}_{secrets.token_urlsafe(SECRET_BYTES)}"
    lasts = settings().operator_token_seconds if seconds is None else seconds
    made = OperatorToken(
        token_sha256=_hashed(token),
        operator=operator.name,
        role=operator.role,
        generation=operator.generation,
        expires_at=func.now() + timedelta(seconds=lasts),
    )
    session.add(made)
    session.flush()
    return token


def owner_of(session: Session, token: str) -> Operator | None:
    """Whose token this is; None when it does not count (any more)."""
    query = (
        select(Operator)
        .join(OperatorToken, OperatorToken.operator == Operator.name)
        .where(
            OperatorToken.token_sha256 == _hashed(token),
            OperatorToken.expires_at > func.now(),
            OperatorToken.role == Operator.role,
            OperatorToken.generation == Operator.generation,
            Operator.disabled_at.is_(None),
        )
    )
    return session.scalar(query)


def revoke(session: Session, token: str) -> None:
    """From now on it proves nothing."""
    session.execute(delete(OperatorToken).where(OperatorToken.token_sha256 == _hashed(token)))


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
