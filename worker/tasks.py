"""The tasks. Each may run twice, and reads from the rows what there is to do."""

from shared import withdrawals
from shared.monitoring import housekeeping
from shared.monitoring.totals import daily_totals
from shared.notifications.mail import dispatcher as mail_dispatcher
from shared.notifications.mail import fan_out as mail_fan_out
from shared.notifications.webhooks import dispatcher as webhook_dispatcher
from shared.notifications.webhooks import fan_out as webhook_fan_out
from shared.proof import sealing
from shared.providers.clients import client
from shared.queues import messages
from shared.reconciliation.days import nightly
from shared.withdrawals import inbox
from worker.app import celery


@celery.task(name=messages.SUBMIT)
def submit_withdrawal(*ids: str) -> None:
    """Take the next step of due withdrawals: send the payout, send it again, or look it up."""
    messages.clear_nudge_marks(ids)
    withdrawals.bring_on(ids, client())
    withdrawals.refill(ids, messages.SUBMIT)


@celery.task(name=messages.POLL)
def poll_payout(*ids: str) -> None:
    """Query the status of accepted payouts: the same work, on its own queue so that it delays no payment."""
    messages.clear_nudge_marks(ids)
    withdrawals.bring_on(ids, client())
    withdrawals.refill(ids, messages.POLL)


@celery.task(name=messages.APPLY)
def apply_webhook(*_: str) -> None:
    """Apply the stored webhooks. (Messages of an older version name one.)"""
    messages.clear_nudge_marks([messages.APPLY])
    inbox.apply_due()


@celery.task(name=messages.SWEEP)
def sweep() -> None:
    """Send messages for everything that is due."""
    messages.clear_nudge_marks([messages.SWEEP])
    withdrawals.sweep()


@celery.task(name=messages.SWEEP_SENDS)
def sweep_sends() -> None:
    """Send messages for withdrawals that have just fallen due."""
    messages.clear_nudge_marks([messages.SWEEP_SENDS])
    withdrawals.sweep_sends()


@celery.task(name=messages.MARK_PACED)
def mark_paced() -> None:
    """Give what waits for the rate limit its reason and expected time."""
    withdrawals.mark_as_paced()


@celery.task(name=messages.WATCH)
def watch() -> None:
    """Run the periodic duties: warn of what is late or silent, refresh the balance, delete old rows."""
    housekeeping.run(client())


@celery.task(name=messages.SEAL)
def seal() -> None:
    """Seal new journal lines and events: from then on any change to them can be proved."""
    sealing.seal()


@celery.task(name=messages.RECONCILE)
def reconcile() -> None:
    """Reconcile yesterday with the provider, once a night."""
    nightly(client())


@celery.task(name=messages.COUNT)
def count() -> None:
    """Store the totals of finished days."""
    daily_totals.store_finished_days()


@celery.task(name=messages.NOTIFY)
def notify() -> None:
    """Create a delivery for each new event, and nudge the slots with due deliveries."""
    webhook_fan_out.create_deliveries()
    webhook_dispatcher.nudge_due()


@celery.task(name=messages.DELIVER)
def deliver(slot: str) -> None:
    """Deliver to one endpoint for a turn; the rest waits for the next turn."""
    messages.clear_nudge_marks([slot])
    webhook_dispatcher.take_turn(slot)


@celery.task(name=messages.MAIL)
def mail() -> None:
    """Create the mail for all new events, and nudge the slots with due mail."""
    mail_fan_out.create_mails()
    mail_dispatcher.nudge_due()


@celery.task(name=messages.SEND_MAIL)
def send_mail(slot: str) -> None:
    """Send mail for a turn; the rest waits for the next turn."""
    messages.clear_nudge_marks([slot])
    mail_dispatcher.take_turn(slot)
