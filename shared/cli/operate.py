"""What operators do: look, pause and resume, look after exceptions, decide what the system cannot."""

import json
from datetime import UTC, datetime
from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.cli.saying import say
from shared.roles import Permission
from shared.severities import Severity
from shared.states import Decision, PaidVia

WAYS = [str(way) for way in PaidVia if way is not PaidVia.UNKNOWN]


@click.command()
@click.argument("withdrawal_id", type=click.UUID)
def explain(withdrawal_id: UUID) -> None:
    """Tell the whole story of a withdrawal, in order of time."""
    from shared import db
    from shared.explaining import explain as story_of

    with db.transaction() as session:
        story = story_of(session, withdrawal_id)
    for name, value in story.facts.items():
        if value is not None:
            say(f"{name:16} {_text(value)}")
    click.echo()
    for line in story.lines:
        say(f"{_text(line.at)}  {line.kind:9}  {line.words}")
        for name, value in line.details.items():
            if value not in (None, {}, []):
                say(f"{'':38}{name}: {_text(value)}")


@click.command()
@click.option("--handle", help="Only payouts to this UPI handle, such as okaxis.")
@click.option("--reason", required=True, help="Why; operators and the books are told.")
@acting(Permission.SWITCHES, "pause", subject="handle")
def pause(handle: str | None, reason: str, name: str) -> None:
    """Send nothing more until somebody resumes. What was sent is still followed."""
    from shared import withdrawals

    switch = withdrawals.pause(_switch(handle), reason=reason, actor=actor_of(name))
    say(f"{switch.name} is paused: {reason}")


@click.command()
@click.option("--handle", help="Only this UPI handle.")
@click.option("--network", is_flag=True, help="What the system paused because of the payment network.")
@click.option("--reason", default="resumed by hand", show_default=True)
@acting(Permission.SWITCHES, "resume", subject="handle", tells=("network",))
def resume(handle: str | None, network: bool, reason: str, name: str) -> None:
    """Let payouts go on."""
    from shared import switches, withdrawals

    which = switches.NETWORK if network else _switch(handle)
    switch = withdrawals.resume(which, reason=reason, actor=actor_of(name))
    click.echo(f"{switch.name} goes on.")


@click.command()
@click.option("--hours", default=24, show_default=True, type=click.IntRange(1, 24 * 31), help="To look back.")
def status(hours: int) -> None:
    """How it goes: pauses, money, what waits and why, webhooks, UPI handles."""
    from shared import db
    from shared.overview import overview

    with db.transaction() as session:
        for title, rows in overview(session, hours=hours):
            click.echo(title)
            for row in rows:
                click.echo("  " + row)


@click.group(name="exceptions")
def exceptions() -> None:
    """What does not add up: list it, take it, close it."""


@exceptions.command(name="list")
@click.option("--all", "with_closed", is_flag=True, help="Closed ones too.")
@click.option("--severity", type=click.Choice([str(one) for one in Severity]), help="Only these.")
@click.option("--kind", help="Only these.")
@click.option("--limit", default=200, show_default=True)
def list_exceptions(with_closed: bool, severity: str | None, kind: str | None, limit: int) -> None:
    """The records, worst first, then oldest first, with their age and both sides."""
    from shared import db, exception_records, severities

    only = Severity(severity) if severity else None
    with db.transaction() as session:
        records = exception_records.listing(
            session, with_closed=with_closed, severity=only, kind=kind, limit=limit
        )
        for record in records:
            state = (
                f"closed: {record.resolution}" if record.resolved_at else f"{record.owner or 'nobody'} has it"
            )
            age = datetime.now(UTC) - (record.opened_at or datetime.now(UTC))
            what = f"{severities.of_kind(record.kind)}  {record.kind}  {record.subject}"
            say(f"#{record.id}  {what}  {_age(age.total_seconds())}  {state}")
            say(f"    ours   {json.dumps(record.ours)}\n    theirs {json.dumps(record.theirs)}")
    if not records:
        click.echo("Nothing is open.")


@exceptions.command(name="take")
@click.argument("record_id", type=int)
@acting(Permission.EXCEPTIONS, "exception_take", subject="record_id")
def take_exception(record_id: int, name: str) -> None:
    """Say that you look after it."""
    from shared import db, exception_records

    with db.transaction() as session:
        exception_records.take(session, record_id, owner=actor_of(name))
    click.echo(f"#{record_id} is {name}'s.")


@exceptions.command(name="close")
@click.argument("record_id", type=int)
@click.option("--resolution", required=True, help="How it was explained or mended.")
@acting(Permission.EXCEPTIONS, "exception_close", subject="record_id", tells=("resolution",))
def close_exception(record_id: int, resolution: str, name: str) -> None:
    """Write how it was resolved. Moves no money: that is `payouts resolve`."""
    from shared import db, exception_records

    with db.transaction() as session:
        exception_records.close(session, record_id, resolution=resolution, actor=actor_of(name))
    click.echo(f"#{record_id} is closed.")


@click.group(name="resolve")
def resolve() -> None:
    """Decide what the system cannot: one proposes with evidence, another approves."""


@resolve.command(name="propose")
@click.argument("withdrawal_id", type=click.UUID)
@click.argument("decision", type=click.Choice([str(decision) for decision in Decision]))
@click.option("--evidence", required=True, help="What was seen, and where.")
@click.option("--utr", help="The bank's reference, for `paid`.")
@click.option("--paid-via", type=click.Choice(WAYS), help="By which way it was paid, for `paid`.")
@click.option(
    "--paid-at", metavar="TIME", help="When the statement says it was paid, as 2026-11-29 14:05 in India."
)
@acting(
    Permission.RESOLVE,
    "propose",
    subject="withdrawal_id",
    tells=("decision", "utr", "paid_via", "paid_at"),
)
def propose(
    withdrawal_id: UUID,
    decision: str,
    evidence: str,
    utr: str | None,
    paid_via: str | None,
    paid_at: str | None,
    name: str,
) -> None:
    """Propose how it ends: go_on, paid or refund; or that its coins are taken back, or given back again.

    Nothing moves yet.
    """
    from shared import withdrawals
    from shared.utr import moment
    from shared.withdrawals.paid_outside import Payment

    via = PaidVia(paid_via) if paid_via else None
    paid = Payment(utr, via, moment(paid_at) if paid_at else None)
    made = withdrawals.propose(
        withdrawal_id, Decision(decision), evidence=evidence, paid=paid, actor=actor_of(name)
    )
    click.echo(f"Proposed. A second person approves it: payouts resolve approve {made.id}")


@resolve.command(name="approve")
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.RESOLVE, "approve", subject="proposal_id")
def approve(proposal_id: UUID, name: str) -> None:
    """Agree as the second person; it is done at once."""
    from shared import withdrawals

    withdrawal = withdrawals.approve(proposal_id, actor=actor_of(name))
    click.echo(f"Done. Withdrawal {withdrawal.id} is {withdrawal.status}.")


@resolve.command(name="reject")
@click.argument("proposal_id", type=click.UUID)
@acting(Permission.RESOLVE, "reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Take a proposal off the table."""
    from shared import withdrawals

    withdrawals.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. Nothing has moved.")


def _switch(handle: str | None) -> str:
    from shared import switches

    return switches.of_handle(f"@{handle.removeprefix('@')}") if handle else switches.PAYOUTS


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _age(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes} min"


COMMANDS = (explain, pause, resume, status, exceptions, resolve)
