"""Where apps listen, and what is on its way to them."""

from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.cli.operators import REASON
from shared.cli.proposals import propose
from shared.clock import iso
from shared.roles import Permission

STATES = ("waiting", "delivered", "failed")


@click.group()
def endpoints() -> None:
    """Where apps listen for webhooks."""


@endpoints.command()
@click.argument("url")
@click.option("--allow-private", is_flag=True, help="Private addresses and http:// too; for development.")
@REASON
@acting(Permission.ENDPOINTS, "endpoint_add", subject="url", tells=("allow_private",))
def add(url: str, allow_private: bool, reason: str, name: str) -> None:
    """Propose to tell URL of each change of a withdrawal from then on."""
    from shared.proposals import kinds

    propose(kinds.ENDPOINT, url, {"allow_private": allow_private}, reason, name)


@endpoints.command(name="list")
@click.option("--all", "with_removed", is_flag=True, help="Removed ones too.")
def list_endpoints(with_removed: bool) -> None:
    """Show every endpoint and how it does."""
    from shared import db
    from shared.notifications import endpoints as rooms

    with db.transaction() as session:
        found = rooms.listing(session, with_removed=with_removed)
    if not found:
        click.echo("There are no endpoints.")
    for one in found:
        state = f"failing since {iso(one.failing_since)}" if one.failing_since else "works"
        if one.removed_at:
            state = f"removed {iso(one.removed_at)} by {one.removed_by}"
        click.echo(f"{one.id}  {one.url}  since {iso(one.created_at)} by {one.created_by}  {state}")


@endpoints.command()
@click.argument("endpoint")
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, 8760),
    default=24.0,
    show_default=True,
    help="How long the old secret signs too.",
)
@REASON
@acting(Permission.ENDPOINTS, "endpoint_rotate", subject="endpoint", tells=("grace_hours",))
def rotate(endpoint: str, grace_hours: float, reason: str, name: str) -> None:
    """Propose another secret for ENDPOINT (its id or URL)."""
    from shared.proposals import kinds

    propose(kinds.SECRET, endpoint, {"grace_hours": grace_hours}, reason, name)


@endpoints.command()
@click.argument("endpoint")
@acting(Permission.ENDPOINTS, "endpoint_remove", subject="endpoint")
def remove(endpoint: str, name: str) -> None:
    """Tell ENDPOINT (its id or URL) nothing more."""
    from shared import proposals

    one = proposals.remove_endpoint(endpoint, actor=actor_of(name))
    click.echo(f"{one.url} is removed.")


@click.group()
def webhooks() -> None:
    """What apps are told: list it, tell it again."""


@webhooks.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--endpoint", help="Only this endpoint's: its id or URL.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def list_webhooks(state: str | None, endpoint: str | None, limit: int) -> None:
    """The deliveries, newest first."""
    from shared import db
    from shared.notifications import endpoints as rooms
    from shared.notifications import keeping

    with db.transaction() as session:
        of = rooms.find(session, endpoint) if endpoint else None
        found = keeping.deliveries(session, state=state, endpoint=of, limit=limit)
    if not found:
        click.echo("There are no deliveries.")
    for delivery, url in found:
        click.echo(f"{delivery.id}  {keeping.words(delivery)}  {url}")


@webhooks.command()
@click.argument("delivery_ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.option("--endpoint", help="With --failed: all that this endpoint was not told.")
@click.option("--failed", is_flag=True, help="With --endpoint.")
@acting(Permission.NOTIFICATIONS, "webhooks_replay", subject="endpoint", tells=("delivery_ids",))
def replay(delivery_ids: tuple[UUID, ...], endpoint: str | None, failed: bool, name: str) -> None:
    """Tell again, under the same ids: these, or all that failed at one endpoint."""
    from shared import db
    from shared.notifications import endpoints as rooms
    from shared.notifications import keeping

    if bool(delivery_ids) == bool(endpoint) or bool(endpoint) != failed:
        raise click.UsageError("give ids, or --endpoint with --failed")
    told = 0
    while True:
        with db.transaction() as session:
            if endpoint is None:
                told = keeping.replay(session, delivery_ids)
                break
            some = keeping.replay_failed(session, rooms.find(session, endpoint))
        told += some
        if not some:
            break
    click.echo(f"{told} are told again.")


COMMANDS = (endpoints, webhooks)
