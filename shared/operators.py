"""Operators: added, let in, disabled. Passwords are kept as argon2id hashes, and only their owners know them.

A session in a browser carries the operator's `generation`; raising it ends every session at its next request.
What gives somebody more (a new operator, a higher role) is proposed and confirmed: `shared/proposals`.
"""

import re
import secrets
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import func, or_, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import invitations, names, second_factor
from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Operator
from shared.roles import Role
from shared.settings import settings

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")
MIN_PASSWORD, MAX_PASSWORD = 12, 200
_ENABLED_ADMIN = (
    (Operator.role == Role.ADMIN) & Operator.disabled_at.is_(None) & Operator.password_hash.is_not(None)
)
# Each hash takes 64 MiB and some 50 ms of a core: however many try to sign in, payouts keep the rest.
_hashing = BoundedSemaphore(2)
FIRST_ADMIN = text("SELECT pg_advisory_xact_lock(hashtextextended('first admin', 0))")


def add(
    session: Session,
    name: str,
    *,
    role: Role,
    actor: str,
    email: str | None = None,
    confirmed_by: str | None = None,
    password: str | None = None,
) -> Operator:
    """A new operator; without a password they choose one by an invitation.

    Raises BadRequest (name, e-mail address, password), Conflict (the name is taken).
    """
    must_be_new(session, name)
    address = names.clean_email(email)
    must_be_nobodys(session, address)
    made = Operator(
        name=name,
        role=role,
        email=address,
        password_hash=None if password is None else _hashed(name, password),
        created_by=actor,
        confirmed_by=confirmed_by,
    )
    session.add(made)
    return _written(session, made)


def must_be_new(session: Session, name: str) -> None:
    """Raises BadRequest (no such name is possible), Conflict (there is one of that name)."""
    if not NAME.fullmatch(name):
        words = "1 to 50 of a-z, 0-9, dot, underscore, hyphen; a letter or digit first"
        raise BadRequest("Invalid name", f"An operator's name has {words}", code="bad_name")
    if session.get(Operator, name):
        raise Conflict("The name is taken", f"There is an operator named {name}", code="operator_exists")


def must_be_nobodys(session: Session, email: str | None) -> None:
    """What two operators share, one person has: raises Conflict when an operator has this address."""
    if email and session.scalar(select(Operator.name).where(func.lower(Operator.email) == email.lower())):
        raise Conflict("The address is taken", f"An operator has {email}", code="email_taken")


def disable(session: Session, name: str, *, actor: str) -> Operator:
    """From the next request on they are out. Raises NotFound, Conflict (disabled before, the last admin)."""
    _keep_an_admin(session, name)
    operator = locked(session, name)
    if operator.disabled_at is not None:
        raise Conflict("Disabled already", f"{name} was disabled before", code="operator_disabled")
    operator.disabled_at, operator.disabled_by = func.now(), actor
    operator.end_sessions()
    invitations.end(session, name)
    return _written(session, operator)


def enable(session: Session, name: str) -> Operator:
    """Let a disabled operator in again. Raises NotFound, Conflict when they are not disabled."""
    operator = locked(session, name)
    if operator.disabled_at is None:
        raise Conflict("Not disabled", f"{name} may sign in", code="operator_enabled")
    operator.disabled_at = operator.disabled_by = None
    return _written(session, operator)


def set_role(session: Session, name: str, role: Role) -> Operator:
    """Change what they may do, from their next request on. Raises NotFound, Conflict (the last admin)."""
    if role is not Role.ADMIN:
        _keep_an_admin(session, name)
    operator = locked(session, name)
    operator.role = role
    return _written(session, operator)


def set_email(session: Session, name: str, email: str | None) -> Operator:
    """Where their invitations and notices go; an open link ends. Raises NotFound, BadRequest."""
    operator = locked(session, name)
    address = names.clean_email(email)
    must_be_nobodys(session, address)
    operator.email = address
    invitations.end(session, name)
    return _written(session, operator)


def set_password(session: Session, name: str, password: str) -> Operator:
    """A new password; every session and link before it is over. Raises NotFound, BadRequest."""
    operator = locked(session, name)
    operator.password_hash = _hashed(name, password)
    operator.end_sessions()
    invitations.end(session, name)
    return _written(session, operator)


def accept_invitation(token: str, password: str) -> Operator:
    """The invited person chooses a password; the link is used up, and every session before is over.

    Raises NotFound (the link does not work), BadRequest (password), Unavailable.
    """
    with transaction() as session:
        invited = invitations.find(session, token).operator
    # Hashing takes long: it needs no lock, and only somebody with a link gets this far.
    hashed = _hashed(invited, password)
    with transaction() as session:
        operator = locked(session, invited)
        invitation = invitations.find(session, token, lock=True)
        invitation.used_at = func.now()
        operator.password_hash = hashed
        operator.end_sessions()
        return _written(session, operator)


def prove(name: str, code: str) -> bool:
    """Whether this code of theirs is good now; it is used up by that. Raises Unavailable."""
    with transaction() as session:
        return second_factor.accepts(session, locked(session, name), code)


def end_sessions(session: Session, name: str) -> None:
    """Sign out everywhere. Raises NotFound."""
    locked(session, name).end_sessions()
    session.flush()


def listing(session: Session) -> list[Operator]:
    """Every operator."""
    return list(session.scalars(select(Operator).order_by(Operator.name)))


def number_of_admins(session: Session) -> int:
    """How many enabled admins have a password."""
    return session.scalars(select(func.count()).select_from(Operator).where(_ENABLED_ADMIN)).one()


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
    hashed = found.password_hash if found else None
    if not _matches(hashed or _of_nobody(), password) or found is None or hashed is None:
        return None
    with transaction() as session:
        # Once more, now that the slow part is over: nobody disabled them meanwhile, and no code works twice.
        operator = session.get_one(Operator, name, with_for_update=True, populate_existing=True)
        if (operator.generation, operator.disabled_at) != (found.generation, None):
            return None
        if operator.totp_secret and not second_factor.accepts(session, operator, code):
            return None
        if _hasher().check_needs_rehash(hashed):
            operator.password_hash = _hasher().hash(password)
        operator.last_sign_in_at = func.now()
        return _written(session, operator)


def sign_in_again(name: str, password: str) -> Operator | None:
    """Who is in, once more with their password, as for changing it; None when it is wrong."""
    with transaction() as session:
        found = session.get(Operator, name)
    hashed = found.password_hash if found else None
    return found if hashed and _matches(hashed, password) else None


def exists(session: Session, name: str) -> bool:
    """Whether there is an operator of this name."""
    return find(session, name) is not None


def find(session: Session, name: str) -> Operator | None:
    """The operator of this name, as it is folded."""
    return session.get(Operator, name)


def has_first_admins(session: Session) -> bool:
    """Whether there are, or ever were, the admins whom a shell may invite alone: two, or one if one suffices.

    Who asks holds a lock until the transaction ends, so that two cannot both add the last of them.
    """
    session.execute(FIRST_ADMIN)
    enough = 2 if settings().second_admin_required == "on" else 1
    is_one = or_(Operator.was_admin, (Operator.role == Role.ADMIN) & Operator.disabled_at.is_(None))
    return session.scalars(select(func.count()).select_from(Operator).where(is_one)).one() >= enough


def link(
    session: Session, name: str, *, user_id: str | None, email: str | None, phone: str | None
) -> Operator:
    """What is known of an operator beside their name, so that they decide nothing for themselves.

    Their account in the app, their e-mail address, their phone: what is None or empty is forgotten.
    A link that was sent to who they were before ends.
    Raises NotFound, Conflict (it is another operator's: one person has one account).
    """
    operator = locked(session, name)
    invitations.end(session, name)
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


def locked(session: Session, name: str) -> Operator:
    """The operator's row, locked until the transaction ends. Raises NotFound."""
    operator = session.get(Operator, name, with_for_update=True, populate_existing=True)
    if operator is None:
        raise NotFound(
            "No such operator", f"There is no operator named {name[:50]}", code="operator_not_found"
        )
    return operator


def _keep_an_admin(session: Session, name: str) -> None:
    """Somebody must look after the others. Locked in order, so that two admins cannot go at once."""
    admins = select(Operator.name).where(_ENABLED_ADMIN)
    if list(session.scalars(admins.order_by(Operator.name).with_for_update())) == [name]:
        raise Conflict("The last admin", "Make another admin first", code="last_admin")


def _written(session: Session, operator: Operator) -> Operator:
    session.flush()
    session.refresh(operator)
    return operator
