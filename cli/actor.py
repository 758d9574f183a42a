"""Operators at the shell: authentication, permission and the audit log of their commands.

A command that changes something is marked with `operator_action`. The operator has signed in (`payouts
operator sign-in`) or enters a password; then the same table as in the panel decides whether their role allows
it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from getpass import getuser
from typing import TYPE_CHECKING, Any

import click

from cli import token_file
from shared.errors import PayoutsError
from shared.roles import REQUIRED_ROLE, Permission, Role
from shared.text import names
from shared.text.names import actor_of

if TYPE_CHECKING:
    from shared.models import Operator

__all__ = ["actor_of", "audited", "current_operator", "operator_action"]

SIGN_IN_COMMAND = "payouts operator sign-in"
SHELL = "shell"  # the name under which the first admins are added
REASON_PARAMETERS = ("reason", "evidence", "resolution")  # parameters that hold a command's reason


class NotAuthorized(click.ClickException):
    """No operator authenticated, or their role does not allow it. Nothing was done."""

    exit_code = 2


def operator_action(
    needs: Permission,
    action: str,
    *,
    subject: str | None = None,
    audit_params: tuple[str, ...] = (),
    format_subject: Callable[[str], str] = str,
    read_only_option: str | None = None,
    allow_first_admins: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Allow a command only to operators with this permission; it gets their `name`.

    The audit log records `action`, the parameter `subject` (through `format_subject`) and `audit_params`.
    With the option `read_only_option` the command changes nothing, and everyone can run it.
    `allow_first_admins`: while there is no admin no one can sign in, so the command runs with the name
    `shell`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(*, name: str | None, **params: Any) -> Any:
            if read_only_option and params[read_only_option]:
                return command(name=name or getuser(), **params)
            subject_value = params.get(subject) if subject else None
            subject_text = None if subject_value is None else format_subject(str(subject_value))
            data = {param: _as_text(params[param]) for param in audit_params if params.get(param)}
            reason = next((params[param] for param in REASON_PARAMETERS if params.get(param)), None)
            try:
                operator = None if allow_first_admins and _has_no_admins() else current_operator(name)
            except PayoutsError as error:  # nothing was started
                from shared.db import causes

                raise NotAuthorized(causes.describe(error)) from None
            operator_name = operator.name if operator else SHELL
            with audited(operator_name, action, subject=subject_text, reason=reason, **data):
                if operator is not None:
                    _require_role(operator, needs)
                return command(name=operator_name, **params)

        option = click.option(
            "--as",
            "name",
            metavar="NAME",
            help="The operator; asks for the password. [default: the one who signed in]",
        )
        return option(run)

    return decorate


@contextmanager
def audited(
    operator: str, action: str, *, subject: str | None = None, reason: str | None = None, **extra: str
) -> Iterator[None]:
    """Write an action to the audit log before it is attempted, and its result afterwards, like the panel."""
    from shared.db.transactions import transaction
    from shared.people import audit

    def write(outcome: str, **data: object) -> None:
        with transaction() as session:
            audit.write(
                session,
                operator=operator,
                address=audit.SHELL,
                action=action,
                outcome=outcome,
                subject=subject,
                reason=reason,
                login=getuser(),
                **data,
            )

    with audit.from_origin(audit.CLI):
        write(audit.ASKED, **extra)
        try:
            yield
        except PayoutsError as error:
            write(audit.REFUSED, code=error.code)
            raise
        except click.ClickException as error:
            write(audit.REFUSED, why=error.format_message()[:200])
            raise
        except SystemExit as exit_:  # the command reports its result by its exit code
            write(audit.DONE, exit_code=exit_.code)
            raise
        write(audit.DONE)


def current_operator(name: str | None) -> "Operator":
    """Return the operator at this shell, authenticated. Raises NotAuthorized, Unavailable."""
    from shared.db.transactions import transaction
    from shared.people import operator_tokens

    token = token_file.read()
    if token:
        with transaction() as session:
            operator = operator_tokens.find_operator(session, token)
        if operator is not None and name in (None, operator.name):
            return operator
        if operator is None and name is None and not sys.stdin.isatty():
            raise NotAuthorized(f"Your sign-in has expired. Sign in again: {SIGN_IN_COMMAND} NAME")
    if not sys.stdin.isatty():
        raise NotAuthorized(f"You are not signed in. Sign in first: {SIGN_IN_COMMAND} {name or 'NAME'}")
    return authenticate(name or click.prompt("Operator"))


def authenticate(name: str) -> "Operator":
    """Authenticate an operator by password and code, from the keyboard or a pipe. Raises NotAuthorized."""
    from shared.db.transactions import transaction
    from shared.people import audit, operators, second_factor

    folded = names.fold(name)
    password = _read_secret("Password")
    with transaction() as session:
        account = operators.find(session, folded)
    code = _read_secret("Code") if account is not None and account.totp_secret else ""
    operator = operators.sign_in(folded, password, code)
    with transaction() as session, audit.from_origin(audit.CLI):
        audit.write(
            session,
            operator=account.name if account else audit.UNKNOWN_OPERATOR,
            address=audit.SHELL,
            action="sign_in",
            outcome=audit.DONE if operator else audit.REFUSED,
            login=getuser(),
        )
    if operator is None:
        raise NotAuthorized("The name, password or code is wrong.")
    if second_factor.is_missing(operator):
        raise NotAuthorized("Your role requires a second factor. Enrol one in the panel first.")
    return operator


def _has_no_admins() -> bool:
    """True if there is no admin yet."""
    from shared.db.transactions import transaction
    from shared.people import operators

    with transaction() as session:
        return not operators.has_first_admins(session)


def _require_role(operator: "Operator", needs: Permission) -> None:
    if not Role(operator.role).may(REQUIRED_ROLE[needs]):
        raise NotAuthorized(f"{operator.name} is {operator.role}; this requires {REQUIRED_ROLE[needs]}.")


def _as_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read_secret(label: str) -> str:
    """Read a secret from the keyboard without echo, or from a pipe; never from the command line."""
    if sys.stdin.isatty():
        secret: str = click.prompt(label, hide_input=True)
        return secret
    return sys.stdin.readline().rstrip("\r\n")
