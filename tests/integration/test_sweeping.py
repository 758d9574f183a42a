"""The order of things: few messages for many requests, and words for those who wait for their turn."""

import base64
import json
import time
from itertools import pairwise

import pytest

from shared import queues, withdrawals
from shared.steps import Prepare
from tests.world import World


@pytest.fixture
def rich(world: World) -> World:
    world.credit(coins=100_000)
    return world


def depth(queue: str) -> int:
    return queues.depth(queue)


class Clock:
    """Stands still until it is moved: how long a busy machine takes says nothing of what is asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        patch.setattr(time, "time", lambda: self.now)


def test_many_requests_make_few_messages(rich: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for messages in (1, 2):
        for _ in range(20):
            rich.request(coins=100)
        assert depth(queues.SWEEPS) == messages
        clock.now += queues.SWEEP_STEP_SECONDS * 1.01
    assert depth(queues.PAYOUTS) == 0  # nobody's cancel window is over


def test_a_later_due_time_gets_a_sweep_of_its_own(rich: World, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    queues.nudge_sweep(in_seconds=10)
    queues.nudge_sweep(in_seconds=10)
    queues.nudge_sweep(in_seconds=5)
    assert depth(queues.SWEEPS) == 1
    queues.nudge_sweep(in_seconds=20)
    assert depth(queues.SWEEPS) == 2


def test_a_queue_is_filled_again_when_half_of_it_is_gone(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "6")
    rich.forget_settings()
    for _ in range(10):
        rich.request(coins=100)
    rich.advance()
    assert (withdrawals.sweep().submits, depth(queues.PAYOUTS)) == (6, 6)
    assert withdrawals.sweep().submits == 0
    for _ in range(3):
        queues.broker().rpop(queues.PAYOUTS)
    assert (withdrawals.sweep().submits, depth(queues.PAYOUTS)) == (3, 6)


@pytest.mark.parametrize("how", ["sending", "preparing"])
def test_what_was_begun_goes_before_what_only_waits(
    rich: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A lost worker's payouts, and those without an answer, are not left until a long queue is done."""
    monkeypatch.setenv("SWEEP_BATCH", "2")
    rich.forget_settings()
    for _ in range(3):
        rich.request(coins=100)
    rich.advance()
    if how == "sending":
        begun = rich.first_send(coins=100).withdrawal_id
    else:
        begun = rich.request(coins=100, upi_id="new@ybl")
        rich.advance()
        assert isinstance(withdrawals.claim(begun), Prepare)
    rich.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=begun)  # its lease is over
    assert withdrawals.sweep().submits == 2
    waiting = [json.loads(message) for message in queues.broker().lrange(queues.PAYOUTS, 0, -1)]
    first = json.loads(base64.b64decode(waiting[-1]["body"]))[0][0]  # messages are taken from that end
    assert first == str(begun)


def test_who_waits_for_a_turn_is_told_until_when(rich: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.5")
    rich.forget_settings()
    ids = [rich.request(coins=100) for _ in range(5)]
    withdrawals.sweep()
    assert rich.read(ids[0]).status_reason == "cancel_window"
    rich.advance(30)
    before = rich.sql("SELECT clock_timestamp() AS at")[0].at
    withdrawals.sweep()
    rows = [rich.read(one) for one in ids]
    assert {row.status_reason for row in rows} == {"paced"}
    told = rich.sql("SELECT expected_by, clock_timestamp() AS after FROM withdrawals ORDER BY due_at")
    for turn, row in enumerate(told, 1):  # to the second, from some moment between the two
        longest, shortest = ((row.expected_by - at).total_seconds() - 60 for at in (before, row.after))
        assert longest >= 2 * turn - 1 and shortest <= 2 * turn + 1
    gaps = [(later.expected_by - one.expected_by).total_seconds() for one, later in pairwise(told)]
    assert gaps == pytest.approx([2] * 4, abs=0.2)
    # And those that come later stand behind them.
    late = rich.request(coins=100)
    rich.advance(30)
    withdrawals.sweep()
    assert rich.read(late).expected_by > max(row.expected_by for row in rows if row.expected_by)


def test_a_turn_is_no_obstacle_to_cancelling(rich: World) -> None:
    withdrawal_id = rich.request(coins=100)
    rich.advance(30)
    withdrawals.sweep()
    withdrawals.cancel(withdrawal_id, reason="too slow", actor="app:test")
    assert rich.balance() == 100_000
