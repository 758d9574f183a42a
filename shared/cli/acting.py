"""Who does it: an operator who proves it, whose role allows it, and whose act stands in the audit log.

A command that changes something is marked with `acting`. Who runs it has signed in (`payouts operator
sign-in`), or is asked for their password; then the same table as in the panel says whether their role may.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from getpass import getuser
from typing import TYPE_CHECKING, Any

import click

from shared import names
from shared.cli import token_file
from shared.errors import PayoutsError
from shared.names import actor_of
from shared.roles import NEEDS, Permission, Role

if TYPE_CHECKING:
    from shared.models import Operator

__all__ = ["acting", "actor_of", "kept", "known"]

SIGN_IN = "payouts operator sign-in"
SHELL = "shell"  # who adds the first admin
REASONS = ("reason", "evidence", "resolution")  # what the parameter that says why is called


class NotKnown(click.ClickException):
    """Nobody proved who they are, or their role does not allow it. Nothing was done."""

    exit_code = 2


def acting(
    needs: Permission,
    action: str,
    *,
    subject: str | None = None,
    tells: tuple[str, ...] = (),
    shown: Callable[[str], str] = str,
    unless: str | None = None,
    may_be_first: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a command be run by operators with this permission only; it gets the `name` of who is there.

    `action` is the word of the audit log; `subject` and `tells` name the parameters that go with it,
    and `shown` makes the subject fit to be read there. With the option `unless` it changes nothing, and
    anybody may run it. `may_be_first`: where there is no admin nobody can sign in; then the name is `shell`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(*, name: str | None, **given: Any) -> Any:
            if unless and given[unless]:
                return command(name=name or getuser(), **given)
            told = given.get(subject) if subject else None
            about = {word: _words(given[word]) for word in tells if given.get(word)}
            reason = next((given[word] for word in REASONS if given.get(word)), None)
            whom = None if told is None else shown(str(told))
            try:
                operator = None if may_be_first and _is_fresh() else known(name)
            except PayoutsError as error:  # nothing was begun
                from shared import causes

                raise NotKnown(causes.sentence(error)) from None
            who = operator.name if operator else SHELL
            with kept(who, action, subject=whom, reason=reason, **about):
                if operator is not None:
                    _must_hold(operator, needs)
                return command(name=who, **given)

        option = click.option(
            "--as",
            "name",
            metavar="NAME",
            help="Who does it; asks for the password. [default: who signed in]",
        )
        return option(run)

    return decorate


@contextmanager
def kept(
    operator: str, action: str, *, subject: str | None = None, reason: str | None = None, **about: str
) -> Iterator[None]:
    """Around an act: written down before it is tried, and how it ended, like an act in the panel."""
    from shared import audit, db

    def write(outcome: str, **data: object) -> None:
        with db.transaction() as session:
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

    with audit.coming_from(audit.CLI):
        write(audit.ASKED, **about)
        try:
            yield
        except PayoutsError as error:
            write(audit.REFUSED, code=error.code)
            raise
        except click.ClickException as error:
            write(audit.REFUSED, why=error.format_message()[:200])
            raise
        except SystemExit as end:  # a command that says by its exit code how it went
            write(audit.DONE, exit_code=end.code)
            raise
        write(audit.DONE)


def known(name: str | None) -> "Operator":
    """The operator who is at this shell, as they prove it. Raises NotKnown, Unavailable."""
    from shared import db, operator_tokens

    token = token_file.given()
    if token:
        with db.transaction() as session:
            operator = operator_tokens.owner_of(session, token)
        if operator is not None and name in (None, operator.name):
            return operator
        if operator is None and name is None and not sys.stdin.isatty():
            raise NotKnown(f"You are not signed in any more: {SIGN_IN} NAME")
    if not sys.stdin.isatty():
        raise NotKnown(f"Who are you? Sign in first: {SIGN_IN} {name or 'NAME'}")
    return ask(name or click.prompt("Operator"))


def ask(name: str) -> "Operator":
    """The operator of this name, by their password and code, from the keyboard or a pipe. Raises NotKnown."""
    from shared import audit, db, operators, second_factor

    folded = names.folded(name)
    password = _typed("Password")
    with db.transaction() as session:
        found = operators.find(session, folded)
    code = _typed("Code") if found is not None and found.totp_secret else ""
    operator = operators.sign_in(folded, password, code)
    with db.transaction() as session, audit.coming_from(audit.CLI):
        audit.write(
            session,
            operator=found.name if found else audit.NOBODY,
            address=audit.SHELL,
            action="sign_in",
            outcome=audit.DONE if operator else audit.REFUSED,
            login=getuser(),
        )
    if operator is None:
        raise NotKnown("Name, password or code is wrong.")
    if second_factor.is_missing(operator):
        raise NotKnown("Your role needs a second factor: enrol it in the panel first.")
    return operator


def _is_fresh() -> bool:
    """Whether there is no admin yet."""
    from shared import db, operators

    with db.transaction() as session:
        return not operators.has_first_admins(session)


def _must_hold(operator: "Operator", needs: Permission) -> None:
    if not Role(operator.role).may(NEEDS[needs]):
        raise NotKnown(f"{operator.name} is {operator.role}; this takes {NEEDS[needs]}.")


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _typed(what: str) -> str:
    """From the keyboard, unseen; from stdin where that is a pipe. Never from the command line."""
    if sys.stdin.isatty():
        typed: str = click.prompt(what, hide_input=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")
