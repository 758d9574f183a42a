"""Where apps listen, and what is on its way to them."""

from uuid import UUID

import click

from shared.cli.acting import acting, actor_of
from shared.clock import iso
from shared.roles import Permission

STATES = ("waiting", "delivered", "failed")


@click.group()
def endpoints() -> None:
    """Where apps listen for webhooks."""


@endpoints.command()
@click.argument("url")
@click.option("--allow-private", is_flag=True, help="Private addresses and http:// too; for development.")
@acting(Permission.ENDPOINTS, "endpoint_add", subject="url", tells=("allow_private",))
def add(url: str, allow_private: bool, name: str) -> None:
    """Tell URL of each change of a withdrawal from now on; show its secret."""
    from shared import db
    from shared.notifications import endpoints as rooms

    with db.transaction() as session:
        made, secret = rooms.add(session, url, actor=actor_of(name), allow_private=allow_private)
    _show(secret, f"{made.id} is told of each change from now on. Its secret")


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
@acting(Permission.ENDPOINTS, "endpoint_rotate", subject="endpoint", tells=("grace_hours",))
def rotate(endpoint: str, grace_hours: float, name: str) -> None:
    """Give ENDPOINT (its id or URL) another secret and show it."""
    from shared import db
    from shared.notifications import endpoints as rooms

    with db.transaction() as session:
        one, secret = rooms.rotate(session, endpoint, actor=actor_of(name), grace_hours=grace_hours)
    _show(secret, f"{one.url}: the old secret signs too for {grace_hours:g} h. The new one")


@endpoints.command()
@click.argument("endpoint")
@acting(Permission.ENDPOINTS, "endpoint_remove", subject="endpoint")
def remove(endpoint: str, name: str) -> None:
    """Tell ENDPOINT (its id or URL) nothing more."""
    from shared import db
    from shared.notifications import endpoints as rooms

    with db.transaction() as session:
        one = rooms.remove(session, endpoint, actor=actor_of(name))
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


def _show(secret: str, words: str) -> None:
    """The secret alone on stdout, for programs; the words for people beside it."""
    click.echo(f"{words}:", err=True)
    click.echo(secret)


COMMANDS = (endpoints, webhooks)
