"""Commands for wallets: freeze, credit, adjust."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from cli.actor import actor_of, operator_action
from cli.output import say
from shared.clock import iso
from shared.roles import Permission

if TYPE_CHECKING:
    from shared.models import Adjustment

_reason = click.option("--reason", required=True, help="Why. It is recorded.")
_user = click.argument("user_id", metavar="USER")


@click.group(name="wallet")
def wallet_() -> None:
    """Users' wallets: freeze them, credit and adjust coins."""


@wallet_.command()
@_user
@_reason
@operator_action(Permission.FREEZE, "freeze", subject="user_id")
def freeze(user_id: str, reason: str, name: str) -> None:
    """Stop a user's withdrawals. The wallet still receives credits and refunds."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        blocks.freeze(session, user_id, reason=reason, actor=actor_of(name))
    click.echo("Frozen. Waiting withdrawals now need approval before they are sent.")


@wallet_.command()
@_user
@_reason
@operator_action(Permission.FREEZE, "unfreeze", subject="user_id")
def unfreeze(user_id: str, reason: str, name: str) -> None:
    """Propose to unfreeze a wallet. Withdrawals that were held still await approval."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        removal = blocks.propose_unfreeze(session, user_id, reason=reason, actor=actor_of(name))
    click.echo(f"Proposed. A second person approves it: payouts block approve {removal.id}")


@wallet_.command()
@_user
@click.argument("coins", type=int)
@click.option("--reference", required=True, help="Your reference. It is credited once.")
@_reason
@operator_action(Permission.COINS, "coins", subject="user_id", audit_params=("coins", "reference"))
def credit(user_id: str, coins: int, reference: str, reason: str, name: str) -> None:
    """Credit COINS to a user. Above the daily limit, a second person must approve."""
    from shared.coins import adjustments

    _print_result(
        adjustments.propose(user_id, coins, reference=reference, reason=reason, actor=actor_of(name))
    )


@wallet_.command(context_settings={"ignore_unknown_options": True})
@_user
@click.argument("coins", type=int)
@_reason
@operator_action(Permission.COINS, "coins", subject="user_id", audit_params=("coins",))
def adjust(user_id: str, coins: int, reason: str, name: str) -> None:
    """Adjust a balance by COINS, also negative. Above the daily limit, a second person must approve."""
    from shared.coins import adjustments

    _print_result(adjustments.propose(user_id, coins, reason=reason, actor=actor_of(name)))


@wallet_.command()
def proposals() -> None:
    """List open proposals for credits and adjustments."""
    from shared.coins import adjustments
    from shared.db.transactions import transaction

    with transaction() as session:
        open_proposals = adjustments.open_proposals(session)
    for proposal in open_proposals:
        change = f"{proposal.kind} {proposal.coins:+,d} coins, {proposal.user_id}"
        proposer = f"{proposal.proposed_by}: {proposal.reason}"
        say(f"{proposal.id}  {iso(proposal.proposed_at)}  {change}  {proposer}")
    if not open_proposals:
        click.echo("No open proposals.")


@wallet_.command()
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.COINS, "coins_approve", subject="proposal_id")
def approve(proposal_id: UUID, name: str) -> None:
    """Approve a proposal as the second person. It is carried out at once."""
    from shared.coins import adjustments

    _print_result(adjustments.approve(proposal_id, actor=actor_of(name)))


@wallet_.command()
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.COINS, "coins_reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Reject a proposal."""
    from shared.coins import adjustments

    adjustments.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. No coins have moved.")


def _print_result(adjustment: "Adjustment") -> None:
    if adjustment.outcome == "approved":
        click.echo(f"Done: {adjustment.coins:+,d} coins.")
    else:
        click.echo(f"Proposed. A second person approves it: payouts wallet approve {adjustment.id}")


COMMANDS = (wallet_,)
