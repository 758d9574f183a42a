"""The second factor: a code from an authenticator app (TOTP, RFC 6238), or one of ten recovery codes.

Operators enrol on their own: we offer a secret, which is valid once they enter a code made from it. An offer
belongs to one session, which keeps its `mark`; without the mark, or some minutes later, a new secret is
offered. So no one enrols a secret that someone else has seen.

Secrets are stored in plain text, because codes are computed from them; of recovery codes, only a hash is
stored. Callers hold the lock on the operator's row, so no code works twice.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass

import pyotp
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict
from shared.models import Operator, RecoveryCode
from shared.settings import settings

ISSUER = "Coin Payouts"
RECOVERY_CODES = 10
# A recovery code has 80 random bits, so a fast hash is sufficient. The alphabet has no ambiguous letters.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
CODE_LETTERS = 17
GROUP_LETTERS = 6
OFFER_SECONDS = 15 * 60  # time to install an app and to type a setup key


@dataclass(frozen=True, slots=True)
class Offer:
    """A secret for an authenticator app, and the mark that the session keeps to confirm it."""

    secret: str
    mark: str  # its time and the secret's hash
    is_new: bool


def is_missing(operator: Operator) -> bool:
    """True if the role needs a second factor and the operator has none yet."""
    return operator.totp_secret is None and operator.role in settings().totp_roles


def offer(session: Session, operator: Operator, mark: str = "") -> Offer:
    """Return this session's offer, so that a page can be reloaded; make a new one without a valid mark."""
    offered = operator.totp_offered
    if offered is not None and _is_valid_mark(mark, offered):
        return Offer(offered, mark, is_new=False)
    operator.totp_offered = secret = pyotp.random_base32()
    session.flush()
    return Offer(secret, _mark(int(time.time()), secret), is_new=True)


def provisioning_uri(name: str, secret: str) -> str:
    """Return the secret as authenticator apps read it from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def enrol(session: Session, operator: Operator, code: str, mark: str) -> list[str]:
    """Enrol the offered secret; returns the recovery codes, which cannot be shown again.

    Raises BadRequest (wrong code), Conflict (this session has no valid offer).
    """
    offered = operator.totp_offered
    if offered is None or not _is_valid_mark(mark, offered):
        raise Conflict("Nothing to confirm", "Scan the new QR code", code="totp_not_offered")
    step = _matching_step(offered, code)
    if step is None:
        raise BadRequest(
            "Wrong code",
            "Enter the six digits that the app shows now, and check the phone's clock",
            code="bad_code",
        )
    operator.totp_secret = offered
    operator.totp_step = step
    operator.end_sessions()
    return renew_recovery_codes(session, operator)


def renew_recovery_codes(session: Session, operator: Operator) -> list[str]:
    """Replace all recovery codes; returns the new ones, which cannot be shown again."""
    codes = ["".join(secrets.choice(ALPHABET) for _ in range(CODE_LETTERS)) for _ in range(RECOVERY_CODES)]
    session.execute(delete(RecoveryCode).where(RecoveryCode.operator == operator.name))
    session.add_all(RecoveryCode(operator=operator.name, code_sha256=_hash(code)) for code in codes)
    session.flush()
    return [
        "-".join(code[at : at + GROUP_LETTERS] for at in range(0, CODE_LETTERS, GROUP_LETTERS))
        for code in codes
    ]


def recovery_codes_left(session: Session, name: str) -> int:
    """Return the number of unused recovery codes."""
    unused = select(func.count()).where(RecoveryCode.operator == name, RecoveryCode.used_at.is_(None))
    return session.scalars(unused).one()


def remove(session: Session, operator: Operator) -> None:
    """Remove the second factor and its recovery codes, and end all sessions."""
    operator.totp_secret = None
    operator.end_sessions()
    session.execute(delete(RecoveryCode).where(RecoveryCode.operator == operator.name))
    session.flush()


def use_code(session: Session, operator: Operator, code: str) -> bool:
    """Use a code, which then works no more. True if it was valid and unused."""
    if operator.totp_secret is None:
        return False
    if is_recovery_code(code):
        return _use_recovery_code(session, operator, code)
    step = _matching_step(operator.totp_secret, code)
    if step is None or step <= operator.totp_step:
        return False
    operator.totp_step = step
    session.flush()
    return True


def is_recovery_code(code: str) -> bool:
    """True if it has the form of a recovery code."""
    return len(_plain(code)) == CODE_LETTERS


def _use_recovery_code(session: Session, operator: Operator, code: str) -> bool:
    matches = (RecoveryCode.operator == operator.name) & (RecoveryCode.code_sha256 == _hash(_plain(code)))
    use = update(RecoveryCode).where(matches, RecoveryCode.used_at.is_(None)).values(used_at=func.now())
    return session.scalar(use.returning(RecoveryCode.operator)) is not None


def _is_valid_mark(mark: str, secret: str) -> bool:
    """True if it is the mark of this secret and has not expired."""
    made_at = mark.partition(":")[0]
    if not made_at.isdecimal():
        return False
    if not secrets.compare_digest(mark.encode(), _mark(int(made_at), secret).encode()):
        return False
    return time.time() - int(made_at) < OFFER_SECONDS


def _mark(made_at: int, secret: str) -> str:
    return f"{made_at}:{hashlib.sha256(secret.encode()).hexdigest()}"


def _matching_step(secret: str, code: str) -> int | None:
    """Return the 30-second step of this code: the current, previous or next one; None if it is wrong."""
    totp = pyotp.TOTP(secret)
    current = int(time.time()) // totp.interval
    digits = "".join(code.split())
    matching = [
        step
        for step in (current - 1, current, current + 1)
        if secrets.compare_digest(totp.generate_otp(step).encode(), digits.encode("utf-8", "replace"))
    ]
    return max(matching, default=None)


def _plain(code: str) -> str:
    return "".join(code.replace("-", "").split()).lower()


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
