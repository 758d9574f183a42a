"""The sweep: find due work that no worker holds, after a lost message, a dead worker, a wiped broker, or on
time.

The sweep also decides the order. The queues are first in, first out, so one user with five thousand
withdrawals would delay everyone: a user's first few go to the shared queue, the rest to the backlog queue.
"""

from dataclasses import dataclass
from typing import Any

import redis
import structlog
from sqlalchemy import CTE, Select, exists, func, select, union_all

from shared.db.transactions import transaction
from shared.models import Hint, PayoutAttempt, WebhookEvent, Withdrawal
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.queues import messages, redis_broker
from shared.queues.names import BACKLOG
from shared.settings import settings
from shared.states import OPEN, AttemptState, Reason, Status
from shared.telemetry import metrics
from shared.withdrawals import circuit_breakers, expectations, pauses

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The number of messages that one sweep sent."""

    submits: int
    polls: int
    webhooks: int


def sweep() -> SweepResult:
    """Notify workers of due work, begun withdrawals and the oldest first, up to the size of the queues.

    Work stays due until a worker claims it. So that a long queue does not fill with duplicates, it gets no
    messages until half of `sweep_batch` is consumed. While workers back off from the provider, only webhooks
    are notified. Raises Unavailable.
    """
    _wake_paused()
    webhooks = _notify(messages.APPLY, _unapplied_webhooks())
    result = (
        SweepResult(0, 0, webhooks)
        if _is_backing_off()
        else SweepResult(
            submits=_notify(messages.SUBMIT, _due_sends(shared=True))
            + _notify(messages.SUBMIT, _due_sends(shared=False), BACKLOG),
            polls=_notify(messages.POLL, _due_polls()),
            webhooks=webhooks,
        )
    )
    expectations.mark_as_paced()
    if result != SweepResult(0, 0, 0):
        log.info("[SWEEP] nudged", submits=result.submits, polls=result.polls, webhooks=result.webhooks)
    return result


def _is_backing_off() -> bool:
    with transaction() as session:
        return bool(
            session.scalar(select(rate_limit.is_backed_up(provider().code)), rate_limit.backlog_bounds())
        )


def _due_sends(*, shared: bool) -> Select[Any]:
    """Due withdrawals without an accepted payout: the first few of each user (shared), or the rest."""
    due = _due_with_position()
    is_first = due.c.position <= settings().payouts_per_user
    query = select(due.c.id, _lag(due.c.due_at)).where(is_first if shared else ~is_first)
    return query.order_by(due.c.begun.desc(), due.c.due_at)


def _due_with_position() -> CTE:
    # Begun withdrawals go first: their rupees may be on the way, so they must not wait behind a long queue.
    begun = (Withdrawal.status == Status.PROCESSING) | (Withdrawal.status_reason == Reason.PREPARING)
    order = (begun.desc(), Withdrawal.due_at)
    position = func.row_number().over(partition_by=Withdrawal.user_id, order_by=order)
    due = select(Withdrawal.id, Withdrawal.due_at, begun.label("begun"), position.label("position"))
    return due.where(Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now(), ~_is_accepted()).cte("due")


def _due_polls() -> Select[Any]:
    """Accepted payouts, rechecks of completed ones, and hints, the most overdue first.

    One kind after another would delay the second kind for as long as there are many of the first.
    """
    accepted = select(Withdrawal.id, _lag(Withdrawal.due_at))
    accepted = accepted.where(Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now(), _is_accepted())
    completed = select(PayoutAttempt.withdrawal_id, _lag(PayoutAttempt.recheck_at))
    hinted = select(Hint.withdrawal_id, _lag(Hint.due_at)).where(Hint.due_at <= func.now())
    due = union_all(accepted, completed.where(PayoutAttempt.recheck_at <= func.now()), hinted).subquery()
    return select(due.c.id, due.c.lag).order_by(due.c.lag.desc())


def _unapplied_webhooks() -> Select[Any]:
    unapplied = select(WebhookEvent.event_id, _lag(WebhookEvent.due_at)).where(
        WebhookEvent.applied_at.is_(None), WebhookEvent.due_at <= func.now()
    )
    return unapplied.order_by(WebhookEvent.due_at)


def _lag(due_at: Any) -> Any:
    """Seconds since the work became due."""
    return func.extract("epoch", func.now() - due_at).label("lag")


def _is_accepted() -> Any:
    return exists().where(
        PayoutAttempt.withdrawal_id == Withdrawal.id, PayoutAttempt.state == AttemptState.ACCEPTED
    )


def _notify(task: str, due: Select[Any], queue: str | None = None) -> int:
    batch = settings().sweep_batch
    try:
        depth = redis_broker.depth(queue or messages.QUEUE_OF[task])
        if depth > batch / 2:
            return 0
        with transaction() as session:
            lags = {str(key): float(seconds) for key, seconds in session.execute(due.limit(2 * batch))}
        sent = messages.nudge_new(task, lags, limit=batch - depth, queue=queue)
    except redis.RedisError:
        return 0
    histogram = metrics.SWEEP_LAG_SECONDS.labels(task)
    for key in sent:
        histogram.observe(lags[key])
    return len(sent)


def _wake_paused() -> None:
    """Make the oldest paused withdrawal due as the probe of each half-open breaker.

    Also wake withdrawals that were paused at the moment when their breaker closed, which its closing missed.
    """
    with transaction() as session:
        for breaker in circuit_breakers.half_open_breakers(session):
            pauses.wake(session, breaker, limit=1)
        pauses.wake_missed(session)
