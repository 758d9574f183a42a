"""The keys that let apps in: proposed, listed, replaced, revoked."""

import click

from shared.cli.acting import acting, actor_of
from shared.cli.operators import REASON
from shared.cli.proposals import propose
from shared.clock import iso
from shared.roles import Permission


def app_key_prefix(given: str) -> str:
    """What people see of a key: who names it by the whole of it leaves no secret in the audit log."""
    return "_".join(given.split("_")[:2])[:30]


@click.group()
def keys() -> None:
    """The keys that let apps in."""


@keys.command()
@click.argument("app")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("withdraw", "read", "credit"),
    show_default=True,
    help="What it may do; give it once for each.",
)
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), help="How long it works. [default: for ever]"
)
@REASON
@acting(Permission.KEYS, "key_create", subject="app", tells=("scopes", "days"))
def create(app: str, scopes: tuple[str, ...], days: float | None, reason: str, name: str) -> None:
    """Propose a key for APP. A key that only reads is made and shown at once."""
    from shared import app_keys
    from shared.proposals import kinds

    wanted = {"scopes": [scope for scope in app_keys.SCOPES if scope in scopes], "days": days}
    propose(kinds.KEY, app, wanted, reason, name)


@keys.command(name="list")
@click.option("--app", help="Only this app's.")
def list_(app: str | None) -> None:
    """Show every key by its beginning, with what it may do and when it was last used."""
    from shared import app_keys, db

    with db.transaction() as session:
        found = app_keys.listing(session, app)
    if not found:
        click.echo("There are no keys.")
    for key in found:
        state = f"revoked {iso(key.revoked_at)} by {key.revoked_by}" if key.revoked_at else "works"
        if not key.revoked_at and key.expires_at:
            state = f"until {iso(key.expires_at)}"
        used = iso(key.last_used_at) if key.last_used_at else "never"
        click.echo(f"{key.prefix}  {key.app:20}  {','.join(key.scopes):20}  last used {used}  {state}")


@keys.command()
@click.argument("prefix")
@acting(Permission.KEYS, "key_revoke", subject="prefix", shown=app_key_prefix)
def revoke(prefix: str, name: str) -> None:
    """Withdraw the key that begins with PREFIX: within seconds it lets nobody in."""
    from shared import proposals

    key = proposals.revoke_key(prefix, actor=actor_of(name))
    click.echo(f"{key.prefix} of {key.app} is revoked.")


@keys.command()
@click.argument("prefix")
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, 8760),
    default=24.0,
    show_default=True,
    help="How long both work.",
)
@REASON
@acting(Permission.KEYS, "key_rotate", subject="prefix", shown=app_key_prefix, tells=("grace_hours",))
def rotate(prefix: str, grace_hours: float, reason: str, name: str) -> None:
    """Propose to replace the key that begins with PREFIX by a new one for the same app and scopes."""
    from shared.proposals import kinds

    propose(kinds.ROTATE, prefix, {"grace_hours": grace_hours}, reason, name)


COMMANDS = (keys,)
