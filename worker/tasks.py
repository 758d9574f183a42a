"""The tasks. Each takes an id, may run twice, and finds out from the row what there is to do."""

from functools import cache
from uuid import UUID

import structlog

from shared import inbox, queues, withdrawals
from shared.errors import Unavailable
from shared.ids import parse_id
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from worker.app import celery

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
    inbox.apply(event_id)


@celery.task(name=queues.SWEEP)
def sweep() -> None:
    """Nudge everything that is due."""
    withdrawals.sweep()


def _go_on(key: str) -> None:
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
