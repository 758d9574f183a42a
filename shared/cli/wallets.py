"""What finance and operators do with wallets at a shell: freeze, credit, adjust."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.cli.saying import say
from shared.clock import iso
from shared.roles import Permission

if TYPE_CHECKING:
    from shared.models import Adjustment

_reason = click.option("--reason", required=True, help="Why; the books keep it.")
_user = click.argument("user_id", metavar="USER")


@click.group(name="wallet")
def wallet_() -> None:
    """Users' wallets: freeze them, give and take coins."""


@wallet_.command()
@_user
@_reason
@acting(Permission.FREEZE, "freeze", subject="user_id")
def freeze(user_id: str, reason: str, name: str) -> None:
    """Stop a user's withdrawals. Coins still come in and come back."""
    from shared import blocks, db

    with db.transaction() as session:
        blocks.freeze(session, user_id, reason=reason, actor=actor_of(name))
    click.echo("Frozen. What waits is held for a person before it is sent.")


@wallet_.command()
@_user
@_reason
@acting(Permission.FREEZE, "unfreeze", subject="user_id")
def unfreeze(user_id: str, reason: str, name: str) -> None:
    """Propose that a user may withdraw again; a second person approves. What was held awaits approval."""
    from shared import blocks, db

    with db.transaction() as session:
        made = blocks.propose_unfreeze(session, user_id, reason=reason, actor=actor_of(name))
    click.echo(f"Proposed. A second person approves it: payouts block approve {made.id}")


@wallet_.command()
@_user
@click.argument("coins", type=int)
@click.option("--reference", required=True, help="Credited once for it.")
@_reason
@acting(Permission.COINS, "coins", subject="user_id", tells=("coins", "reference"))
def credit(user_id: str, coins: int, reference: str, reason: str, name: str) -> None:
    """Give a user COINS; above the limit of a day a second person approves."""
    from shared import adjusting

    made = adjusting.propose(user_id, coins, reference=reference, reason=reason, actor=actor_of(name))
    _tell(made)


@wallet_.command(context_settings={"ignore_unknown_options": True})
@_user
@click.argument("coins", type=int)
@_reason
@acting(Permission.COINS, "coins", subject="user_id", tells=("coins",))
def adjust(user_id: str, coins: int, reason: str, name: str) -> None:
    """Mend a balance by COINS, which may be negative; above the limit a second person approves."""
    from shared import adjusting

    _tell(adjusting.propose(user_id, coins, reason=reason, actor=actor_of(name)))


@wallet_.command()
def proposals() -> None:
    """Credits and adjustments that wait for a second person."""
    from shared import adjusting, db

    with db.transaction() as session:
        found = adjusting.waiting(session)
    for one in found:
        what = f"{one.kind} {one.coins:+d} coins, {one.user_id}"
        say(f"{one.id}  {iso(one.proposed_at)}  {what}  {one.proposed_by}: {one.reason}")
    if not found:
        click.echo("Nothing waits.")


@wallet_.command()
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.COINS, "coins_approve", subject="proposal_id")
def approve(proposal_id: UUID, name: str) -> None:
    """Agree as the second person; it is done at once."""
    from shared import adjusting

    _tell(adjusting.approve(proposal_id, actor=actor_of(name)))


@wallet_.command()
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.COINS, "coins_reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Take a proposal off the table."""
    from shared import adjusting

    adjusting.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. No coin has moved.")


def _tell(made: "Adjustment") -> None:
    if made.outcome == "approved":
        click.echo(f"Done: {made.coins:+d} coins.")
    else:
        click.echo(f"Proposed. A second person approves it: payouts wallet approve {made.id}")


COMMANDS = (wallet_,)
