"""Commands for webhooks to apps: their endpoints and deliveries."""

from uuid import UUID

import click

from cli.actor import actor_of, operator_action
from cli.operators import REASON
from cli.proposals import propose
from shared.clock import iso
from shared.roles import Permission

STATES = ("waiting", "delivered", "failed")


@click.group()
def endpoints() -> None:
    """The URLs that receive webhooks."""


@endpoints.command()
@click.argument("url")
@click.option("--allow-private", is_flag=True, help="Allow private addresses and http://, for development.")
@REASON
@operator_action(Permission.ENDPOINTS, "endpoint_add", subject="url", audit_params=("allow_private",))
def add(url: str, allow_private: bool, reason: str, name: str) -> None:
    """Propose to send every future change of a withdrawal to URL."""
    from shared.proposals import kinds

    propose(kinds.ENDPOINT, url, {"allow_private": allow_private}, reason, name)


@endpoints.command(name="list")
@click.option("--all", "with_removed", is_flag=True, help="Include removed ones.")
def list_endpoints(with_removed: bool) -> None:
    """List the endpoints and whether they work."""
    from shared.db.transactions import transaction
    from shared.notifications.webhooks import endpoints as app_endpoints

    with transaction() as session:
        rows = app_endpoints.list_endpoints(session, with_removed=with_removed)
    if not rows:
        click.echo("There are no endpoints.")
    for endpoint in rows:
        state = f"failing since {iso(endpoint.failing_since)}" if endpoint.failing_since else "works"
        if endpoint.removed_at:
            state = f"removed {iso(endpoint.removed_at)} by {endpoint.removed_by}"
        added = f"since {iso(endpoint.created_at)} by {endpoint.created_by}"
        click.echo(f"{endpoint.id}  {endpoint.url}  {added}  {state}")


@endpoints.command()
@click.argument("endpoint")
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, 8760),
    default=24.0,
    show_default=True,
    help="How long the old secret also signs.",
)
@REASON
@operator_action(Permission.ENDPOINTS, "endpoint_rotate", subject="endpoint", audit_params=("grace_hours",))
def rotate(endpoint: str, grace_hours: float, reason: str, name: str) -> None:
    """Propose a new secret for ENDPOINT (its id or URL)."""
    from shared.proposals import kinds

    propose(kinds.SECRET, endpoint, {"grace_hours": grace_hours}, reason, name)


@endpoints.command()
@click.argument("endpoint")
@operator_action(Permission.ENDPOINTS, "endpoint_remove", subject="endpoint")
def remove(endpoint: str, name: str) -> None:
    """Stop sending webhooks to ENDPOINT (its id or URL)."""
    from shared import proposals

    removed = proposals.remove_endpoint(endpoint, actor=actor_of(name))
    click.echo(f"{removed.url} is removed.")


@click.group()
def webhooks() -> None:
    """Webhooks to apps: list deliveries and replay them."""


@webhooks.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Show only deliveries in this state.")
@click.option("--endpoint", help="Show only this endpoint's deliveries: its id or URL.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def list_webhooks(state: str | None, endpoint: str | None, limit: int) -> None:
    """List deliveries, newest first."""
    from shared.db.transactions import transaction
    from shared.notifications.webhooks import deliveries
    from shared.notifications.webhooks import endpoints as app_endpoints

    with transaction() as session:
        only = app_endpoints.find(session, endpoint) if endpoint else None
        rows = deliveries.list_deliveries(session, state=state, endpoint=only, limit=limit)
    if not rows:
        click.echo("There are no deliveries.")
    for delivery, url in rows:
        click.echo(f"{delivery.id}  {deliveries.describe(delivery)}  {url}")


@webhooks.command()
@click.argument("delivery_ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.option("--endpoint", help="With --failed: replay all failed deliveries of this endpoint.")
@click.option("--failed", is_flag=True, help="With --endpoint.")
@operator_action(
    Permission.NOTIFICATIONS, "webhooks_replay", subject="endpoint", audit_params=("delivery_ids",)
)
def replay(delivery_ids: tuple[UUID, ...], endpoint: str | None, failed: bool, name: str) -> None:
    """Send deliveries again under the same ids: these, or all failed ones of an endpoint."""
    from shared.db.transactions import transaction
    from shared.notifications.webhooks import deliveries
    from shared.notifications.webhooks import endpoints as app_endpoints

    if bool(delivery_ids) == bool(endpoint) or bool(endpoint) != failed:
        raise click.UsageError("give ids, or --endpoint with --failed")
    total = 0
    while True:
        with transaction() as session:
            if endpoint is None:
                total = deliveries.replay(session, delivery_ids)
                break
            queued = deliveries.replay_failed(session, app_endpoints.find(session, endpoint))
        total += queued
        if not queued:
            break
    click.echo(f"Queued for sending: {total}.")


COMMANDS = (endpoints, webhooks)
