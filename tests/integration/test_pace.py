"""Turns: never more calls in a second than set, whoever takes them, whatever else is going on."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row

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


TURN = timedelta(seconds=pace.SPARE / 40)
# Each turn as it is given out: from when it was free, what it was asked for, and when that was answered.
NOTE = (
    """CREATE TABLE given (free_at timestamptz, next_at timestamptz, asked_at timestamptz, answered_at timestamptz)""",
    """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO given VALUES (OLD.next_at, NEW.next_at, statement_timestamp(), clock_timestamp());
         RETURN NULL;
       END $$""",
    # Not what else is written there: how much of the pace is used, and the turns of hints.
    """CREATE TRIGGER note AFTER UPDATE ON pace FOR EACH ROW
       WHEN (NEW.name = 'razorpayx' AND NEW.calls > OLD.calls) EXECUTE FUNCTION note()""",
)


@pytest.fixture
def noted(paced: World) -> World:
    """Turns are compared by the database's clock: how late a busy machine reads of one says nothing of them."""
    paced.altered = True
    for statement in NOTE:
        paced.sql(statement)
    return paced


def given(world: World) -> list[Row[Any]]:
    return world.sql("SELECT * FROM given ORDER BY next_at")


def most_in_a_second(turns: list[Row[Any]]) -> int:
    due = [one.next_at - TURN for one in turns]
    second = timedelta(seconds=1)
    return max(sum(first <= later < first + second for later in due[n:]) for n, first in enumerate(due))


def turns(number: int) -> list[float]:
    """Takes so many; when each was due, by our clock."""

    def take(_: int) -> float:
        turn = wait_for_turn(30)
        assert turn is not None and turn <= time.monotonic(), "nobody goes before their turn"
        return turn

    with ThreadPoolExecutor(8) as threads:
        return sorted(threads.map(take, range(number)))


def test_turns_are_apart_however_many_ask(noted: World) -> None:
    wall = time.time() - time.monotonic()
    due = turns(70)
    made = given(noted)
    assert len(made) == 70 and most_in_a_second(made) <= 40
    for one, ours in zip(made, due, strict=True):
        theirs = one.next_at - TURN
        # None before the one in front of it is over, and none later than that but for want of somebody who asks.
        assert theirs == one.free_at or (one.free_at < theirs and one.asked_at <= theirs <= one.answered_at)
        assert ours > theirs.timestamp() - wall - 0.002


def test_after_a_rest_there_is_no_burst(noted: World) -> None:
    turns(5)
    noted.sql("UPDATE pace SET next_at = now() - interval '1 hour'")
    noted.sql("DELETE FROM given")
    turns(50)
    assert len(given(noted)) == 50 and most_in_a_second(given(noted)) <= 40


def pushed_by(world: World, late_seconds: float) -> float:
    before = world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at
    now = time.monotonic()
    with pytest.MonkeyPatch.context() as frozen:  # on a busy machine it would leave later than we say
        frozen.setattr(time, "monotonic", lambda: now)
        has_left(now - late_seconds)
    return (
        world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at - before
    ).total_seconds()


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


def test_a_wiped_redis_lets_no_burst_through(noted: World) -> None:
    turns(30)
    withdrawals.sweep()
    queues.broker().delete(*queues.QUEUES)
    turns(30)
    assert len(given(noted)) == 60 and most_in_a_second(given(noted)) <= 40


def test_the_spare_time_costs_less_than_a_twentieth() -> None:
    assert 1.0 < pace.SPARE < 1.05
    assert pace.LATE_SECONDS < pace.SPARE - 1


def test_a_turn_of_a_clock_that_was_ahead_stops_nobody(paced: World) -> None:
    paced.sql("UPDATE pace SET next_at = now() + interval '1 hour'")
    assert wait_for_turn(1) is not None
    assert paced.sql(
        "SELECT next_at < now() + interval '1 second' AS is_near FROM pace WHERE name = 'razorpayx'"
    )[0].is_near


# --- patience after a 429


def seconds_to_the_next(world: World) -> float:
    ahead = "SELECT extract(epoch FROM next_at - clock_timestamp())::float8 AS s FROM pace"
    return world.sql(f"{ahead} WHERE name = 'razorpayx'")[0].s  # type: ignore[no-any-return]


def next_turn(world: World) -> datetime:
    at: datetime = world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at
    return at


def assert_held(world: World, seconds: float, *, since: datetime) -> datetime:
    """Somebody asked for so much patience, some time since then; until when it lasts."""
    until, now = next_turn(world), world.clock()
    assert (until - now).total_seconds() <= seconds <= (until - since).total_seconds()
    return until


def test_a_429_makes_all_workers_patient_and_not_only_its_own(world: World) -> None:
    world.credit()
    send = world.first_send()
    world.simulator.scenario("429", next=1)  # says Retry-After: 1
    before = world.clock()
    assert isinstance(world.perform(send), Throttled)
    assert_held(world, 1, since=before)
    began, left = time.monotonic(), seconds_to_the_next(world)
    assert wait_for_turn(5) is not None
    assert time.monotonic() - began > left - 0.1


@pytest.mark.parametrize(("asked", "held"), [(None, 1), (20, 20), (3600, 60)])
@pytest.mark.parametrize("next_at", ["now()", "now() + interval '1 day'"])
def test_patience_is_as_long_as_was_asked_for_within_bounds(
    world: World, asked: float | None, held: float, next_at: str
) -> None:
    """Also when the turns are of a clock that was wrong; and what holds is never taken for such a clock."""
    world.sql(f"UPDATE pace SET next_at = {next_at}")
    before = world.clock()
    pace.hold(asked)
    until = assert_held(world, held, since=before)
    pace.hold(0.1)  # who asks for less takes nothing away
    assert next_turn(world) >= until
    assert wait_for_turn(0) is None or world.clock() >= until
    assert pace.ABSURD_SECONDS > 60 + 10  # calls that leave late push a little


def test_a_calm_provider_that_asks_for_nothing_holds_nobody(world: World) -> None:
    world.credit()
    send = world.first_send()
    world.perform(send)
    assert seconds_to_the_next(world) < 0.5


def test_while_all_are_patient_nothing_is_claimed_and_it_can_be_cancelled(world: World) -> None:
    world.credit()
    cancelled, paid = world.request(), world.request()
    world.advance(11)
    pace.hold(30)
    assert withdrawals.claim(paid) is None
    assert withdrawals.sweep().submits == 0
    assert world.read(paid).status == "pending"
    withdrawals.cancel(cancelled, reason="tired of waiting", actor="app:test")
    world.advance(30)
    assert withdrawals.sweep().submits == 1
    assert world.finish(paid) == "completed"


def test_a_look_at_what_is_paid_waits_for_the_end_of_patience_too(world: World) -> None:
    """Else it would hold a thread that has webhooks to apply, and be lost for a day."""
    withdrawal_id = world.paid()
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    due = world.attempts(withdrawal_id)[0].recheck_at
    pace.hold(60)
    assert withdrawals.claim(withdrawal_id) is None
    assert world.attempts(withdrawal_id)[0].recheck_at == due
    world.advance()
    assert withdrawals.claim(withdrawal_id) is not None


def test_a_slow_pace_is_no_patience(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.1")
    world.forget_settings()
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    assert wait_for_turn(0) is not None
    assert seconds_to_the_next(world) > pace.LONG_SECONDS
    assert withdrawals.claim(withdrawal_id) is not None
