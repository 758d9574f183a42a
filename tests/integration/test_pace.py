"""Turns: never more calls in a second than set, whoever takes them, whatever else is going on."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared import pace, queues, withdrawals
from shared.errors import Unavailable
from shared.pace import has_left, wait_for_turn
from shared.razorpayx.answers import Throttled
from tests.world import World


@pytest.fixture
def paced(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "40")
    world.forget_settings()
    return world


def most_in_a_second(moments: list[float]) -> int:
    moments = sorted(moments)
    return max(sum(first <= later < first + 1.0 for later in moments[n:]) for n, first in enumerate(moments))


def turns(number: int) -> list[float]:
    def take(_: int) -> float:
        turn = wait_for_turn(30)
        assert turn is not None
        return turn

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(take, range(number)))


def test_turns_are_apart_however_many_ask(paced: World) -> None:
    due = sorted(turns(70))
    assert most_in_a_second(due) <= 40
    assert (len(due) - 1) / (due[-1] - due[0]) > 0.95 * 40


def test_after_a_rest_there_is_no_burst(paced: World) -> None:
    turns(5)
    paced.sql("UPDATE pace SET next_at = now() - interval '1 hour'")
    assert most_in_a_second(turns(50)) <= 40


def pushed_by(world: World, late_seconds: float) -> float:
    before = world.sql("SELECT next_at FROM pace")[0].next_at
    has_left(time.monotonic() - late_seconds)
    return (world.sql("SELECT next_at FROM pace")[0].next_at - before).total_seconds()


def test_a_call_that_leaves_late_pushes_the_next_ones_back_by_a_turn_at_most(paced: World) -> None:
    assert wait_for_turn(1) is not None
    turn = pace.SPARE / 40
    assert pushed_by(paced, 0.5) == pytest.approx(turn, abs=1e-4)
    assert 0 < pushed_by(paced, pace.LATE_SECONDS + turn / 2) < turn


def test_a_call_in_time_pushes_nothing(paced: World) -> None:
    assert wait_for_turn(1) is not None
    assert pushed_by(paced, 0) == 0


@pytest.mark.failure(16)
def test_who_has_no_patience_is_not_called_and_nothing_is_counted_as_failure(paced: World) -> None:
    paced.credit()
    send = paced.first_send()
    paced.sql("UPDATE pace SET next_at = now() + interval '30 seconds'")
    assert wait_for_turn(0.1) is None
    before = len(paced.simulator.calls())
    withdrawals.record_answer(send, Throttled("paced", "Too many calls wait for their turn"))
    assert len(paced.simulator.calls()) == before
    assert paced.read(send.withdrawal_id).status_reason == "paced"
    paced.sql("UPDATE pace SET next_at = now()")
    assert paced.finish(send.withdrawal_id) == "completed"
    assert len(paced.attempts(send.withdrawal_id)) == 1


def test_without_the_database_nobody_calls(paced: World, monkeypatch: pytest.MonkeyPatch) -> None:
    paced.point_database_at_nothing(monkeypatch)
    with pytest.raises(Unavailable):
        wait_for_turn(1)
    paced.point_database_back(monkeypatch)


def test_a_wiped_redis_lets_no_burst_through(paced: World) -> None:
    due = turns(30)
    withdrawals.sweep()
    queues.broker().delete(*queues.QUEUES)
    due += turns(30)
    assert most_in_a_second(due) <= 40


def test_the_spare_time_costs_less_than_a_twentieth() -> None:
    assert 1.0 < pace.SPARE < 1.05
    assert pace.LATE_SECONDS < pace.SPARE - 1


def test_a_turn_of_a_clock_that_was_ahead_stops_nobody(paced: World) -> None:
    paced.sql("UPDATE pace SET next_at = now() + interval '1 hour'")
    assert wait_for_turn(1) is not None
    assert paced.sql("SELECT next_at < now() + interval '1 second' AS is_near FROM pace")[0].is_near
