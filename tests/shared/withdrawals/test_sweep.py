"""The sweep: few messages for many requests, a fair order, and an expected time for each queued withdrawal."""

import base64
import json
import os
import time
from importlib import import_module
from itertools import pairwise

import pytest

from sandbox.processes import wait_until
from shared import withdrawals
from shared.monitoring import watchdog
from shared.providers import rate_limit
from shared.providers.answers import Throttled, Unknown
from shared.providers.steps import Prepare, Send
from shared.queues import messages, redis_broker
from shared.queues.names import BACKLOG, PAYOUTS, POLLS, SWEEPS
from shared.withdrawals import expectations
from tests.support import steps
from tests.support.backlog import insert_backlog
from tests.support.world import World
from worker import tasks


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=100_000)
    return world


def depth(queue: str) -> int:
    return redis_broker.depth(queue)


ALL_DUE = "SELECT bool_and(due_at <= now()) AS are_due FROM withdrawals"


def waiting(queue: str) -> list[str]:
    """The withdrawals in a queue, the next one first."""
    queued = reversed(redis_broker.client().lrange(queue, 0, -1))
    return [json.loads(base64.b64decode(json.loads(message)["body"]))[0][0] for message in queued]


def test_many_requests_queue_one_sweep_when_they_fall_due(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANCEL_WINDOW_SECONDS", "1")
    funded.forget_settings()
    started = time.monotonic()
    for _ in range(20):
        funded.request(coins=100)
    wait_until(lambda: depth(SWEEPS), 15)
    assert time.monotonic() - started >= 1  # the cancel window is over
    wait_until(lambda: funded.sql(ALL_DUE)[0].are_due, 15)
    assert (depth(SWEEPS), depth(PAYOUTS)) == (1, 0)
    assert withdrawals.sweep_sends() == 20


def test_a_queue_is_refilled_when_it_is_half_empty(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "6")
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.5")  # so slow that each message is for one withdrawal
    funded.forget_settings()
    for _ in range(10):
        funded.request(coins=100)
    funded.advance()
    assert (withdrawals.sweep().submits, depth(PAYOUTS)) == (6, 6)
    assert withdrawals.sweep().submits == 0
    for _ in range(3):
        redis_broker.client().rpop(PAYOUTS)
    assert (withdrawals.sweep().submits, depth(PAYOUTS)) == (3, 6)


@pytest.mark.parametrize(
    ("task", "queue", "sweep_task"),
    [(messages.SUBMIT, PAYOUTS, messages.SWEEP_SENDS), (messages.POLL, POLLS, messages.SWEEP)],
)
def test_a_worker_asks_for_more_after_a_full_batch_if_nothing_waits(
    funded: World, monkeypatch: pytest.MonkeyPatch, task: str, queue: str, sweep_task: str
) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "2")
    monkeypatch.setattr(
        import_module("shared.withdrawals.sweep"), "REFILL_SECONDS", 0
    )  # may ask at once again
    funded.forget_settings()
    ids = [str(funded.request(coins=100)) for _ in range(2)]
    run = getattr(tasks, task).run
    run(ids[0])
    assert depth(SWEEPS) == 0, "not a full batch"
    run(*ids)
    assert json.loads(redis_broker.client().lpop(SWEEPS))["headers"]["task"] == sweep_task
    messages.clear_nudge_marks([sweep_task])
    messages.nudge(task, ids[0], queue=queue)
    run(*ids)
    assert depth(SWEEPS) == 0, "a message waits"


@pytest.mark.parametrize("state", ["sending", "preparing"])
def test_started_withdrawals_are_queued_before_new_ones(
    funded: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Payouts of a lost worker, and unanswered ones, do not wait behind a long queue."""
    monkeypatch.setenv("SWEEP_BATCH", "2")
    funded.forget_settings()
    for _ in range(3):
        funded.request(coins=100)
    funded.advance()
    if state == "sending":
        started = funded.first_send(coins=100).withdrawal_id
    else:
        started = funded.request(coins=100, upi_id="new@ybl")
        funded.advance()
        assert isinstance(steps.claim(started), Prepare)
    funded.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=started)  # its lease is over
    assert withdrawals.sweep().submits == 2
    queued = [json.loads(message) for message in redis_broker.client().lrange(PAYOUTS, 0, -1)]
    first = json.loads(base64.b64decode(queued[-1]["body"]))[0][0]  # workers take messages from this end
    assert first == str(started)


def test_withdrawals_in_the_queue_have_an_expected_time(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.5")
    funded.forget_settings()
    ids = [funded.request(coins=100) for _ in range(5)]
    steps.sweep()
    assert funded.read(ids[0]).status_reason == "cancel_window"
    funded.advance(30)
    before = funded.clock()
    steps.sweep()
    rows = [funded.read(withdrawal_id) for withdrawal_id in ids]
    assert {row.status_reason for row in rows} == {"paced"}
    timed = funded.sql("SELECT expected_by, clock_timestamp() AS after FROM withdrawals ORDER BY due_at")
    call_seconds = 2 * rate_limit.SLOT_MARGIN * expectations.MARGIN
    # The first registers the payee and needs three calls; each other one needs one.
    for calls, row in enumerate(timed, 3):
        longest, shortest = ((row.expected_by - at).total_seconds() - 60 for at in (before, row.after))
        assert longest >= calls * call_seconds - 1 and shortest <= calls * call_seconds + 1
    gaps = [(later.expected_by - row.expected_by).total_seconds() for row, later in pairwise(timed)]
    assert gaps == pytest.approx([call_seconds] * 4, abs=0.2)
    # Later withdrawals are expected after them.
    late = funded.request(coins=100)
    funded.advance(30)
    steps.sweep()
    assert funded.read(late).expected_by > max(row.expected_by for row in rows if row.expected_by)


def test_a_queued_withdrawal_can_be_cancelled(funded: World) -> None:
    withdrawal_id = funded.request(coins=100)
    funded.advance(30)
    withdrawals.sweep()
    withdrawals.cancel(withdrawal_id, reason="too slow", actor="app:test")
    assert funded.balance() == 100_000


@pytest.mark.parametrize(
    "answer", [Unknown("boom", 500), Throttled("busy", "Too many"), Throttled("paced", "")]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_withdrawal_that_retries_without_progress_becomes_overdue(
    funded: World, answer: Throttled | Unknown, known: bool
) -> None:
    """A payee that cannot be registered, or a payout that is always throttled: each try has another reason."""
    if known:
        withdrawal_id = funded.first_send().withdrawal_id
        funded.sql("UPDATE payout_attempts SET state = 'throttled'")
        answer = Throttled("busy", "Too many") if isinstance(answer, Unknown) else answer
    else:
        withdrawal_id = funded.request()
    hours = 0.0
    overdue = 0
    while hours < 2 and not overdue:
        remaining = (
            "SELECT greatest(extract(epoch FROM due_at - now()), 0)::float8 + 0.01 AS s FROM withdrawals"
        )
        seconds = funded.sql(remaining)[0].s
        hours += seconds / 3600
        for column in ("due_at", "expected_by", "trying_since"):
            funded.sql(f"UPDATE withdrawals SET {column} = {column} - make_interval(secs => :s)", s=seconds)
        funded.sql("UPDATE switches SET strikes = 0")  # as if others were paid meanwhile
        overdue = watchdog.warn_of_overdue()
        step = steps.claim(withdrawal_id)
        assert step is not None
        steps.record_answer(step, answer)
    assert overdue == 1 and hours < 1.5


def test_progress_extends_the_expected_time(funded: World) -> None:
    send = funded.first_send()
    steps.record_answer(send, Throttled("busy", "Too many"))
    funded.sql(
        "UPDATE withdrawals SET trying_since = trying_since - interval '50 minutes', expected_by = now()"
    )
    funded.advance()
    step = steps.claim(send.withdrawal_id)
    assert isinstance(step, Send)
    late = "SELECT expected_by <= now() + interval '1 minute' AS is_late FROM withdrawals"
    assert funded.sql(late)[0].is_late, "a resend is no progress"
    steps.record_answer(step, funded.perform(step))
    assert not funded.sql(late)[0].is_late, "an accepted payout is progress"


def test_rechecks_of_completed_payouts_share_the_poll_queue(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "2")
    funded.forget_settings()
    late = funded.paid()
    funded.simulator.scenario("never", default=True)
    for n in range(4):
        funded.step(funded.request(coins=100, upi_id=f"user{n}@okaxis"))
    funded.sql(
        "UPDATE payout_attempts SET recheck_at = now() - interval '2 hours' WHERE recheck_at IS NOT NULL"
    )
    funded.sql("UPDATE withdrawals SET due_at = now() WHERE due_at IS NOT NULL")
    assert withdrawals.sweep().polls == 2
    queued = [json.loads(message) for message in redis_broker.client().lrange(POLLS, 0, -1)]
    bodies = [base64.b64decode(message["body"]).decode() for message in queued]
    assert any(str(late) in body for body in bodies)


# --- a long queue


def test_of_a_long_queue_only_the_oldest_rows_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "20")
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.5")  # each message is for one withdrawal
    world.forget_settings()
    ids = insert_backlog(os.environ["DATABASE_URL"], users=500, each=2)
    assert withdrawals.sweep_sends() == 20
    assert waiting(PAYOUTS) == ids[:20] and waiting(BACKLOG) == []


def test_a_user_who_fills_the_head_of_the_queue_does_not_delay_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep reads only the head of a long queue, so it looks for other users elsewhere, all in turn."""
    monkeypatch.setenv("SWEEP_BATCH", "20")
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.5")
    world.forget_settings()
    many = insert_backlog(os.environ["DATABASE_URL"], users=1, each=300, name="many")
    others = insert_backlog(os.environ["DATABASE_URL"], users=60, each=1, name="one")
    found: set[str] = set()
    for _ in range(10):
        withdrawals.sweep_sends()
        found.update(waiting(PAYOUTS))
        redis_broker.client().delete(PAYOUTS)
    assert found == {*many[:10], *others}
    assert waiting(BACKLOG) == many[10:30]
