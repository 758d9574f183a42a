"""The people who work in the panel: made, let in, disabled. Passwords are kept as argon2id hashes.

A session in a browser carries the operator's `generation`; raising it ends every session at its next request.
"""

import re
import secrets
import time
from functools import cache
from threading import BoundedSemaphore

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Operator
from shared.roles import Role

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")
MIN_PASSWORD, MAX_PASSWORD = 12, 200
# Each hash takes 64 MiB and some 50 ms of a core: however many try to sign in, payouts keep the rest.
_hashing = BoundedSemaphore(2)
FIRST_ADMIN = text("SELECT pg_advisory_xact_lock(hashtextextended('first admin', 0))")


def add(session: Session, name: str, *, role: Role, password: str, actor: str) -> Operator:
    """A new operator. Raises BadRequest (name, password), Conflict (there is one of that name)."""
    if not NAME.fullmatch(name):
        words = "1 to 50 of a-z, 0-9, dot, underscore, hyphen; a letter or digit first"
        raise BadRequest("Invalid name", f"An operator's name has {words}", code="bad_name")
    hashed = _hashed(name, password)
    if session.get(Operator, name):
        raise Conflict("The name is taken", f"There is an operator named {name}", code="operator_exists")
    made = Operator(name=name, role=role, password_hash=hashed, created_by=actor)
    session.add(made)
    session.flush()
    session.refresh(made)
    return made


def disable(session: Session, name: str, *, actor: str) -> Operator:
    """From the next request on they are out. Raises NotFound, Conflict (disabled before, the last admin)."""
    _keep_an_admin(session, name)
    operator = _locked(session, name)
    if operator.disabled_at is not None:
        raise Conflict("Disabled already", f"{name} was disabled before", code="operator_disabled")
    operator.disabled_at, operator.disabled_by = func.now(), actor
    operator.generation += 1
    return _written(session, operator)


def enable(session: Session, name: str) -> Operator:
    """Let a disabled operator in again. Raises NotFound, Conflict when they are not disabled."""
    operator = _locked(session, name)
    if operator.disabled_at is None:
        raise Conflict("Not disabled", f"{name} may sign in", code="operator_enabled")
    operator.disabled_at = operator.disabled_by = None
    return _written(session, operator)


def set_role(session: Session, name: str, role: Role) -> Operator:
    """Change what they may do, from their next request on. Raises NotFound, Conflict (the last admin)."""
    if role is not Role.ADMIN:
        _keep_an_admin(session, name)
    operator = _locked(session, name)
    operator.role = role
    return _written(session, operator)


def set_password(session: Session, name: str, password: str) -> Operator:
    """A new password; every session under the old one is over. Raises NotFound, BadRequest."""
    operator = _locked(session, name)
    operator.password_hash = _hashed(name, password)
    operator.generation += 1
    return _written(session, operator)


def set_totp(session: Session, name: str, *, on: bool) -> str | None:
    """Ask for a code at each sign-in from now on, or not; returns the new secret. Raises NotFound."""
    operator = _locked(session, name)
    operator.totp_secret = pyotp.random_base32() if on else None
    operator.generation += 1
    session.flush()
    return operator.totp_secret


def end_sessions(session: Session, name: str) -> None:
    """Sign out everywhere."""
    raised = update(Operator).where(Operator.name == name).values(generation=Operator.generation + 1)
    session.execute(raised)


def listing(session: Session) -> list[Operator]:
    """Every operator."""
    return list(session.scalars(select(Operator).order_by(Operator.name)))


def signed_in(name: str, generation: int) -> Operator | None:
    """The operator of a session; None when it is over. Raises Unavailable."""
    with transaction() as session:
        operator = session.get(Operator, name)
    if operator is None or operator.disabled_at is not None or operator.generation != generation:
        return None
    return operator


def sign_in(name: str, password: str, code: str = "") -> Operator | None:
    """Who this is; None when name, password or code is wrong, which takes as long. Raises Unavailable."""
    with transaction() as session:
        found = session.get(Operator, name)
    if not _matches(found.password_hash if found else _of_nobody(), password):
        return None
    if found is None or found.disabled_at is not None:
        return None
    step = _step_of(found.totp_secret, code) if found.totp_secret else found.totp_step + 1
    if step is None:
        return None
    with transaction() as session:
        # Once more, now that the slow part is over: nobody disabled them meanwhile, and no code works twice.
        operator = session.get_one(Operator, name, with_for_update=True, populate_existing=True)
        is_same = (operator.generation, operator.disabled_at) == (found.generation, None)
        if not is_same or (found.totp_secret and step <= operator.totp_step):
            return None
        if found.totp_secret:
            operator.totp_step = step
        if _hasher().check_needs_rehash(operator.password_hash):
            operator.password_hash = _hasher().hash(password)
        operator.last_sign_in_at = func.now()
        return _written(session, operator)


def sign_in_again(name: str, password: str) -> Operator | None:
    """Who is in, once more with their password, as for changing it; None when it is wrong."""
    with transaction() as session:
        found = session.get(Operator, name)
    return found if found and _matches(found.password_hash, password) else None


def exists(session: Session, name: str) -> bool:
    """Whether there is an operator of this name."""
    return find(session, name) is not None


def find(session: Session, name: str) -> Operator | None:
    """The operator of this name, as it is folded."""
    return session.get(Operator, name)


def has_admin(session: Session) -> bool:
    """Whether any admin is enabled: a fresh system has none.

    Who asks holds a lock until the transaction ends, so that two cannot both add the first.
    """
    session.execute(FIRST_ADMIN)
    admins = select(Operator.name).where(Operator.role == Role.ADMIN, Operator.disabled_at.is_(None))
    return session.scalar(admins.limit(1)) is not None


def link(
    session: Session, name: str, *, user_id: str | None, email: str | None, phone: str | None
) -> Operator:
    """What is known of an operator beside their name, so that they decide nothing for themselves.

    Their account in the app, their e-mail address, their phone: what is None or empty is forgotten.
    Raises NotFound, Conflict (it is another operator's: one person has one account).
    """
    operator = _locked(session, name)
    operator.user_id, operator.email, operator.phone = user_id or None, email or None, phone or None
    try:
        return _written(session, operator)
    except IntegrityError as error:
        told = "The account, address or phone is another operator's"
        raise Conflict("It is linked already", told, code="linked_already") from error


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _of_nobody() -> str:
    """What the password of an unknown name is compared with, so that it takes as long."""
    return _hasher().hash(secrets.token_hex())


def _matches(hashed: str, password: str) -> bool:
    try:
        with _hashing:
            return _hasher().verify(hashed, password[: MAX_PASSWORD + 1])
    except (Argon2Error, InvalidHashError, UnicodeEncodeError):
        return False


def _hashed(name: str, password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or password == name * (len(password) // len(name)):
        words = f"{MIN_PASSWORD} to {MAX_PASSWORD} characters, and is not the name"
        raise BadRequest("Unusable password", f"A password has {words}", code="bad_password")
    try:
        with _hashing:
            return _hasher().hash(password)
    except UnicodeEncodeError:
        raise BadRequest("Unusable password", "It is not valid text", code="bad_password") from None


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


def _locked(session: Session, name: str) -> Operator:
    operator = session.get(Operator, name, with_for_update=True, populate_existing=True)
    if operator is None:
        raise NotFound(
            "No such operator", f"There is no operator named {name[:50]}", code="operator_not_found"
        )
    return operator


def _keep_an_admin(session: Session, name: str) -> None:
    """Somebody must look after the others. Locked in order, so that two admins cannot go at once."""
    admins = select(Operator.name).where(Operator.role == Role.ADMIN, Operator.disabled_at.is_(None))
    if list(session.scalars(admins.order_by(Operator.name).with_for_update())) == [name]:
        raise Conflict("The last admin", "Make another admin first", code="last_admin")


def _written(session: Session, operator: Operator) -> Operator:
    session.flush()
    session.refresh(operator)
    return operator
