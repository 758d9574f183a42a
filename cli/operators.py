"""Operators: add, disable, change roles, send new links. A second admin confirms what grants rights."""

from typing import TYPE_CHECKING, Any

import click

from cli import token_file
from cli.actor import SHELL, actor_of, authenticate, operator_action
from shared.clock import iso
from shared.roles import Permission, Role

if TYPE_CHECKING:
    from shared.proposals import ProposalResult

NAME = click.argument("operator_name", metavar="NAME")
REASON = click.option("--reason", default="at the shell", show_default=True, help="Why, for the audit log.")


@click.group()
def operator() -> None:
    """Manage the operators, who can sign in to the panel at /admin/."""


@operator.command(name="sign-in")
@NAME
@click.option("--print", "is_printed", is_flag=True, help="Print the token instead of storing it.")
def sign_in(operator_name: str, is_printed: bool) -> None:
    """Sign in as NAME for the next minutes. Prompts for password and code."""
    from shared.db.transactions import transaction
    from shared.people import operator_tokens

    signed_in = authenticate(operator_name)
    with transaction() as session:
        token = operator_tokens.issue(session, signed_in)
    if is_printed:
        click.echo(token)
        return
    path = token_file.write(token)
    click.echo(f"Signed in as {signed_in.name} ({signed_in.role}). The token is in {path}.")
    click.echo("To sign out, run: payouts operator sign-out")


@operator.command(name="sign-out")
def sign_out() -> None:
    """Sign out, at once."""
    from shared.db.transactions import transaction
    from shared.people import operator_tokens

    if token := token_file.read():
        with transaction() as session:
            operator_tokens.revoke(session, token)
    token_file.delete()
    click.echo("You are signed out.")


@operator.command()
@NAME
@click.option("--role", type=click.Choice([str(role) for role in Role]), default="viewer", show_default=True)
@click.option("--email", help="Address for the invitation and notices.")
@REASON
@operator_action(
    Permission.OPERATORS,
    "operator_add",
    subject="operator_name",
    audit_params=("role",),
    allow_first_admins=True,
)
def add(operator_name: str, role: str, email: str | None, reason: str, name: str) -> None:
    """Propose NAME as an operator. After a second admin confirms, they choose a password through a link."""
    from shared.proposals import kinds
    from shared.text import names

    if name == SHELL and role != Role.ADMIN:
        raise click.ClickException("The first operators must be admins. Use --role admin")
    wanted = {"role": role, "email": names.normalize_email(email)}
    _propose(kinds.ADD, operator_name, wanted, reason, name)


@operator.command()
@NAME
@REASON
@operator_action(Permission.OPERATORS, "operator_disable", subject="operator_name")
def disable(operator_name: str, reason: str, name: str) -> None:
    """Disable NAME from the next request on. One admin is enough."""
    from shared import proposals

    proposals.disable(operator_name, actor=actor_of(name), reason=reason)
    click.echo(f"{operator_name} is disabled.")


@operator.command()
@NAME
@REASON
@operator_action(Permission.OPERATORS, "operator_enable", subject="operator_name")
def enable(operator_name: str, reason: str, name: str) -> None:
    """Propose to enable NAME again."""
    from shared.proposals import kinds

    _propose(kinds.ENABLE, operator_name, {}, reason, name)


@operator.command()
@NAME
@REASON
@operator_action(Permission.OPERATORS, "operator_password", subject="operator_name")
def password(operator_name: str, reason: str, name: str) -> None:
    """Propose a link with which NAME chooses a new password. No one else ever knows it."""
    from shared.proposals import kinds

    _propose(kinds.PASSWORD, operator_name, {}, reason, name)


@operator.command()
@NAME
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@REASON
@operator_action(Permission.OPERATORS, "operator_role", subject="operator_name", audit_params=("role",))
def role(operator_name: str, role: str, reason: str, name: str) -> None:
    """Change the role of NAME: a lower role at once, a higher one as a proposal."""
    from shared import proposals
    from shared.db.transactions import transaction
    from shared.people import operators
    from shared.proposals import kinds

    with transaction() as session:
        current_role = Role(operators.lock(session, operator_name).role)
    if not current_role.may(Role(role)):
        _propose(kinds.ROLE, operator_name, {"role": role}, reason, name)
        return
    proposals.lower_role(operator_name, Role(role), actor=actor_of(name), reason=reason)
    click.echo(f"{operator_name} is now {role}.")


@operator.command()
@NAME
@click.option("--off", is_flag=True, required=True, help="Remove it: phone and recovery codes are lost.")
@REASON
@operator_action(Permission.OPERATORS, "operator_totp", subject="operator_name", audit_params=("off",))
def totp(operator_name: str, off: bool, reason: str, name: str) -> None:
    """Propose to remove the second factor of NAME, who enrols another phone at the next sign-in."""
    from shared.proposals import kinds

    assert off, "the option is required: only its owner can turn it on, in the panel"
    _propose(kinds.TOTP, operator_name, {}, reason, name)


@operator.command()
@NAME
@click.option("--user-id", help="Their own account in the app.")
@click.option("--email", help="Their e-mail address.")
@click.option("--phone", help="Their phone.")
@REASON
@operator_action(Permission.OPERATORS, "operator_link", subject="operator_name", audit_params=("user_id",))
def link(
    operator_name: str, user_id: str | None, email: str | None, phone: str | None, reason: str, name: str
) -> None:
    """Propose the accounts that belong to NAME, so that they cannot decide in their own favour.

    Invitations and notices go to the e-mail address. Options that you leave out are removed.
    """
    from shared.proposals import kinds

    wanted = {"user_id": user_id, "email": email, "phone": phone}
    _propose(kinds.LINK, operator_name, wanted, reason, name)


@operator.command(name="list")
def list_() -> None:
    """List all operators with role, second factor and last sign-in."""
    from shared.db.transactions import transaction
    from shared.people import invitations, operators

    with transaction() as session:
        accounts = operators.listing(session)
        invited = invitations.open_invitations(session)
    if not accounts:
        click.echo("There are no operators.")
    for account in accounts:
        state = "active" if account.password_hash else "no password"
        if account.name in invited:
            state = f"invited until {iso(invited[account.name].expires_at)}"
        if account.disabled_at:
            state = f"disabled {iso(account.disabled_at)} by {account.disabled_by}"
        factor = "TOTP" if account.totp_secret else "no TOTP"
        last_sign_in = iso(account.last_sign_in_at) or "never"
        click.echo(f"{account.name:20}  {account.role:8}  {factor:7}  last signed in {last_sign_in}  {state}")


def _propose(kind: str, subject: str, wanted: dict[str, Any], reason: str, name: str) -> None:
    from shared import proposals

    result = proposals.propose(proposals.KINDS[kind], subject, wanted, reason=reason, actor=actor_of(name))
    print_result(result)


def print_result(result: "ProposalResult") -> None:
    """Print the result of a proposal: a link on stdout, for programs, and its explanation on stderr."""
    from shared.people import invitations

    proposal = result.proposal
    if proposal.outcome is None:
        click.echo(f"Proposed. A second person confirms it: payouts proposals confirm {proposal.id}")
    elif result.is_mailed:
        click.echo(f"Done. The invitation was mailed to {proposal.subject}.")
    elif result.invitation is not None:
        click.echo(f"Give this link only to {proposal.subject}. It works once:", err=True)
        click.echo(invitations.url_of(result.invitation.id))
    else:
        click.echo("Done.")


COMMANDS = (operator,)
