"""The keys that let apps in: made, listed, replaced, withdrawn."""

import click

from shared.cli.acting import acting, actor_of
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
@acting(Permission.KEYS, "key_create", subject="app", tells=("scopes", "days"))
def create(app: str, scopes: tuple[str, ...], days: float | None, name: str) -> None:
    """Make a key for APP and show it: this once."""
    from shared import app_keys, db

    with db.transaction() as session:
        key, secret = app_keys.create(session, app=app, scopes=scopes, actor=actor_of(name), days=days)
    _show(
        secret, f"{key.app} may {', '.join(key.scopes)}" + (f" until {iso(key.expires_at)}" if days else "")
    )


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
    from shared import app_keys, db

    with db.transaction() as session:
        key = app_keys.revoke(session, prefix, actor=actor_of(name))
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
@acting(Permission.KEYS, "key_rotate", subject="prefix", shown=app_key_prefix, tells=("grace_hours",))
def rotate(prefix: str, grace_hours: float, name: str) -> None:
    """Replace the key that begins with PREFIX by a new one for the same app and scopes."""
    from shared import app_keys, db

    with db.transaction() as session:
        key, secret = app_keys.rotate(session, prefix, actor=actor_of(name), grace_hours=grace_hours)
    _show(secret, f"{key.app} may {', '.join(key.scopes)}; the old key works for {grace_hours:g} h more")


def _show(secret: str, words: str) -> None:
    """The key alone on stdout, for programs; the words for people beside it."""
    click.echo(f"{words}. This key is not shown again:", err=True)
    click.echo(secret)


COMMANDS = (keys,)
