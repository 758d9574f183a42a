"""Operators: invited, disabled, given another role or a new link. A second admin confirms what gives more."""

from typing import TYPE_CHECKING, Any

import click

from shared.cli import token_file
from shared.cli.acting import SHELL, acting, actor_of, ask
from shared.clock import iso
from shared.roles import Permission, Role

if TYPE_CHECKING:
    from shared.proposals import Confirmed

NAME = click.argument("operator_name", metavar="NAME")
REASON = click.option("--reason", default="at the shell", show_default=True, help="Why; the books keep it.")


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
@click.option("--email", help="The invitation and notices go there.")
@REASON
@acting(Permission.OPERATORS, "operator_add", subject="operator_name", tells=("role",), may_be_first=True)
def add(operator_name: str, role: str, email: str | None, reason: str, name: str) -> None:
    """Propose NAME as an operator. Once a second admin confirmed it, a link lets them choose a password."""
    from shared import names
    from shared.proposals import kinds

    if name == SHELL and role != Role.ADMIN:
        raise click.ClickException("The first operators are admins: --role admin")
    wanted = {"role": role, "email": names.clean_email(email)}
    _propose(kinds.ADD, operator_name, wanted, reason, name)


@operator.command()
@NAME
@REASON
@acting(Permission.OPERATORS, "operator_disable", subject="operator_name")
def disable(operator_name: str, reason: str, name: str) -> None:
    """Keep NAME out, from the next request on. One admin may."""
    from shared import proposals

    proposals.disable(operator_name, actor=actor_of(name), reason=reason)
    click.echo(f"{operator_name} is out.")


@operator.command()
@NAME
@REASON
@acting(Permission.OPERATORS, "operator_enable", subject="operator_name")
def enable(operator_name: str, reason: str, name: str) -> None:
    """Propose to let a disabled NAME in again."""
    from shared.proposals import kinds

    _propose(kinds.ENABLE, operator_name, {}, reason, name)


@operator.command()
@NAME
@REASON
@acting(Permission.OPERATORS, "operator_password", subject="operator_name")
def password(operator_name: str, reason: str, name: str) -> None:
    """Propose a new link for NAME, with which they choose a new password. Nobody else ever knows it."""
    from shared.proposals import kinds

    _propose(kinds.PASSWORD, operator_name, {}, reason, name)


@operator.command()
@NAME
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@REASON
@acting(Permission.OPERATORS, "operator_role", subject="operator_name", tells=("role",))
def role(operator_name: str, role: str, reason: str, name: str) -> None:
    """Give NAME another role: a lower one at once, a higher one as a proposal."""
    from shared import db, operators, proposals
    from shared.proposals import kinds

    with db.transaction() as session:
        before = Role(operators.locked(session, operator_name).role)
    if not before.may(Role(role)):
        _propose(kinds.ROLE, operator_name, {"role": role}, reason, name)
        return
    proposals.lower_role(operator_name, Role(role), actor=actor_of(name), reason=reason)
    click.echo(f"{operator_name} is {role} now.")


@operator.command()
@NAME
@click.option("--off", is_flag=True, required=True, help="The phone and the recovery codes are lost.")
@REASON
@acting(Permission.OPERATORS, "operator_totp", subject="operator_name", tells=("off",))
def totp(operator_name: str, off: bool, reason: str, name: str) -> None:
    """Propose to forget NAME's second factor; they enrol another phone themselves at their next sign-in."""
    from shared.proposals import kinds

    assert off, "the option is required: turning it on is for its owner, in the panel"
    _propose(kinds.TOTP, operator_name, {}, reason, name)


@operator.command()
@NAME
@click.option("--user-id", help="Their own account in the app.")
@click.option("--email", help="Their e-mail address.")
@click.option("--phone", help="Their phone.")
@REASON
@acting(Permission.OPERATORS, "operator_link", subject="operator_name", tells=("user_id",))
def link(
    operator_name: str, user_id: str | None, email: str | None, phone: str | None, reason: str, name: str
) -> None:
    """Propose who NAME is beside their name, so that they decide nothing for themselves.

    Their invitations and notices go to the e-mail address. What is not given is forgotten.
    """
    from shared.proposals import kinds

    wanted = {"user_id": user_id, "email": email, "phone": phone}
    _propose(kinds.LINK, operator_name, wanted, reason, name)


@operator.command(name="list")
def list_() -> None:
    """Show every operator, with role, second factor and last sign-in."""
    from shared import db, invitations, operators

    with db.transaction() as session:
        found, invited = operators.listing(session), invitations.waiting(session)
    if not found:
        click.echo("There are no operators.")
    for one in found:
        state = "may sign in" if one.password_hash else "has no password"
        if one.name in invited:
            state = f"has a link until {iso(invited[one.name].expires_at)}"
        if one.disabled_at:
            state = f"disabled {iso(one.disabled_at)} by {one.disabled_by}"
        code = "with code" if one.totp_secret else "no code"
        seen = iso(one.last_sign_in_at) or "never"
        click.echo(f"{one.name:20}  {one.role:8}  {code:9}  last signed in {seen}  {state}")


def _propose(word: str, subject: str, wanted: dict[str, Any], reason: str, name: str) -> None:
    from shared import proposals

    show(proposals.propose(proposals.KINDS[word], subject, wanted, reason=reason, actor=actor_of(name)))


def show(done: "Confirmed") -> None:
    """What came of a proposal. A link stands alone on stdout, for programs; the words beside it."""
    from shared import invitations

    made = done.proposal
    if made.outcome is None:
        click.echo(f"Proposed. A second person confirms it: payouts proposals confirm {made.id}")
    elif done.is_mailed:
        click.echo(f"Done. The invitation was mailed to {made.subject}.")
    elif done.invitation is not None:
        click.echo(f"Give this link to {made.subject} and nobody else. It works once:", err=True)
        click.echo(invitations.link(done.invitation.id))
    else:
        click.echo("Done.")


COMMANDS = (operator,)
