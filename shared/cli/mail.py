"""What users and operators are mailed."""

from datetime import UTC, datetime
from uuid import UUID

import click

from shared.cli.acting import acting
from shared.ids import new_id
from shared.roles import Permission

STATES = ("waiting", "sent", "failed", "skipped")


@click.group()
def mail() -> None:
    """What users and operators are mailed: list it, send it again, try the server."""


@mail.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def list_mail(state: str | None, limit: int) -> None:
    """The mail, newest first."""
    from shared import db
    from shared.notifications.mail import keeping

    with db.transaction() as session:
        found = keeping.emails(session, state=state, limit=limit)
    if not found:
        click.echo("There is no mail.")
    for one in found:
        click.echo(f"{one.id}  {keeping.words(one)}")


@mail.command()
@click.argument("email_ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.option("--failed", is_flag=True, help="All that failed.")
@acting(Permission.NOTIFICATIONS, "mail_retry", tells=("email_ids", "failed"))
def retry(email_ids: tuple[UUID, ...], failed: bool, name: str) -> None:
    """Send again what waits or failed: these, or all that failed."""
    from shared import db
    from shared.notifications.mail import keeping

    if bool(email_ids) == failed:
        raise click.UsageError("give ids, or --failed")
    sent = 0
    while True:
        with db.transaction() as session:
            some = keeping.retry_failed(session) if failed else keeping.retry(session, email_ids)
        sent += some
        if not failed or not some:
            break
    click.echo(f"{sent} are sent again.")


@mail.command()
@click.argument("address")
def test(address: str) -> None:
    """Send ADDRESS a mail now, and say what the server says."""
    from shared.notifications.mail import letters, recipients
    from shared.notifications.mail.smtp import Server
    from shared.settings import settings

    if settings().smtp_host is None:
        raise click.ClickException("mail is off: SMTP_HOST is not set")
    try:
        to = recipients.address_of(address)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    server = Server()
    told = server.send(letters.probe(to, new_id(), datetime.now(UTC)), to)
    server.close()
    if told.error is not None:
        raise click.ClickException(f"{settings().smtp_host} did not take it: {told.error}")
    click.echo(f"{settings().smtp_host} took it.")


COMMANDS = (mail,)
