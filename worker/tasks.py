"""The tasks. Each takes an id, may run twice, and finds out from the row what there is to do."""

from collections.abc import Callable
from functools import cache
from uuid import UUID

import structlog

from shared import idempotency, inbox, queues, sealing, spot_checks, watching, withdrawals
from shared.errors import Unavailable
from shared.ids import parse_id
from shared.notifications import following, keeping, turns
from shared.notifications.mail import following as mail_following
from shared.notifications.mail import keeping as mail_keeping
from shared.notifications.mail import turns as mail_turns
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from shared.totals import keeping as totals
from worker.app import celery
from worker.reconcile import nightly

log = structlog.get_logger()


@celery.task(name=queues.SUBMIT)
def submit_withdrawal(withdrawal_id: str) -> None:
    """Bring a withdrawal that is due one step on: send it, send it again, or look for it."""
    _go_on(withdrawal_id)


@celery.task(name=queues.POLL)
def poll_payout(withdrawal_id: str) -> None:
    """Ask how an accepted payout stands. The same story, on a queue where it delays nobody's payment."""
    _go_on(withdrawal_id)


@celery.task(name=queues.APPLY)
def apply_webhook(event_id: str) -> None:
    """Let a kept webhook do what it means."""
    queues.taken(event_id)
    inbox.apply(event_id)


@celery.task(name=queues.SWEEP)
def sweep() -> None:
    """Nudge everything that is due."""
    withdrawals.sweep()


@celery.task(name=queues.WATCH)
def watch() -> None:
    """Look after what nobody asks for: is anything late, do webhooks come, is there money to pay with?

    One duty that cannot be done keeps nobody from the others. Raises the first error, after all.
    """
    failed = [error for duty in WATCHED if (error := _error_of(duty)) is not None]
    if failed:
        raise failed[0]


def _error_of(duty: Callable[[], object]) -> Exception | None:
    try:
        duty()
    except Exception as error:
        log.error("[WATCH] not done", duty=f"{duty.__module__}.{duty.__name__}", error=type(error).__name__)
        return error
    return None


def _ask_for_the_balance() -> None:
    balance = _razorpayx().balance()
    if isinstance(balance, int):
        watching.learn_balance(balance)
    else:
        log.warning("[PAYOUT] balance not told", answer=type(balance).__name__)


WATCHED = (
    watching.warn_of_overdue,
    watching.warn_of_silence,
    spot_checks.run,
    _ask_for_the_balance,
    idempotency.forget_old,
    keeping.forget_old,
    mail_keeping.give_up,
    mail_keeping.forget_old,
)


@celery.task(name=queues.SEAL)
def seal() -> None:
    """Seal what was written since: from then on any change of it can be proved."""
    sealing.seal()


@celery.task(name=queues.RECONCILE)
def reconcile() -> None:
    """Compare yesterday's books with the provider's, once a night."""
    nightly()


@celery.task(name=queues.COUNT)
def count() -> None:
    """Keep the totals of days that are over."""
    totals.keep()


@celery.task(name=queues.NOTIFY)
def notify() -> None:
    """Make a delivery of each change that is new, and nudge all that is due."""
    following.follow()
    turns.nudge_due()


@celery.task(name=queues.DELIVER)
def deliver(place: str) -> None:
    """Deliver to one endpoint for a while; what is then left waits for its next turn."""
    queues.taken(place)
    turns.take_turn(place)


@celery.task(name=queues.MAIL)
def mail() -> None:
    """Write down a mail for all that users and operators are to be told, and nudge what is due."""
    mail_following.follow()
    mail_turns.nudge_due()


@celery.task(name=queues.SEND_MAIL)
def send_mail(place: str) -> None:
    """Send mail for a while; what is then left waits for its next turn."""
    queues.taken(place)
    mail_turns.take_turn(place)


def _go_on(key: str) -> None:
    queues.taken(key)
    withdrawal_id = parse_id(key)
    if withdrawal_id is None:
        log.error("[PAYOUT] not an id", key=key[:50])
        return
    try:
        bring_on(withdrawal_id, _razorpayx())
    except Unavailable:
        raise  # the database is away: nothing can be written down, and nothing need be
    except Exception as error:
        withdrawals.put_off(withdrawal_id, error)
        raise


def bring_on(withdrawal_id: UUID, provider: RazorpayX) -> None:
    """One withdrawal's next step, whole: claim, call, record. Dying anywhere in here loses nothing."""
    step = withdrawals.claim(withdrawal_id)
    while step is not None:
        answer = provider.perform(step)
        step = withdrawals.record_answer(step, answer)


@cache
def _razorpayx() -> RazorpayX:
    return RazorpayX(settings())
