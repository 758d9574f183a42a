"""API keys of apps: propose, list, rotate, revoke."""

import click

from cli.actor import actor_of, operator_action
from cli.operators import REASON
from cli.proposals import propose
from shared.clock import iso
from shared.roles import Permission


def app_key_prefix(key: str) -> str:
    """Return a key's prefix, so that the audit log holds no secret if someone passes the whole key."""
    return "_".join(key.split("_")[:2])[:30]


@click.group()
def keys() -> None:
    """Manage the API keys of apps."""


@keys.command()
@click.argument("app")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("withdraw", "read", "credit"),
    show_default=True,
    help="What the key may do; repeat the option for each scope.",
)
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), help="Days until it expires. [default: never]"
)
@REASON
@operator_action(Permission.KEYS, "key_create", subject="app", audit_params=("scopes", "days"))
def create(app: str, scopes: tuple[str, ...], days: float | None, reason: str, name: str) -> None:
    """Propose a key for APP. A read-only key is created and shown at once."""
    from shared.access import app_keys
    from shared.proposals import kinds

    wanted = {"scopes": [scope for scope in app_keys.SCOPES if scope in scopes], "days": days}
    propose(kinds.KEY, app, wanted, reason, name)


@keys.command(name="list")
@click.option("--app", help="Only keys of this app.")
def list_(app: str | None) -> None:
    """List all keys by prefix, with their scopes and last use."""
    from shared.access import app_keys
    from shared.db.transactions import transaction

    with transaction() as session:
        app_key_list = app_keys.list_keys(session, app)
    if not app_key_list:
        click.echo("There are no keys.")
    for key in app_key_list:
        state = f"revoked {iso(key.revoked_at)} by {key.revoked_by}" if key.revoked_at else "active"
        if not key.revoked_at and key.expires_at:
            state = f"expires {iso(key.expires_at)}"
        last_used = iso(key.last_used_at) if key.last_used_at else "never"
        click.echo(f"{key.prefix}  {key.app:20}  {','.join(key.scopes):20}  last used {last_used}  {state}")


@keys.command()
@click.argument("prefix")
@operator_action(Permission.KEYS, "key_revoke", subject="prefix", format_subject=app_key_prefix)
def revoke(prefix: str, name: str) -> None:
    """Revoke the key with this PREFIX. It stops working within seconds."""
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
    help="Hours until the old key stops working.",
)
@REASON
@operator_action(
    Permission.KEYS,
    "key_rotate",
    subject="prefix",
    format_subject=app_key_prefix,
    audit_params=("grace_hours",),
)
def rotate(prefix: str, grace_hours: float, reason: str, name: str) -> None:
    """Propose to replace the key with this PREFIX by a new one for the same app and scopes."""
    from shared.proposals import kinds

    propose(kinds.ROTATE, prefix, {"grace_hours": grace_hours}, reason, name)


COMMANDS = (keys,)
