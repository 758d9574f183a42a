"""The sweep: few messages for many requests, a fair order, and an expected time for each queued withdrawal."""

import base64
import json
import time
from itertools import pairwise

import pytest

from shared import withdrawals
from shared.monitoring import watchdog
from shared.providers import rate_limit
from shared.providers.answers import Throttled, Unknown
from shared.providers.steps import Prepare, Send
from shared.queues import messages, redis_broker
from shared.queues.names import PAYOUTS, POLLS, SWEEPS
from shared.withdrawals import expectations
from tests.support.world import World


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=100_000)
    return world


def depth(queue: str) -> int:
    return redis_broker.depth(queue)


class Clock:
    """A clock that moves only when told to, so that a slow machine does not change the result."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        patch.setattr(time, "time", lambda: self.now)


def test_many_requests_queue_few_sweeps(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for expected in (1, 2):
        for _ in range(20):
            funded.request(coins=100)
        assert depth(SWEEPS) == expected
        clock.now += messages.SWEEP_GROUPING_SECONDS * 1.01
    assert depth(PAYOUTS) == 0  # no cancel window is over


def test_a_later_due_time_gets_a_sweep_of_its_own(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    messages.nudge_sweep(in_seconds=10)
    messages.nudge_sweep(in_seconds=10)
    messages.nudge_sweep(in_seconds=5)
    assert depth(SWEEPS) == 1
    messages.nudge_sweep(in_seconds=20)
    assert depth(SWEEPS) == 2


def test_a_queue_is_refilled_when_it_is_half_empty(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "6")
    funded.forget_settings()
    for _ in range(10):
        funded.request(coins=100)
    funded.advance()
    assert (withdrawals.sweep().submits, depth(PAYOUTS)) == (6, 6)
    assert withdrawals.sweep().submits == 0
    for _ in range(3):
        redis_broker.client().rpop(PAYOUTS)
    assert (withdrawals.sweep().submits, depth(PAYOUTS)) == (3, 6)


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
        assert isinstance(withdrawals.claim(started), Prepare)
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
    withdrawals.sweep()
    assert funded.read(ids[0]).status_reason == "cancel_window"
    funded.advance(30)
    before = funded.clock()
    withdrawals.sweep()
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
    withdrawals.sweep()
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
        step = withdrawals.claim(withdrawal_id)
        assert step is not None
        withdrawals.record_answer(step, answer)
    assert overdue == 1 and hours < 1.5


def test_progress_extends_the_expected_time(funded: World) -> None:
    send = funded.first_send()
    withdrawals.record_answer(send, Throttled("busy", "Too many"))
    funded.sql(
        "UPDATE withdrawals SET trying_since = trying_since - interval '50 minutes', expected_by = now()"
    )
    funded.advance()
    step = withdrawals.claim(send.withdrawal_id)
    assert isinstance(step, Send)
    late = "SELECT expected_by <= now() + interval '1 minute' AS is_late FROM withdrawals"
    assert funded.sql(late)[0].is_late, "a resend is no progress"
    withdrawals.record_answer(step, funded.perform(step))
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
