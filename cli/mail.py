"""Commands for mail to users and operators."""

from datetime import UTC, datetime
from uuid import UUID

import click

from cli.actor import operator_action
from shared.ids import new_id
from shared.roles import Permission

STATES = ("waiting", "sent", "failed", "skipped")


@click.group()
def mail() -> None:
    """Mail to users and operators: list it, retry it, test the server."""


@mail.command(name="list")
@click.option("--state", type=click.Choice(STATES), help="Show only mail in this state.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def list_mail(state: str | None, limit: int) -> None:
    """List mail, newest first."""
    from shared.db.transactions import transaction
    from shared.notifications.mail import mails

    with transaction() as session:
        emails = mails.list_mails(session, state=state, limit=limit)
    if not emails:
        click.echo("There is no mail.")
    for email in emails:
        click.echo(f"{email.id}  {mails.describe(email)}")


@mail.command()
@click.argument("email_ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.option("--failed", is_flag=True, help="Retry all failed mail.")
@operator_action(Permission.NOTIFICATIONS, "mail_retry", audit_params=("email_ids", "failed"))
def retry(email_ids: tuple[UUID, ...], failed: bool, name: str) -> None:
    """Retry waiting or failed mail now: these, or all failed mail."""
    from shared.db.transactions import transaction
    from shared.notifications.mail import mails

    if bool(email_ids) == failed:
        raise click.UsageError("give ids, or --failed")
    total = 0
    while True:
        with transaction() as session:
            queued = mails.retry_failed(session) if failed else mails.retry(session, email_ids)
        total += queued
        if not failed or not queued:
            break
    click.echo(f"Queued for sending: {total}.")


@mail.command()
@click.argument("address")
def test(address: str) -> None:
    """Send a test mail to ADDRESS and show the server's reply."""
    from shared.notifications.mail import recipients, texts
    from shared.notifications.mail.smtp import SmtpClient
    from shared.settings import settings

    if settings().smtp_host is None:
        raise click.ClickException("mail is off: SMTP_HOST is not set")
    try:
        recipient = recipients.parse_address(address)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    client = SmtpClient()
    result = client.send(texts.compose_test(recipient, new_id(), datetime.now(UTC)), recipient)
    client.close()
    if result.error is not None:
        raise click.ClickException(f"{settings().smtp_host} did not accept the mail: {result.error}")
    click.echo(f"{settings().smtp_host} accepted the mail.")


COMMANDS = (mail,)
