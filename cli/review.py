"""Commands to review withdrawals, and to block UPI ids and handles."""

from uuid import UUID

import click

from cli.actor import actor_of, operator_action
from cli.output import say
from shared.clock import iso
from shared.roles import Permission
from shared.text.upi import mask

_reason = click.option("--reason", required=True, help="Why. It is recorded.")
_proposal = click.argument("proposal_id", type=click.UUID)
_shown = click.option("--facts", "shown", required=True, help="The facts that `payouts review list` showed.")


def masked(payee: str) -> str:
    """Return the payee for the audit log: a whole handle, but a masked UPI id."""
    return payee if payee.startswith("@") or "@" not in payee else mask(payee)


@click.group()
def review() -> None:
    """Withdrawals that await approval."""


@review.command(name="list")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
def list_reviews(limit: int) -> None:
    """List what awaits approval, oldest first, with the facts to approve."""
    from shared.db.transactions import transaction
    from shared.money import rupees_text
    from shared.withdrawals import review as reviews

    with transaction() as session:
        waiting = reviews.awaiting_approval(session, limit=limit)
        for row in waiting:
            amount = f"{rupees_text(row.amount_paise)} ({row.coins_amount:,} coins)"
            payment = f"{amount} from {row.user_id} to {row.upi_id}"
            facts = reviews.facts_hash(session, row)
            say(f"{row.id}  {iso(row.created_at)}  {row.awaits_approval}  {payment}  facts {facts}")
    if not waiting:
        click.echo("Nothing awaits approval.")


@review.command()
@click.argument("withdrawal_id", type=click.UUID)
@_shown
@_reason
@operator_action(Permission.REVIEW, "approve-review", subject="withdrawal_id")
def approve(withdrawal_id: UUID, shown: str, reason: str, name: str) -> None:
    """Approve a withdrawal: exactly the amount and UPI id that were shown."""
    from shared import withdrawals

    withdrawal = withdrawals.approve_review(withdrawal_id, shown=shown, reason=reason, actor=actor_of(name))
    click.echo(f"Approved. {withdrawal.id} is paid when its waiting time is over.")


@review.command()
@click.argument("withdrawal_id", type=click.UUID)
@_shown
@_reason
@click.option("--words", "user_message", help="The message to the user. [default: that it was not approved]")
@operator_action(Permission.REVIEW, "reject-review", subject="withdrawal_id")
def reject(withdrawal_id: UUID, shown: str, reason: str, user_message: str | None, name: str) -> None:
    """Reject a withdrawal and refund its coins."""
    from shared import withdrawals
    from shared.withdrawals import review as reviews

    message = reviews.NOT_APPROVED if user_message is None else user_message
    withdrawal = withdrawals.reject_review(
        withdrawal_id, shown=shown, reason=reason, user_message=message, actor=actor_of(name)
    )
    click.echo(f"Rejected. {withdrawal.coins_amount:,} coins are refunded.")


@click.group()
def block() -> None:
    """UPI ids and handles that are not paid."""


@block.command(name="add")
@click.argument("payee", metavar="UPI-ID|@HANDLE")
@_reason
@operator_action(Permission.FREEZE, "block", subject="payee", format_subject=masked)
def add_block(payee: str, reason: str, name: str) -> None:
    """Block a UPI id or handle: refuse new requests, and hold waiting ones for approval."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        added = blocks.add(session, payee, reason=reason, actor=actor_of(name))
    say(f"{added.subject} is blocked.")


@block.command(name="remove")
@click.argument("payee", metavar="UPI-ID|@HANDLE")
@_reason
@operator_action(Permission.FREEZE, "unblock", subject="payee", format_subject=masked)
def remove_block(payee: str, reason: str, name: str) -> None:
    """Propose to end a block. Withdrawals that it held still await approval."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        removal = blocks.propose_unblock(session, payee, reason=reason, actor=actor_of(name))
    click.echo(f"Proposed. A second person approves it: payouts block approve {removal.id}")


@block.command()
def proposals() -> None:
    """List open proposals to end blocks and freezes."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        removals = blocks.open_removals(session)
    for removal, blocked in removals:
        proposer = f"{removal.proposed_by}: {removal.reason}"
        say(f"{removal.id}  {iso(removal.proposed_at)}  {blocked.subject}  {proposer}")
    if not removals:
        click.echo("No open proposals.")


@block.command(name="approve")
@_proposal
@operator_action(Permission.FREEZE, "unblock_approve", subject="proposal_id")
def approve_removal(proposal_id: UUID, name: str) -> None:
    """Approve the end of a block or freeze, as the second person. It takes effect at once."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        ended = blocks.approve(session, proposal_id, actor=actor_of(name))
    say(f"{ended.subject} is no longer {'frozen' if ended.kind == blocks.WALLET else 'blocked'}.")


@block.command(name="reject")
@_proposal
@operator_action(Permission.FREEZE, "unblock_reject", subject="proposal_id")
def reject_removal(proposal_id: UUID, name: str) -> None:
    """Reject a proposal to end a block or freeze."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    with transaction() as session:
        blocks.reject(session, proposal_id, actor=actor_of(name))
    click.echo("Rejected. Nothing has changed.")


@block.command(name="list")
@click.option("--all", "with_removed", is_flag=True, help="Include ended blocks.")
@click.option("--wallets", is_flag=True, help="List frozen wallets instead.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
def list_blocks(with_removed: bool, wallets: bool, limit: int) -> None:
    """List the blocks: since when, by whom and why."""
    from shared.db.transactions import transaction
    from shared.withdrawals import blocks

    kind = blocks.WALLET if wallets else blocks.UPI_ID
    with transaction() as session:
        rows = blocks.listing(session, kind=kind, with_removed=with_removed, limit=limit)
    for row in rows:
        ended = (
            f"; ended {iso(row.removed_at)} by {row.removed_by}: {row.removed_because}"
            if row.removed_at
            else ""
        )
        say(f"{row.subject}  {iso(row.added_at)}  {row.added_by}: {row.reason}{ended}")
    if not rows:
        click.echo("No blocks.")


COMMANDS = (review, block)
