"""Due work that nobody holds: after a lost message, a dead worker, a wiped broker, or simply in time."""

from dataclasses import dataclass

import redis
import structlog
from sqlalchemy import exists, func, select

from shared import queues
from shared.db import transaction
from shared.models import PayoutAttempt, WebhookEvent, Withdrawal
from shared.settings import settings
from shared.states import OPEN, AttemptState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """How many messages one sweep sent."""

    submits: int
    polls: int
    webhooks: int


def sweep() -> Swept:
    """Nudge everything that is due, oldest first, up to what the queues should hold. Raises Unavailable.

    It changes no row: what is due stays due until someone claims it. So that a long queue is not filled
    again with what waits in it, a queue that holds `sweep_batch` messages gets no more.
    """
    accepted = exists().where(
        PayoutAttempt.withdrawal_id == Withdrawal.id, PayoutAttempt.state == AttemptState.ACCEPTED
    )
    due = select(Withdrawal.id).where(Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now())
    due = due.order_by(Withdrawal.due_at)
    completed = (
        select(PayoutAttempt.withdrawal_id)
        .where(PayoutAttempt.recheck_at <= func.now())
        .order_by(PayoutAttempt.recheck_at)
    )
    waiting = (
        select(WebhookEvent.event_id)
        .where(WebhookEvent.applied_at.is_(None), WebhookEvent.due_at <= func.now())
        .order_by(WebhookEvent.due_at)
    )
    swept = Swept(
        submits=_nudge_all(queues.SUBMIT, due.where(~accepted)),
        polls=_nudge_all(queues.POLL, due.where(accepted)) + _nudge_all(queues.POLL, completed),
        webhooks=_nudge_all(queues.APPLY, waiting),
    )
    if swept != Swept(0, 0, 0):
        log.info("[SWEEP] nudged", submits=swept.submits, polls=swept.polls, webhooks=swept.webhooks)
    return swept


def _nudge_all(task: str, keys) -> int:  # type: ignore[no-untyped-def]  # a select of one column
    try:
        room = settings().sweep_batch - queues.depth(queues.QUEUE_OF[task])
    except redis.RedisError:
        return 0
    if room <= 0:
        return 0
    with transaction() as session:
        found = list(session.scalars(keys.limit(room)))
    return sum(queues.nudge(task, key) for key in found)
