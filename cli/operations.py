"""Commands for operators: explain, pause and resume, status, exception records, resolutions."""

import json
from datetime import UTC, datetime
from uuid import UUID

import click

from cli.actor import actor_of, operator_action
from cli.output import say
from shared.people.severities import Severity
from shared.roles import Permission
from shared.states import Decision, PaidVia

PAID_VIA_CHOICES = [str(way) for way in PaidVia if way is not PaidVia.UNKNOWN]


@click.command()
@click.argument("withdrawal_id", type=click.UUID)
def explain(withdrawal_id: UUID) -> None:
    """Print the timeline of a withdrawal."""
    from shared.db.transactions import transaction
    from shared.monitoring.explain import explain as build_story

    with transaction() as session:
        story = build_story(session, withdrawal_id)
    for name, value in story.facts.items():
        if value is not None:
            say(f"{name:16} {_text(value)}")
    click.echo()
    for line in story.entries:
        say(f"{_text(line.at)}  {line.kind:9}  {line.summary}")
        for name, value in line.details.items():
            if value not in (None, {}, []):
                say(f"{'':38}{name}: {_text(value)}")


@click.command()
@click.option("--handle", help="Only payouts to this UPI handle, such as okaxis.")
@click.option("--reason", required=True, help="Why. Operators see it, and it is recorded.")
@operator_action(Permission.SWITCHES, "pause", subject="handle")
def pause(handle: str | None, reason: str, name: str) -> None:
    """Pause sending until an operator resumes it. Payouts already sent are still followed."""
    from shared import withdrawals

    breaker = withdrawals.pause(_breaker_name(handle), reason=reason, actor=actor_of(name))
    say(f"{breaker.name} is paused: {reason}")


@click.command()
@click.option("--handle", help="Only payouts to this UPI handle.")
@click.option(
    "--network", is_flag=True, help="Payouts that the system paused because of the payment network."
)
@click.option("--reason", default="resumed by hand", show_default=True)
@operator_action(Permission.SWITCHES, "resume", subject="handle", audit_params=("network",))
def resume(handle: str | None, network: bool, reason: str, name: str) -> None:
    """Resume sending."""
    from shared import withdrawals
    from shared.withdrawals import circuit_breakers

    breaker_name = circuit_breakers.NETWORK if network else _breaker_name(handle)
    breaker = withdrawals.resume(breaker_name, reason=reason, actor=actor_of(name))
    click.echo(f"{breaker.name} is resumed.")


@click.command()
@click.option(
    "--hours", default=24, show_default=True, type=click.IntRange(1, 24 * 31), help="Hours to look back."
)
def status(hours: int) -> None:
    """Show pauses, the balance, waiting withdrawals and why, webhooks and UPI handles."""
    from shared.db.transactions import transaction
    from shared.monitoring.overview import overview

    with transaction() as session:
        for title, rows in overview(session, hours=hours):
            click.echo(title)
            for row in rows:
                click.echo("  " + row)


@click.group(name="exceptions")
def exceptions() -> None:
    """Exception records: list, take and close them."""


@exceptions.command(name="list")
@click.option("--all", "with_closed", is_flag=True, help="Include closed records.")
@click.option(
    "--severity", type=click.Choice([str(severity) for severity in Severity]), help="Only this severity."
)
@click.option("--kind", help="Only this kind.")
@click.option("--limit", default=200, show_default=True)
def list_exceptions(with_closed: bool, severity: str | None, kind: str | None, limit: int) -> None:
    """List the records by severity, then by age, with both sides of the evidence."""
    from shared.db.transactions import transaction
    from shared.people import exception_records, severities

    only_severity = Severity(severity) if severity else None
    with transaction() as session:
        records = exception_records.listing(
            session, with_closed=with_closed, severity=only_severity, kind=kind, limit=limit
        )
        for record in records:
            owner = f"assigned to {record.owner}" if record.owner else "unassigned"
            state = f"closed: {record.resolution}" if record.resolved_at else owner
            age = datetime.now(UTC) - (record.opened_at or datetime.now(UTC))
            title = f"{severities.severity_of(record.kind)}  {record.kind}  {record.subject}"
            say(f"#{record.id}  {title}  {_age(age.total_seconds())}  {state}")
            say(f"    ours   {json.dumps(record.ours)}\n    theirs {json.dumps(record.theirs)}")
    if not records:
        click.echo("No exception records.")


@exceptions.command(name="take")
@click.argument("record_id", type=int)
@operator_action(Permission.EXCEPTIONS, "exception_take", subject="record_id")
def take_exception(record_id: int, name: str) -> None:
    """Assign a record to yourself."""
    from shared.db.transactions import transaction
    from shared.people import exception_records

    with transaction() as session:
        exception_records.assign(session, record_id, owner=actor_of(name))
    click.echo(f"#{record_id} is assigned to {name}.")


@exceptions.command(name="close")
@click.argument("record_id", type=int)
@click.option("--resolution", required=True, help="How it was resolved.")
@operator_action(Permission.EXCEPTIONS, "exception_close", subject="record_id", audit_params=("resolution",))
def close_exception(record_id: int, resolution: str, name: str) -> None:
    """Close a record with its resolution. This moves no money: use `payouts resolve` for that."""
    from shared.db.transactions import transaction
    from shared.people import exception_records

    with transaction() as session:
        exception_records.close(session, record_id, resolution=resolution, actor=actor_of(name))
    click.echo(f"#{record_id} is closed.")


@click.group(name="resolve")
def resolve() -> None:
    """Decide what the system cannot: one operator proposes with evidence, another approves."""


@resolve.command(name="propose")
@click.argument("withdrawal_id", type=click.UUID)
@click.argument("decision", type=click.Choice([str(decision) for decision in Decision]))
@click.option("--evidence", required=True, help="What you saw, and where.")
@click.option("--utr", help="For `paid`: the bank's reference.")
@click.option("--paid-via", type=click.Choice(PAID_VIA_CHOICES), help="For `paid`: the way of payment.")
@click.option(
    "--paid-at", metavar="TIME", help="For `paid`: the time on the statement, as 2026-11-29 14:05 in IST."
)
@operator_action(
    Permission.RESOLVE,
    "propose",
    subject="withdrawal_id",
    audit_params=("decision", "utr", "paid_via", "paid_at"),
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
    """Propose how a withdrawal ends: go_on, paid or refund; or take_back or give_back for its coins.

    Nothing moves until a second person approves.
    """
    from shared import withdrawals
    from shared.text.utr import parse_paid_at
    from shared.withdrawals.paid_outside import Payment

    via = PaidVia(paid_via) if paid_via else None
    paid = Payment(utr, via, parse_paid_at(paid_at) if paid_at else None)
    resolution = withdrawals.propose(
        withdrawal_id, Decision(decision), evidence=evidence, paid=paid, actor=actor_of(name)
    )
    click.echo(f"Proposed. A second person approves it: payouts resolve approve {resolution.id}")


@resolve.command(name="approve")
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.RESOLVE, "approve", subject="proposal_id")
def approve(proposal_id: UUID, name: str) -> None:
    """Approve a proposal as the second person. It is carried out at once."""
    from shared import withdrawals

    withdrawal = withdrawals.approve(proposal_id, actor=actor_of(name))
    click.echo(f"Done. Withdrawal {withdrawal.id} is {withdrawal.status}.")


@resolve.command(name="reject")
@click.argument("proposal_id", type=click.UUID)
@operator_action(Permission.RESOLVE, "reject", subject="proposal_id")
def reject(proposal_id: UUID, name: str) -> None:
    """Reject a proposal."""
    from shared import withdrawals

    withdrawals.reject(proposal_id, actor=actor_of(name))
    click.echo("Rejected. Nothing has moved.")


def _breaker_name(handle: str | None) -> str:
    from shared.withdrawals import circuit_breakers

    return (
        circuit_breakers.handle_breaker(f"@{handle.removeprefix('@')}")
        if handle
        else circuit_breakers.PAYOUTS
    )


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


@click.command(name="delete-old-webhooks")
@operator_action(Permission.RECONCILE, "webhooks_delete_old")
def delete_old_webhooks(name: str) -> None:
    """Delete all of RazorpayX's webhooks that are older than WEBHOOK_DAYS now.

    The watch deletes 5,000 of them each minute by itself. Use this after you shortened WEBHOOK_DAYS.
    """
    from shared.monitoring import old_webhooks

    click.echo(f"{old_webhooks.delete_all_old():,} webhooks deleted.")


def _age(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes} min"


COMMANDS = (explain, pause, resume, status, exceptions, resolve, delete_old_webhooks)
