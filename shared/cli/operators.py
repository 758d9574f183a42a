"""Who may sign in to the panel: let in, kept out, given a new password or a second factor."""

import sys
from getpass import getuser

import click

from shared.cli import token_file
from shared.cli.acting import SHELL, acting, actor_of, ask
from shared.clock import iso
from shared.roles import Permission, Role

NAME = click.argument("operator_name", metavar="NAME")


@click.group()
def operator() -> None:
    """Who may sign in to the panel at /admin/."""


@operator.command(name="sign-in")
@NAME
@click.option("--print", "is_printed", is_flag=True, help="Print the token instead, for a variable.")
def sign_in(operator_name: str, is_printed: bool) -> None:
    """Prove that you are NAME, for the commands of the next minutes. Password and code are asked for."""
    from shared import db, operator_tokens

    found = ask(operator_name)
    with db.transaction() as session:
        token = operator_tokens.issue(session, found)
    if is_printed:
        click.echo(token)
        return
    path = token_file.keep(token)
    click.echo(f"You are {found.name} ({found.role}). Kept in {path}; payouts operator sign-out ends it.")


@operator.command(name="sign-out")
def sign_out() -> None:
    """End what `sign-in` began, at once."""
    from shared import db, operator_tokens

    if token := token_file.given():
        with db.transaction() as session:
            operator_tokens.revoke(session, token)
    token_file.forget()
    click.echo("You are signed out.")


@operator.command()
@NAME
@click.option("--role", type=click.Choice([str(role) for role in Role]), default="viewer", show_default=True)
@acting(Permission.OPERATORS, "operator_add", subject="operator_name", tells=("role",), may_be_first=True)
def add(operator_name: str, role: str, name: str) -> None:
    """Let NAME in. The password is asked for, or read from stdin.

    Where there is no admin yet, nobody need sign in to add the first one.
    """
    from shared import db, operators

    password = _password()
    with db.transaction() as session:
        if name == SHELL:
            _must_be_first(operators.has_admin(session), role)
        operators.add(
            session,
            operator_name,
            role=Role(role),
            password=password,
            actor=f"shell:{getuser()}" if name == SHELL else actor_of(name),
        )
    click.echo(f"{operator_name} may sign in as {role}.")


@operator.command()
@NAME
@acting(Permission.OPERATORS, "operator_disable", subject="operator_name")
def disable(operator_name: str, name: str) -> None:
    """Keep NAME out, from the next request on."""
    from shared import db, operators

    with db.transaction() as session:
        operators.disable(session, operator_name, actor=actor_of(name))
    click.echo(f"{operator_name} is out.")


@operator.command()
@NAME
@acting(Permission.OPERATORS, "operator_enable", subject="operator_name")
def enable(operator_name: str, name: str) -> None:
    """Let a disabled NAME in again."""
    from shared import db, operators

    with db.transaction() as session:
        operators.enable(session, operator_name)
    click.echo(f"{operator_name} may sign in again.")


@operator.command()
@NAME
@acting(Permission.OPERATORS, "operator_password", subject="operator_name")
def password(operator_name: str, name: str) -> None:
    """Give NAME a new password and end their sessions. It is asked for, or read from stdin."""
    from shared import db, operators

    new = _password()
    with db.transaction() as session:
        operators.set_password(session, operator_name, new)
    click.echo(f"{operator_name} has a new password; their sessions are over.")


@operator.command()
@NAME
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@acting(Permission.OPERATORS, "operator_role", subject="operator_name", tells=("role",))
def role(operator_name: str, role: str, name: str) -> None:
    """Change what NAME may do."""
    from shared import db, operators

    with db.transaction() as session:
        operators.set_role(session, operator_name, Role(role))
    click.echo(f"{operator_name} is {role} now.")


@operator.command()
@NAME
@click.option("--off", is_flag=True, help="Ask for no code any more: the telephone is lost.")
@acting(Permission.OPERATORS, "operator_totp", subject="operator_name", tells=("off",))
def totp(operator_name: str, off: bool, name: str) -> None:
    """Ask NAME for a code at each sign-in; shows the secret for their app, this once."""
    import pyotp

    from shared import db, operators

    with db.transaction() as session:
        secret = operators.set_totp(session, operator_name, on=not off)
    if secret is None:
        click.echo(f"{operator_name} needs no code any more.")
        return
    click.echo("Put this into an authenticator app. It is not shown again:", err=True)
    click.echo(pyotp.TOTP(secret).provisioning_uri(name=operator_name, issuer_name="Coin Payouts"))


@operator.command()
@NAME
@click.option("--user-id", help="Their own account in the app.")
@click.option("--email", help="Their e-mail address.")
@click.option("--phone", help="Their phone.")
@acting(Permission.OPERATORS, "operator_link", subject="operator_name", tells=("user_id",))
def link(operator_name: str, user_id: str | None, email: str | None, phone: str | None, name: str) -> None:
    """Say who NAME is beside their name, so that they decide nothing for themselves.

    What is not given is forgotten.
    """
    from shared import db, operators

    with db.transaction() as session:
        operators.link(session, operator_name, user_id=user_id, email=email, phone=phone)
    click.echo(f"{operator_name} decides nothing that would serve what you named.")


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


def _must_be_first(has_admin: bool, role: str) -> None:
    """Nobody signed in: it is the first admin, or nobody."""
    if has_admin:
        raise click.ClickException("Somebody added an admin meanwhile: sign in")
    if role != Role.ADMIN:
        raise click.ClickException("The first operator is an admin: --role admin")


COMMANDS = (operator,)
