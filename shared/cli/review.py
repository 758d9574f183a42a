"""What people rule at a shell: which withdrawals are paid, who is not paid, and whose coins change."""

from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.cli.saying import say
from shared.clock import iso
from shared.roles import Permission
from shared.upi import mask

_reason = click.option("--reason", required=True, help="Why; the books keep it.")
_proposal = click.argument("proposal_id", type=click.UUID)
_shown = click.option("--facts", "shown", required=True, help="As `payouts review list` showed them.")


def masked(payee: str) -> str:
    """As the audit log has it: a whole handle, but no whole UPI id."""
    return payee if payee.startswith("@") or "@" not in payee else mask(payee)


@click.group()
def review() -> None:
    """Withdrawals that await a person's approval."""


@review.command(name="list")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
def list_reviews(limit: int) -> None:
    """What awaits approval, oldest first, with the facts that an approval is about."""
    from shared import db
    from shared.money import rupees_text
    from shared.withdrawals import reviewing

    with db.transaction() as session:
        found = reviewing.waiting(session, limit=limit)
        for one in found:
            what = (
                f"{rupees_text(one.amount_paise)} ({one.coins_amount} coins) of {one.user_id} to {one.upi_id}"
            )
            facts = reviewing.facts(session, one)
            say(f"{one.id}  {iso(one.created_at)}  {one.awaits_approval}  {what}  facts {facts}")
    if not found:
        click.echo("Nothing awaits approval.")


@review.command()
@click.argument("withdrawal_id", type=click.UUID)
@_shown
@_reason
@acting(Permission.REVIEW, "approve-review", subject="withdrawal_id")
def approve(withdrawal_id: UUID, shown: str, reason: str, name: str) -> None:
    """Let it be paid: this amount to this UPI id, and nothing else."""
    from shared import withdrawals

    done = withdrawals.approve_review(withdrawal_id, shown=shown, reason=reason, actor=actor_of(name))
    click.echo(f"Approved. {done.id} is paid when its time has come.")


@review.command()
@click.argument("withdrawal_id", type=click.UUID)
@_shown
@_reason
@click.option("--words", help="What the user reads. [default: that it was not approved]")
@acting(Permission.REVIEW, "reject-review", subject="withdrawal_id")
def reject(withdrawal_id: UUID, shown: str, reason: str, words: str | None, name: str) -> None:
    """Do not pay it; the coins go back."""
    from shared import withdrawals
    from shared.withdrawals import reviewing

    told = reviewing.NOT_APPROVED if words is None else words
    done = withdrawals.reject_review(
        withdrawal_id, shown=shown, reason=reason, words=told, actor=actor_of(name)
    )
    click.echo(f"Rejected. {done.coins_amount} coins are back.")


@click.group()
def block() -> None:
    """UPI ids, and whole handles, that are not paid."""


@block.command(name="add")
@click.argument("payee", metavar="UPI-ID|@HANDLE")
@_reason
@acting(Permission.FREEZE, "block", subject="payee", shown=masked)
def add_block(payee: str, reason: str, name: str) -> None:
    """Pay nothing more to it: new requests are refused, what waits is held for a person."""
    from shared import blocks, db

    with db.transaction() as session:
        made = blocks.add(session, payee, reason=reason, actor=actor_of(name))
    say(f"{made.subject} is blocked.")


@block.command(name="remove")
@click.argument("payee", metavar="UPI-ID|@HANDLE")
@_reason
@acting(Permission.FREEZE, "unblock", subject="payee", shown=masked)
def remove_block(payee: str, reason: str, name: str) -> None:
    """Propose that it be paid again; a second person approves. What was held meanwhile awaits approval."""
    from shared import blocks, db

    with db.transaction() as session:
        made = blocks.propose_unblock(session, payee, reason=reason, actor=actor_of(name))
    click.echo(f"Proposed. A second person approves it: payouts block approve {made.id}")


@block.command()
def proposals() -> None:
    """Ends of blocks and freezes that wait for a second person."""
    from shared import blocks, db

    with db.transaction() as session:
        found = blocks.waiting(session)
    for made, one in found:
        say(f"{made.id}  {iso(made.proposed_at)}  {one.subject}  {made.proposed_by}: {made.reason}")
    if not found:
        click.echo("Nothing waits.")


@block.command(name="approve")
@_proposal
@acting(Permission.FREEZE, "unblock_approve", subject="proposal_id")
def approve_removal(proposal_id: UUID, name: str) -> None:
    """Agree as the second person that a block or a freeze ends; it ends at once."""
    from shared import blocks, db

    with db.transaction() as session:
        gone = blocks.approve(session, proposal_id, actor=actor_of(name))
    say(f"{gone.subject} is not {'frozen' if gone.kind == blocks.WALLET else 'blocked'} any more.")


@block.command(name="reject")
@_proposal
@acting(Permission.FREEZE, "unblock_reject", subject="proposal_id")
def reject_removal(proposal_id: UUID, name: str) -> None:
    """Take the proposal to end a block or a freeze off the table."""
    from shared import blocks, db

    with db.transaction() as session:
        blocks.reject(session, proposal_id, actor=actor_of(name))
    click.echo("Rejected. It stays as it is.")


@block.command(name="list")
@click.option("--all", "with_removed", is_flag=True, help="Removed ones too.")
@click.option("--wallets", is_flag=True, help="Frozen wallets instead.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000))
def list_blocks(with_removed: bool, wallets: bool, limit: int) -> None:
    """Who is not paid: since when, by whom, why."""
    from shared import blocks, db

    kind = blocks.WALLET if wallets else blocks.UPI_ID
    with db.transaction() as session:
        found = blocks.listing(session, kind=kind, with_removed=with_removed, limit=limit)
    for one in found:
        gone = (
            f"; removed {iso(one.removed_at)} by {one.removed_by}: {one.removed_because}"
            if one.removed_at
            else ""
        )
        say(f"{one.subject}  {iso(one.added_at)}  {one.added_by}: {one.reason}{gone}")
    if not found:
        click.echo("Nobody is blocked.")


COMMANDS = (review, block)
