"""Operators: their accounts, passwords and sign-in. Passwords are stored as argon2id hashes.

A browser session carries the operator's `generation`; raising it ends every session at its next request.
Changes that give an operator more permissions are proposed and confirmed: see `shared/proposals`.
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

from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Operator
from shared.people import invitations, second_factor
from shared.roles import Role
from shared.settings import settings
from shared.text import names

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")
MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 200
_ENABLED_ADMIN = (
    (Operator.role == Role.ADMIN) & Operator.disabled_at.is_(None) & Operator.password_hash.is_not(None)
)
# Each hash takes 64 MiB and about 50 ms of a core. At most two run at a time, which leaves the rest for
# payouts.
_hashing = BoundedSemaphore(2)
FIRST_ADMIN_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('first admin', 0))")


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
    """Add an operator; without a password, they choose one through an invitation.

    Raises BadRequest (name, e-mail address, password), Conflict (the name or address is taken).
    """
    require_new_name(session, name)
    address = names.normalize_email(email)
    require_unused_email(session, address)
    operator = Operator(
        name=name,
        role=role,
        email=address,
        password_hash=None if password is None else _hash_password(name, password),
        created_by=actor,
        confirmed_by=confirmed_by,
    )
    session.add(operator)
    return _saved(session, operator)


def require_new_name(session: Session, name: str) -> None:
    """Require a valid and unused name. Raises BadRequest, Conflict."""
    if not NAME.fullmatch(name):
        details = "Use 1 to 50 of a-z, 0-9, dot, underscore and hyphen, with a letter or digit first"
        raise BadRequest("Invalid name", details, code="bad_name")
    if session.get(Operator, name):
        raise Conflict("The name is taken", f"There is an operator named {name}", code="operator_exists")


def require_unused_email(session: Session, email: str | None) -> None:
    """Require that no operator has this address, because one person has one account. Raises Conflict."""
    if email and session.scalar(select(Operator.name).where(func.lower(Operator.email) == email.lower())):
        raise Conflict("The address is taken", f"Another operator has {email}", code="email_taken")


def disable(session: Session, name: str, *, actor: str) -> Operator:
    """Disable an operator at their next request. Raises NotFound, Conflict (disabled, the last admin)."""
    _keep_an_admin(session, name)
    operator = lock(session, name)
    if operator.disabled_at is not None:
        raise Conflict("Already disabled", f"{name} is disabled", code="operator_disabled")
    operator.disabled_at = func.now()
    operator.disabled_by = actor
    operator.end_sessions()
    invitations.revoke(session, name)
    return _saved(session, operator)


def enable(session: Session, name: str) -> Operator:
    """Enable a disabled operator. Raises NotFound, Conflict (not disabled)."""
    operator = lock(session, name)
    if operator.disabled_at is None:
        raise Conflict("Not disabled", f"{name} may sign in", code="operator_enabled")
    operator.disabled_at = operator.disabled_by = None
    return _saved(session, operator)


def set_role(session: Session, name: str, role: Role) -> Operator:
    """Change the role from the operator's next request on. Raises NotFound, Conflict (the last admin)."""
    if role is not Role.ADMIN:
        _keep_an_admin(session, name)
    operator = lock(session, name)
    operator.role = role
    return _saved(session, operator)


def set_email(session: Session, name: str, email: str | None) -> Operator:
    """Change the e-mail address and revoke an open invitation. Raises NotFound, BadRequest, Conflict."""
    operator = lock(session, name)
    address = names.normalize_email(email)
    require_unused_email(session, address)
    operator.email = address
    invitations.revoke(session, name)
    return _saved(session, operator)


def set_password(session: Session, name: str, password: str) -> Operator:
    """Set the password; end all sessions and revoke an open invitation. Raises NotFound, BadRequest."""
    operator = lock(session, name)
    operator.password_hash = _hash_password(name, password)
    operator.end_sessions()
    invitations.revoke(session, name)
    return _saved(session, operator)


def accept_invitation(token: str, password: str) -> Operator:
    """Set the password that the invited operator chose; use the invitation up and end all sessions.

    Raises NotFound (the link does not work), BadRequest (password), Unavailable.
    """
    with transaction() as session:
        name = invitations.find(session, token).operator
    # Hashing is slow, so no lock is held. Only a request with a valid link gets this far.
    password_hash = _hash_password(name, password)
    with transaction() as session:
        operator = lock(session, name)
        invitation = invitations.find(session, token, lock=True)
        invitation.used_at = func.now()
        operator.password_hash = password_hash
        operator.end_sessions()
        return _saved(session, operator)


def verify_code(name: str, code: str) -> bool:
    """Use a second-factor code. True if it was valid and unused. Raises NotFound, Unavailable."""
    with transaction() as session:
        return second_factor.use_code(session, lock(session, name), code)


def end_sessions(session: Session, name: str) -> None:
    """End all sessions of an operator. Raises NotFound."""
    lock(session, name).end_sessions()
    session.flush()


def listing(session: Session) -> list[Operator]:
    """Return all operators, by name."""
    return list(session.scalars(select(Operator).order_by(Operator.name)))


def count_admins(session: Session) -> int:
    """Return the number of enabled admins with a password."""
    return session.scalars(select(func.count()).select_from(Operator).where(_ENABLED_ADMIN)).one()


def session_operator(name: str, generation: int) -> Operator | None:
    """Return the operator of a session; None if the session has ended. Raises Unavailable."""
    with transaction() as session:
        operator = session.get(Operator, name)
    if operator is None or operator.disabled_at is not None or operator.generation != generation:
        return None
    return operator


def sign_in(name: str, password: str, code: str = "") -> Operator | None:
    """Authenticate an operator; None if the name, password or code is wrong, after the same time.

    Raises Unavailable.
    """
    with transaction() as session:
        known = session.get(Operator, name)
    password_hash = known.password_hash if known else None
    if not _matches(password_hash or _decoy_hash(), password) or known is None or password_hash is None:
        return None
    with transaction() as session:
        # Read the row again after the slow hash: the operator may be disabled now, and no code works twice.
        operator = session.get_one(Operator, name, with_for_update=True, populate_existing=True)
        if (operator.generation, operator.disabled_at) != (known.generation, None):
            return None
        if operator.totp_secret and not second_factor.use_code(session, operator, code):
            return None
        if _hasher().check_needs_rehash(password_hash):
            operator.password_hash = _hasher().hash(password)
        operator.last_sign_in_at = func.now()
        return _saved(session, operator)


def verify_password(name: str, password: str) -> Operator | None:
    """Verify the password of a signed-in operator, for example to change it; None if it is wrong."""
    with transaction() as session:
        operator = session.get(Operator, name)
    password_hash = operator.password_hash if operator else None
    return operator if password_hash and _matches(password_hash, password) else None


def exists(session: Session, name: str) -> bool:
    """True if there is an operator with this name."""
    return find(session, name) is not None


def find(session: Session, name: str) -> Operator | None:
    """Return the operator with this folded name, or None."""
    return session.get(Operator, name)


def has_first_admins(session: Session) -> bool:
    """True if the system has, or ever had, the admins whom a shell may invite alone: two, or one if one
    suffices.

    Holds a lock until the transaction ends, so that two callers cannot both add the last of them.
    """
    session.execute(FIRST_ADMIN_LOCK)
    required = 2 if settings().second_admin_required == "on" else 1
    was_or_is_admin = or_(Operator.was_admin, (Operator.role == Role.ADMIN) & Operator.disabled_at.is_(None))
    admins = select(func.count()).select_from(Operator).where(was_or_is_admin)
    return session.scalars(admins).one() >= required


def link(
    session: Session, name: str, *, user_id: str | None, email: str | None, phone: str | None
) -> Operator:
    """Set an operator's identity (app account, e-mail address, phone), so that they decide nothing for
    themselves.

    None or empty values are removed, and an open invitation is revoked. Raises NotFound, Conflict (another
    operator has one of them, but one person has one account).
    """
    operator = lock(session, name)
    invitations.revoke(session, name)
    operator.user_id = user_id or None
    operator.email = email or None
    operator.phone = phone or None
    try:
        return _saved(session, operator)
    except IntegrityError as error:
        details = "Another operator has this account, address or phone"
        raise Conflict("Already linked", details, code="linked_already") from error


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _decoy_hash() -> str:
    """Return a hash for unknown names, so that their sign-in takes as long."""
    return _hasher().hash(secrets.token_hex())


def _matches(password_hash: str, password: str) -> bool:
    try:
        with _hashing:
            return _hasher().verify(password_hash, password[: MAX_PASSWORD_LENGTH + 1])
    except (Argon2Error, InvalidHashError, UnicodeEncodeError):
        return False


def _hash_password(name: str, password: str) -> str:
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH or password == name * (
        len(password) // len(name)
    ):
        details = f"Use {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters, but not your name"
        raise BadRequest("Invalid password", details, code="bad_password")
    try:
        with _hashing:
            return _hasher().hash(password)
    except UnicodeEncodeError:
        raise BadRequest("Invalid password", "It contains invalid characters", code="bad_password") from None


def lock(session: Session, name: str) -> Operator:
    """Return the operator's row, locked until the transaction ends. Raises NotFound."""
    operator = session.get(Operator, name, with_for_update=True, populate_existing=True)
    if operator is None:
        raise NotFound(
            "No such operator", f"There is no operator named {name[:50]}", code="operator_not_found"
        )
    return operator


def _keep_an_admin(session: Session, name: str) -> None:
    """Refuse to remove the last admin. The rows are locked in order, so that two admins cannot go at once."""
    admins = select(Operator.name).where(_ENABLED_ADMIN)
    if list(session.scalars(admins.order_by(Operator.name).with_for_update())) == [name]:
        raise Conflict("The last admin", "Add another admin first", code="last_admin")


def _saved(session: Session, operator: Operator) -> Operator:
    session.flush()
    session.refresh(operator)
    return operator
