"""Who may sign in to the panel: let in, kept out, given a new password or a second factor."""

import sys
from typing import Any

import click

from shared.cli.acting import acting, actor_of
from shared.clock import iso
from shared.roles import Role

NAME = click.argument("operator_name", metavar="NAME")


@click.group()
def operator() -> None:
    """Who may sign in to the panel at /admin/."""


@operator.command()
@NAME
@click.option("--role", type=click.Choice([str(role) for role in Role]), default="viewer", show_default=True)
@acting
def add(operator_name: str, role: str, name: str) -> None:
    """Let NAME in. The password is asked for, or read from stdin."""
    from shared import db, operators

    password = _password()
    with db.transaction() as session:
        _note(session, "operator_add", operator_name, name, role=role)
        operators.add(session, operator_name, role=Role(role), password=password, actor=actor_of(name))
    click.echo(f"{operator_name} may sign in as {role}.")


@operator.command()
@NAME
@acting
def disable(operator_name: str, name: str) -> None:
    """Keep NAME out, from the next request on."""
    from shared import db, operators

    with db.transaction() as session:
        _note(session, "operator_disable", operator_name, name)
        operators.disable(session, operator_name, actor=actor_of(name))
    click.echo(f"{operator_name} is out.")


@operator.command()
@NAME
@acting
def enable(operator_name: str, name: str) -> None:
    """Let a disabled NAME in again."""
    from shared import db, operators

    with db.transaction() as session:
        _note(session, "operator_enable", operator_name, name)
        operators.enable(session, operator_name)
    click.echo(f"{operator_name} may sign in again.")


@operator.command()
@NAME
@acting
def password(operator_name: str, name: str) -> None:
    """Give NAME a new password and end their sessions. It is asked for, or read from stdin."""
    from shared import db, operators

    new = _password()
    with db.transaction() as session:
        _note(session, "operator_password", operator_name, name)
        operators.set_password(session, operator_name, new)
    click.echo(f"{operator_name} has a new password; their sessions are over.")


@operator.command()
@NAME
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@acting
def role(operator_name: str, role: str, name: str) -> None:
    """Change what NAME may do."""
    from shared import db, operators

    with db.transaction() as session:
        _note(session, "operator_role", operator_name, name, role=role)
        operators.set_role(session, operator_name, Role(role))
    click.echo(f"{operator_name} is {role} now.")


@operator.command()
@NAME
@click.option("--off", is_flag=True, help="Ask for no code any more: the telephone is lost.")
@acting
def totp(operator_name: str, off: bool, name: str) -> None:
    """Ask NAME for a code at each sign-in; shows the secret for their app, this once."""
    import pyotp

    from shared import db, operators

    with db.transaction() as session:
        _note(session, "operator_totp", operator_name, name, on=not off)
        secret = operators.set_totp(session, operator_name, on=not off)
    if secret is None:
        click.echo(f"{operator_name} needs no code any more.")
        return
    click.echo("Put this into an authenticator app. It is not shown again:", err=True)
    click.echo(pyotp.TOTP(secret).provisioning_uri(name=operator_name, issuer_name="Coin Payouts"))


@operator.command(name="list")
def list_() -> None:
    """Show every operator, with role, second factor and last sign-in."""
    from shared import db, operators

    with db.transaction() as session:
        found = operators.listing(session)
    if not found:
        click.echo("There are no operators.")
    for one in found:
        state = f"disabled {iso(one.disabled_at)} by {one.disabled_by}" if one.disabled_at else "may sign in"
        code = "with code" if one.totp_secret else "no code"
        seen = iso(one.last_sign_in_at) or "never"
        click.echo(f"{one.name:20}  {one.role:8}  {code:9}  last signed in {seen}  {state}")


def _password() -> str:
    """From the keyboard, twice and unseen; from stdin where that is a pipe. Never from the command line."""
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")


def _note(session: Any, action: str, subject: str, name: str, **data: Any) -> None:
    """In the same transaction as what it tells: either both are there or neither."""
    from shared import audit

    audit.write(
        session,
        operator=name,
        address=audit.SHELL,
        action=action,
        outcome=audit.DONE,
        subject=subject,
        **data,
    )


COMMANDS = (operator,)
