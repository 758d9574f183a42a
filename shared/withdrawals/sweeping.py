"""Due work that nobody holds: after a lost message, a dead worker, a wiped broker, or simply in time.

The sweep also decides the order. The queues are first in, first out, so one user's five thousand would keep
everybody waiting: a user's first few go to the queue that all share, the others to the backlog behind it.
"""

from dataclasses import dataclass
from typing import Any

import redis
import structlog
from sqlalchemy import CTE, Select, exists, func, select, union_all

from shared import metrics, pace, queues, switches
from shared.db import transaction
from shared.models import Hint, PayoutAttempt, WebhookEvent, Withdrawal
from shared.settings import settings
from shared.states import OPEN, AttemptState, Reason, Status
from shared.withdrawals import pausing, promising

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """How many messages one sweep sent."""

    submits: int
    polls: int
    webhooks: int


def sweep() -> Swept:
    """Nudge everything that is due: what was begun and the oldest first, up to what the queues should hold.

    Raises Unavailable. What is due stays due until someone claims it. So that a long queue is not filled
    again with what waits in it, a queue gets no more until half of `sweep_batch` is gone. While RazorpayX has
    asked for patience nobody is nudged to call it.
    """
    _wake()
    webhooks = _nudge_all(queues.APPLY, _to_apply())
    swept = (
        Swept(0, 0, webhooks)
        if _all_are_patient()
        else Swept(
            submits=_nudge_all(queues.SUBMIT, _to_send(shared=True))
            + _nudge_all(queues.SUBMIT, _to_send(shared=False), queues.BACKLOG),
            polls=_nudge_all(queues.POLL, _to_poll()),
            webhooks=webhooks,
        )
    )
    promising.tell_who_waits_for_a_turn()
    if swept != Swept(0, 0, 0):
        log.info("[SWEEP] nudged", submits=swept.submits, polls=swept.polls, webhooks=swept.webhooks)
    return swept


def _all_are_patient() -> bool:
    with transaction() as session:
        return bool(session.scalar(select(pace.is_long()), pace.bounds()))


def _to_send(*, shared: bool) -> Select[Any]:
    """What is due and not accepted: of each user the first few (shared), or the others."""
    due = _due_with_place()
    first = due.c.place <= settings().payouts_per_user
    wanted = select(due.c.id, _late(due.c.due_at)).where(first if shared else ~first)
    return wanted.order_by(due.c.begun.desc(), due.c.due_at)


def _due_with_place() -> CTE:
    # What was begun goes first: rupees may be on their way, and behind a long queue nobody would look.
    begun = (Withdrawal.status == Status.PROCESSING) | (Withdrawal.status_reason == Reason.PREPARING)
    order = (begun.desc(), Withdrawal.due_at)
    place = func.row_number().over(partition_by=Withdrawal.user_id, order_by=order)
    due = select(Withdrawal.id, Withdrawal.due_at, begun.label("begun"), place.label("place"))
    return due.where(Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now(), ~_is_accepted()).cte("due")


def _to_poll() -> Select[Any]:
    """What is accepted, completed payouts that a bank may have sent back, and what a webhook hinted at, by
    how late they are: one after the other, the second would wait as long as there are many of the first.
    """
    accepted = select(Withdrawal.id, _late(Withdrawal.due_at))
    accepted = accepted.where(Withdrawal.status.in_(OPEN), Withdrawal.due_at <= func.now(), _is_accepted())
    completed = select(PayoutAttempt.withdrawal_id, _late(PayoutAttempt.recheck_at))
    hinted = select(Hint.withdrawal_id, _late(Hint.due_at)).where(Hint.due_at <= func.now())
    due = union_all(accepted, completed.where(PayoutAttempt.recheck_at <= func.now()), hinted).subquery()
    return select(due.c.id, due.c.late).order_by(due.c.late.desc())


def _to_apply() -> Select[Any]:
    waiting = select(WebhookEvent.event_id, _late(WebhookEvent.due_at)).where(
        WebhookEvent.applied_at.is_(None), WebhookEvent.due_at <= func.now()
    )
    return waiting.order_by(WebhookEvent.due_at)


def _late(due_at: Any) -> Any:
    """How many seconds after its time a thing is found."""
    return func.extract("epoch", func.now() - due_at).label("late")


def _is_accepted() -> Any:
    return exists().where(
        PayoutAttempt.withdrawal_id == Withdrawal.id, PayoutAttempt.state == AttemptState.ACCEPTED
    )


def _nudge_all(task: str, keys: Select[Any], queue: str | None = None) -> int:
    batch = settings().sweep_batch
    try:
        waiting = queues.depth(queue or queues.QUEUE_OF[task])
        if waiting > batch / 2:
            return 0
        with transaction() as session:
            late = {str(key): float(seconds) for key, seconds in session.execute(keys.limit(2 * batch))}
        sent = queues.nudge_new(task, late, room=batch - waiting, queue=queue)
    except redis.RedisError:
        return 0
    lag = metrics.SWEEP_LAG_SECONDS.labels(task)
    for key in sent:
        lag.observe(late[key])
    return len(sent)


def _wake() -> None:
    """A pause of the system's own is over when one payout has gone well: let the oldest try. And wake who was
    held back at the very moment when the pause ended, unseen by whoever ended it.
    """
    with transaction() as session:
        for switch in switches.half_open(session):
            pausing.wake(session, switch, limit=1)
        pausing.wake_forgotten(session)
