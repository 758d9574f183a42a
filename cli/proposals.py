"""Commands for proposals that need a second admin: list, confirm, reject, and claim a secret once."""

from typing import Any
from uuid import UUID

import click

from cli.actor import actor_of, operator_action
from shared.clock import iso
from shared.roles import Permission


@click.group()
def proposals() -> None:
    """Proposals about operators, keys, endpoints and imports."""


@proposals.command(name="list")
def list_() -> None:
    """List open proposals, oldest first, with the facts to confirm."""
    from shared import proposals as admin_proposals
    from shared.db.transactions import transaction

    with transaction() as session:
        open_proposals = admin_proposals.open_proposals(session)
    for proposal in open_proposals:
        kind = admin_proposals.KINDS[proposal.kind]
        description = " ".join(kind.describe(proposal.subject, proposal.wanted))
        click.echo(f"{proposal.id}  {kind.title}: {description}")
        click.echo(
            f"    proposed {iso(proposal.proposed_at)} by {proposal.proposed_by}: {proposal.reason}; "
            f"expires {iso(proposal.expires_at)}; facts {proposal.fingerprint}"
        )
    if not open_proposals:
        click.echo("No open proposals.")


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@click.option("--facts", "shown", required=True, help="The facts that `payouts proposals list` showed.")
@operator_action(Permission.IMPORT, "proposal_confirm", subject="proposal_id")
def confirm(proposal_id: UUID, shown: str, name: str) -> None:
    """Confirm a proposal as the second person. It is carried out at once."""
    from cli.operators import print_result
    from shared import proposals as admin_proposals

    result = admin_proposals.confirm(proposal_id, shown=shown, actor=actor_of(name))
    proposal = result.proposal
    if admin_proposals.KINDS[proposal.kind].reveal is not None:
        command = f"payouts proposals claim {proposal.id}"
        click.echo(f"Confirmed. {proposal.proposed_by} can claim the secret once: {command}")
        return
    print_result(result)


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.IMPORT, "proposal_reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Reject a proposal."""
    from shared import proposals as admin_proposals

    admin_proposals.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. Nothing has changed.")


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.KEYS, "proposal_claim", subject="proposal_id")
def claim(proposal_id: UUID, name: str) -> None:
    """Show the secret of a key or endpoint that you proposed, once it is confirmed. It is shown once."""
    show_secret(proposal_id, name)


def propose(code: str, subject: str, wanted: dict[str, Any], reason: str, name: str) -> None:
    """Propose a key or an endpoint; if no second person is needed, show its secret at once."""
    from shared import proposals as admin_proposals

    kind = admin_proposals.KINDS[code]
    proposal = admin_proposals.propose(kind, subject, wanted, reason=reason, actor=actor_of(name)).proposal
    if proposal.outcome is None:
        command = f"payouts proposals confirm {proposal.id}"
        click.echo(f"Proposed. A second person confirms it: {command}", err=True)
    else:
        show_secret(proposal.id, name)


def show_secret(proposal_id: UUID, name: str) -> None:
    """Print the secret alone on stdout, for programs, and the description for people on stderr."""
    from shared import proposals as admin_proposals

    description, secret = admin_proposals.claim(proposal_id, actor=actor_of(name))
    click.echo(f"{description}:", err=True)
    click.echo(secret)


COMMANDS = (proposals,)
