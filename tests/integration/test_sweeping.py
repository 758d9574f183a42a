"""The order of things: few messages for many requests, and words for those who wait for their turn."""

import base64
import json
import time
from itertools import pairwise

import pytest

from shared import pace, queues, watching, withdrawals
from shared.razorpayx.answers import Throttled, Unknown
from shared.steps import Prepare, Send
from shared.withdrawals import promising
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
    before = rich.clock()
    withdrawals.sweep()
    rows = [rich.read(one) for one in ids]
    assert {row.status_reason for row in rows} == {"paced"}
    told = rich.sql("SELECT expected_by, clock_timestamp() AS after FROM withdrawals ORDER BY due_at")
    a_call = 2 * pace.SPARE * promising.MARGIN
    for calls, row in enumerate(
        told, 3
    ):  # the first makes the payee known: three calls, and one for each other
        longest, shortest = ((row.expected_by - at).total_seconds() - 60 for at in (before, row.after))
        assert longest >= calls * a_call - 1 and shortest <= calls * a_call + 1
    gaps = [(later.expected_by - one.expected_by).total_seconds() for one, later in pairwise(told)]
    assert gaps == pytest.approx([a_call] * 4, abs=0.2)
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


@pytest.mark.parametrize(
    "answer", [Unknown("boom", 500), Throttled("busy", "Too many"), Throttled("paced", "")]
)
@pytest.mark.parametrize("known", [True, False])
def test_who_goes_round_and_gets_nowhere_is_late_in_the_end_and_told(
    rich: World, answer: Throttled | Unknown, known: bool
) -> None:
    """A payee who cannot be prepared, a payout that is always sent away: each look has another reason."""
    if known:
        withdrawal_id = rich.first_send().withdrawal_id
        rich.sql("UPDATE payout_attempts SET state = 'throttled'")
        answer = Throttled("busy", "Too many") if isinstance(answer, Unknown) else answer
    else:
        withdrawal_id = rich.request()
    hours = told = 0.0
    while hours < 2 and not told:
        left = "SELECT greatest(extract(epoch FROM due_at - now()), 0)::float8 + 0.01 AS s FROM withdrawals"
        seconds = rich.sql(left)[0].s
        hours += seconds / 3600
        for column in ("due_at", "expected_by", "trying_since"):
            rich.sql(f"UPDATE withdrawals SET {column} = {column} - make_interval(secs => :s)", s=seconds)
        rich.sql("UPDATE switches SET strikes = 0")  # others are paid meanwhile
        told = watching.warn_of_overdue()
        step = withdrawals.claim(withdrawal_id)
        assert step is not None
        withdrawals.record_answer(step, answer)
    assert told == 1 and hours < 1.5


def test_what_gets_on_is_promised_anew(rich: World) -> None:
    send = rich.first_send()
    withdrawals.record_answer(send, Throttled("busy", "Too many"))
    rich.sql(
        "UPDATE withdrawals SET trying_since = trying_since - interval '50 minutes', expected_by = now()"
    )
    rich.advance()
    step = withdrawals.claim(send.withdrawal_id)
    assert isinstance(step, Send)
    late = "SELECT expected_by <= now() + interval '1 minute' AS is_late FROM withdrawals"
    assert rich.sql(late)[0].is_late, "sent once more is no news"
    withdrawals.record_answer(step, rich.perform(step))
    assert not rich.sql(late)[0].is_late, "accepted is"


def test_looks_at_completed_payouts_take_their_turn_among_the_polls(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_BATCH", "2")
    rich.forget_settings()
    late = rich.paid()
    rich.simulator.scenario("never", default=True)
    for n in range(4):
        rich.step(rich.request(coins=100, upi_id=f"user{n}@okaxis"))
    rich.sql(
        "UPDATE payout_attempts SET recheck_at = now() - interval '2 hours' WHERE recheck_at IS NOT NULL"
    )
    rich.sql("UPDATE withdrawals SET due_at = now() WHERE due_at IS NOT NULL")
    assert withdrawals.sweep().polls == 2
    messages = [json.loads(one) for one in queues.broker().lrange(queues.POLLS, 0, -1)]
    bodies = [base64.b64decode(one["body"]).decode() for one in messages]
    assert any(str(late) in body for body in bodies)
