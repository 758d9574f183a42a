"""What waits for a second admin: look at it, confirm it, reject it, and see a secret once."""

from typing import Any
from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.clock import iso
from shared.roles import Permission


@click.group()
def proposals() -> None:
    """Operators, keys, endpoints and imports that wait for a second person."""


@proposals.command(name="list")
def list_() -> None:
    """What waits, oldest first, with what a confirmation is about."""
    from shared import db
    from shared import proposals as rooms

    with db.transaction() as session:
        found = rooms.waiting(session)
    for made in found:
        kind = rooms.KINDS[made.kind]
        click.echo(f"{made.id}  {kind.title}: {' '.join(kind.tells(made.subject, made.wanted))}")
        click.echo(
            f"    proposed {iso(made.proposed_at)} by {made.proposed_by}: {made.reason}; "
            f"expires {iso(made.expires_at)}; facts {made.fingerprint}"
        )
    if not found:
        click.echo("Nothing waits.")


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@click.option("--facts", "shown", required=True, help="As `payouts proposals list` showed them.")
@acting(Permission.IMPORT, "proposal_confirm", subject="proposal_id")
def confirm(proposal_id: UUID, shown: str, name: str) -> None:
    """Agree as the second person; it is done at once."""
    from shared import proposals as rooms
    from shared.cli.operators import show

    done = rooms.confirm(proposal_id, shown=shown, actor=actor_of(name))
    made = done.proposal
    if rooms.KINDS[made.kind].shows is not None:
        click.echo(f"Confirmed. {made.proposed_by} sees the secret, once: payouts proposals claim {made.id}")
        return
    show(done)


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.IMPORT, "proposal_reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Take a proposal off the table."""
    from shared import proposals as rooms

    rooms.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. Nothing has changed.")


@proposals.command()
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.KEYS, "proposal_claim", subject="proposal_id")
def claim(proposal_id: UUID, name: str) -> None:
    """Show the secret of a key or an endpoint that you proposed and another confirmed: this once."""
    show_secret(proposal_id, name)


def propose(word: str, subject: str, wanted: dict[str, Any], reason: str, name: str) -> None:
    """Propose something with a secret; where no second person is needed, show it at once."""
    from shared import proposals as rooms

    made = rooms.propose(rooms.KINDS[word], subject, wanted, reason=reason, actor=actor_of(name)).proposal
    if made.outcome is None:
        click.echo(f"Proposed. A second person confirms it: payouts proposals confirm {made.id}", err=True)
    else:
        show_secret(made.id, name)


def show_secret(proposal_id: UUID, name: str) -> None:
    """The secret alone on stdout, for programs; the words for people beside it."""
    from shared import proposals as rooms

    words, secret = rooms.claim(proposal_id, actor=actor_of(name))
    click.echo(f"{words}:", err=True)
    click.echo(secret)


COMMANDS = (proposals,)
