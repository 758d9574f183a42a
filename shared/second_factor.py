"""The second factor: a code from an authenticator app (TOTP, RFC 6238), or one of ten recovery codes.

The person enrols alone: a secret is offered, and counts once they typed a code made from it. An offer belongs
to the session that it was made in: the session keeps its `mark`, and without it, or some minutes later, the
secret is made anew. So nobody enrols a secret that somebody else was shown before.
Secrets are kept as they are, since codes are computed from them; of recovery codes only the hash is kept.
Callers hold the lock on the operator's row, so no code works twice.
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
# 80 random bits in letters that nobody mixes up: a plain hash of them is as good as a slow one.
LETTERS, CODE_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789", 17
GROUP = 6
# Time to install an app and to type a setup key by hand.
OFFERED_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Offer:
    """A secret to put into an authenticator app, and what the session keeps to confirm it."""

    secret: str
    mark: str  # when it was made, and the secret's hash
    is_new: bool


def is_missing(operator: Operator) -> bool:
    """Whether the role needs a second factor and the operator has none yet."""
    return operator.totp_secret is None and operator.role in settings().totp_roles


def offer(session: Session, operator: Operator, mark: str = "") -> Offer:
    """What this session was offered, so that a page may be loaded again; anew without a mark that is good."""
    offered = operator.totp_offered
    if offered is not None and _is_good(mark, offered):
        return Offer(offered, mark, is_new=False)
    operator.totp_offered = secret = pyotp.random_base32()
    session.flush()
    return Offer(secret, _mark(int(time.time()), secret), is_new=True)


def address(name: str, secret: str) -> str:
    """The secret as authenticator apps read it from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def enrol(session: Session, operator: Operator, code: str, mark: str) -> list[str]:
    """From now on this app's codes count; returns the recovery codes, which nobody can be shown again.

    Raises BadRequest (a wrong code), Conflict (nothing was offered to this session lately).
    """
    offered = operator.totp_offered
    if offered is None or not _is_good(mark, offered):
        raise Conflict("Nothing to confirm", "Scan the new QR code", code="totp_not_offered")
    step = _step_of(offered, code)
    if step is None:
        raise BadRequest(
            "Wrong code",
            "Type the six digits that the app shows now; check the phone's clock",
            code="bad_code",
        )
    operator.totp_secret, operator.totp_step = offered, step
    operator.end_sessions()
    return renew_codes(session, operator)


def renew_codes(session: Session, operator: Operator) -> list[str]:
    """Ten new recovery codes; the ones before are worth nothing. Nobody can be shown them again."""
    codes = ["".join(secrets.choice(LETTERS) for _ in range(CODE_LETTERS)) for _ in range(RECOVERY_CODES)]
    session.execute(delete(RecoveryCode).where(RecoveryCode.operator == operator.name))
    session.add_all(RecoveryCode(operator=operator.name, code_sha256=_hashed(code)) for code in codes)
    session.flush()
    return ["-".join(code[at : at + GROUP] for at in range(0, CODE_LETTERS, GROUP)) for code in codes]


def codes_left(session: Session, name: str) -> int:
    """How many recovery codes were not used yet."""
    unused = select(func.count()).where(RecoveryCode.operator == name, RecoveryCode.used_at.is_(None))
    return session.scalars(unused).one()


def remove(session: Session, operator: Operator) -> None:
    """Forget the second factor and its recovery codes; every session is over."""
    operator.totp_secret = None
    operator.end_sessions()
    session.execute(delete(RecoveryCode).where(RecoveryCode.operator == operator.name))
    session.flush()


def accepts(session: Session, operator: Operator, code: str) -> bool:
    """Whether this is a code of theirs that was not used yet; it is used up by that."""
    if operator.totp_secret is None:
        return False
    if is_recovery(code):
        return _uses_recovery(session, operator, code)
    step = _step_of(operator.totp_secret, code)
    if step is None or step <= operator.totp_step:
        return False
    operator.totp_step = step
    session.flush()
    return True


def is_recovery(code: str) -> bool:
    """Whether it has the form of a recovery code."""
    return len(_plain(code)) == CODE_LETTERS


def _uses_recovery(session: Session, operator: Operator, code: str) -> bool:
    mine = (RecoveryCode.operator == operator.name) & (RecoveryCode.code_sha256 == _hashed(_plain(code)))
    used = update(RecoveryCode).where(mine, RecoveryCode.used_at.is_(None)).values(used_at=func.now())
    return session.scalar(used.returning(RecoveryCode.operator)) is not None


def _is_good(mark: str, secret: str) -> bool:
    """Whether it is the mark of this secret, made in the last minutes."""
    made = mark.partition(":")[0]
    if not made.isdecimal() or not secrets.compare_digest(mark.encode(), _mark(int(made), secret).encode()):
        return False
    return time.time() - int(made) < OFFERED_SECONDS


def _mark(made: int, secret: str) -> str:
    return f"{made}:{hashlib.sha256(secret.encode()).hexdigest()}"


def _step_of(secret: str, code: str) -> int | None:
    """The 30-second step whose code this is: now, the one before or the one after. None: a wrong code."""
    totp = pyotp.TOTP(secret)
    now = int(time.time()) // totp.interval
    given = "".join(code.split())
    matching = [
        step
        for step in (now - 1, now, now + 1)
        if secrets.compare_digest(totp.generate_otp(step).encode(), given.encode("utf-8", "replace"))
    ]
    return max(matching, default=None)


def _plain(code: str) -> str:
    return "".join(code.replace("-", "").split()).lower()


def _hashed(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
