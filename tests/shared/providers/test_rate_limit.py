"""The rate limit: all callers together never exceed the calls a second that are set, whatever else happens."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, event

from shared import withdrawals
from shared.db.engines import engine
from shared.errors import Unavailable
from shared.providers import rate_limit
from shared.providers.answers import Throttled
from shared.providers.rate_limit import delay_slots_if_late, wait_for_slot
from shared.providers.registry import provider
from shared.queues import redis_broker
from shared.queues.names import QUEUES
from tests.support import steps
from tests.support.world import World


@pytest.fixture
def paced(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "40")
    world.forget_settings()
    return world


INTERVAL = timedelta(seconds=rate_limit.SLOT_MARGIN / 40)
assert timedelta(microseconds=25875) == INTERVAL  # as in RECORD_SLOTS
# Each slot that is assigned: when it was free, when it was requested, and when the reply was sent. One statement
# may assign several.
RECORD_SLOTS = (
    """CREATE TABLE assigned (free_at timestamptz, next_at timestamptz, asked_at timestamptz, answered_at timestamptz)""",
    """CREATE FUNCTION record_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO assigned
         SELECT CASE WHEN later = number - 1 THEN OLD.next_at ELSE NEW.next_at - (later + 1) * slot END,
                NEW.next_at - later * slot, statement_timestamp(), clock_timestamp()
         FROM (SELECT NEW.calls - OLD.calls AS number, interval '25875 microseconds' AS slot) taken,
              generate_series(0, number - 1) later;
         RETURN NULL;
       END $$""",
    # Only the provider's slots: not the usage statistics, and not the slots of hints.
    """CREATE TRIGGER record_slot AFTER UPDATE ON pace FOR EACH ROW
       WHEN (NEW.name = 'razorpayx' AND NEW.calls > OLD.calls) EXECUTE FUNCTION record_slot()""",
)


@pytest.fixture
def recorded(paced: World) -> World:
    """Record slots by the database's clock, because a busy machine may read a slot late."""
    paced.altered = True
    for statement in RECORD_SLOTS:
        paced.sql(statement)
    return paced


def assigned_slots(world: World) -> list[Row[Any]]:
    return world.sql("SELECT * FROM assigned ORDER BY next_at")


def max_in_a_second(slots: list[Row[Any]]) -> int:
    due = [slot.next_at - INTERVAL for slot in slots]
    second = timedelta(seconds=1)
    return max(sum(first <= later < first + second for later in due[n:]) for n, first in enumerate(due))


def take_slots(number: int) -> list[float]:
    """Take `number` slots concurrently; returns when each was due, by our clock."""

    def take(_: int) -> float:
        slot = wait_for_slot(provider().code, 30)
        assert slot is not None and slot <= time.monotonic(), "no call goes before its slot"
        return slot

    with ThreadPoolExecutor(8) as threads:
        return sorted(threads.map(take, range(number)))


def test_concurrent_callers_get_slots_one_interval_apart(recorded: World) -> None:
    wall = time.time() - time.monotonic()
    due = take_slots(70)
    slots = assigned_slots(recorded)
    assert len(slots) == 70 and max_in_a_second(slots) <= 40
    for slot, ours in zip(slots, due, strict=True):
        theirs = slot.next_at - INTERVAL
        # A slot starts when the one before it ends, or later if no caller asked before.
        assert theirs == slot.free_at or (
            slot.free_at < theirs and slot.asked_at <= theirs <= slot.answered_at
        )
        assert ours > theirs.timestamp() - wall - 0.002


def test_there_is_no_burst_after_an_idle_hour(recorded: World) -> None:
    take_slots(5)
    recorded.sql("UPDATE pace SET next_at = now() - interval '1 hour'")
    recorded.sql("DELETE FROM assigned")
    take_slots(50)
    assert len(assigned_slots(recorded)) == 50 and max_in_a_second(assigned_slots(recorded)) <= 40


def delay_after_late_call(world: World, late_seconds: float) -> float:
    before = world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at
    now = time.monotonic()
    with pytest.MonkeyPatch.context() as frozen:  # on a busy machine the call would be later than stated
        frozen.setattr(time, "monotonic", lambda: now)
        delay_slots_if_late(provider().code, now - late_seconds)
    return (
        world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at - before
    ).total_seconds()


def test_a_late_call_delays_the_next_slots_by_one_interval_at_most(paced: World) -> None:
    assert wait_for_slot(provider().code, 1) is not None
    interval = rate_limit.SLOT_MARGIN / 40
    assert delay_after_late_call(paced, 0.5) == pytest.approx(interval, abs=1e-4)
    late = rate_limit.LATE_TOLERANCE_SECONDS + 0.001
    assert delay_after_late_call(paced, late) == pytest.approx(late, abs=1e-4) and late < interval


def test_a_late_call_delays_the_next_slots_even_when_all_near_slots_are_assigned(paced: World) -> None:
    """Otherwise another process would take the next one too early, and this process would wait for ever."""
    paced.sql(f"UPDATE pace SET next_at = now() + interval '{rate_limit.MAX_AHEAD_SECONDS + 5} s'")
    assert wait_for_slot(provider().code, 0) is None
    assert delay_after_late_call(paced, 0.5) == pytest.approx(rate_limit.SLOT_MARGIN / 40, abs=1e-4)
    with pytest.MonkeyPatch.context() as busy:  # another thread asks for a slot when the late call ends
        busy.setattr(rate_limit, "_counter", rate_limit._Counter())
        with rate_limit._counter._serving:
            assert delay_after_late_call(paced, 0.5) == 0
        before = next_slot(paced)
        assert wait_for_slot(provider().code, 0) is None
        assert (next_slot(paced) - before).total_seconds() == pytest.approx(
            rate_limit.SLOT_MARGIN / 40, abs=1e-4
        )


def test_threads_that_wait_for_a_slot_do_not_ask_the_database_all_the_time(paced: World) -> None:
    paced.sql("UPDATE pace SET next_at = now() + interval '30 seconds'")
    asked: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        asked.append(statement)

    event.listen(engine(), "before_cursor_execute", listen)
    try:
        with ThreadPoolExecutor(16) as threads:
            slots = list(threads.map(lambda _: wait_for_slot(provider().code, 1), range(16)))
    finally:
        event.remove(engine(), "before_cursor_execute", listen)
    assert slots == [None] * 16
    # Each thread once, and then one of them for all, as often as slots may have been brought back.
    assert len(asked) <= 16 + 2 / rate_limit.MAX_AHEAD_SECONDS


def test_a_call_on_time_delays_nothing(paced: World) -> None:
    assert wait_for_slot(provider().code, 1) is not None
    assert delay_after_late_call(paced, 0) == 0


@pytest.mark.failure(16)
def test_a_call_without_a_slot_in_time_is_not_made_and_not_counted_as_a_failure(paced: World) -> None:
    paced.credit()
    send = paced.first_send()
    paced.sql("UPDATE pace SET next_at = now() + interval '30 seconds'")
    assert wait_for_slot(provider().code, 0.1) is None
    before = len(paced.simulator.calls())
    steps.record_answer(send, Throttled("paced", "Too many calls wait for the rate limit"))
    assert len(paced.simulator.calls()) == before
    assert paced.read(send.withdrawal_id).status_reason == "paced"
    paced.sql("UPDATE pace SET next_at = now()")
    assert paced.finish(send.withdrawal_id) == "completed"
    assert len(paced.attempts(send.withdrawal_id)) == 1


def test_without_the_database_no_call_is_made(paced: World, monkeypatch: pytest.MonkeyPatch) -> None:
    paced.point_database_at_nothing(monkeypatch)
    with pytest.raises(Unavailable):
        wait_for_slot(provider().code, 1)
    paced.point_database_back(monkeypatch)


def test_wiping_redis_causes_no_burst(recorded: World) -> None:
    take_slots(30)
    withdrawals.sweep()
    redis_broker.client().delete(*QUEUES)
    take_slots(30)
    assert len(assigned_slots(recorded)) == 60 and max_in_a_second(assigned_slots(recorded)) <= 40


def test_the_slot_margin_costs_less_than_five_percent() -> None:
    assert 1.0 < rate_limit.SLOT_MARGIN < 1.05
    assert rate_limit.LATE_TOLERANCE_SECONDS < rate_limit.SLOT_MARGIN - 1


def test_a_slot_that_a_wrong_clock_put_far_ahead_stops_no_call(paced: World) -> None:
    paced.sql("UPDATE pace SET next_at = now() + interval '1 hour'")
    assert wait_for_slot(provider().code, 1) is not None
    assert paced.sql(
        "SELECT next_at < now() + interval '1 second' AS is_near FROM pace WHERE name = 'razorpayx'"
    )[0].is_near


# --- backoff after a 429


def seconds_to_next_slot(world: World) -> float:
    ahead = "SELECT extract(epoch FROM next_at - clock_timestamp())::float8 AS s FROM pace"
    return world.sql(f"{ahead} WHERE name = 'razorpayx'")[0].s  # type: ignore[no-any-return]


def next_slot(world: World) -> datetime:
    at: datetime = world.sql("SELECT next_at FROM pace WHERE name = 'razorpayx'")[0].next_at
    return at


def assert_backoff(world: World, seconds: float, *, since: datetime) -> datetime:
    """Check that a backoff of `seconds` began after `since`; returns its end."""
    until = next_slot(world)
    now = world.clock()
    assert (until - now).total_seconds() <= seconds <= (until - since).total_seconds()
    return until


def test_after_a_429_all_workers_back_off(world: World) -> None:
    world.credit()
    send = world.first_send()
    world.simulator.scenario("429", next=1)  # with Retry-After: 1
    before = world.clock()
    assert isinstance(world.perform(send), Throttled)
    assert_backoff(world, 1, since=before)
    started = time.monotonic()
    seconds_left = seconds_to_next_slot(world)
    assert wait_for_slot(provider().code, 5) is not None
    assert time.monotonic() - started > seconds_left - 0.1


@pytest.mark.parametrize(("requested", "expected"), [(None, 1), (20, 20), (3600, 60)])
@pytest.mark.parametrize("next_at", ["now()", "now() + interval '1 day'"])
def test_the_backoff_lasts_as_long_as_requested_within_bounds(
    world: World, requested: float | None, expected: float, next_at: str
) -> None:
    """Also if a wrong clock wrote the next slot; and a backoff is never taken for a wrong clock."""
    world.sql(f"UPDATE pace SET next_at = {next_at}")
    before = world.clock()
    rate_limit.back_off(provider().code, requested)
    until = assert_backoff(world, expected, since=before)
    rate_limit.back_off(provider().code, 0.1)  # a shorter request does not shorten it
    assert next_slot(world) >= until
    assert wait_for_slot(provider().code, 0) is None or world.clock() >= until
    assert rate_limit.IMPLAUSIBLE_SECONDS > 60 + 10  # late calls delay a little more


def test_without_a_429_there_is_no_backoff(world: World) -> None:
    world.credit()
    send = world.first_send()
    world.perform(send)
    assert seconds_to_next_slot(world) < 0.5


def test_during_a_backoff_nothing_is_claimed_and_withdrawals_can_be_cancelled(world: World) -> None:
    world.credit()
    cancelled, paid = world.request(), world.request()
    world.advance(11)
    rate_limit.back_off(provider().code, 30)
    assert steps.claim(paid) is None
    assert withdrawals.sweep().submits == 0
    assert world.read(paid).status == "pending"
    withdrawals.cancel(cancelled, reason="tired of waiting", actor="app:test")
    world.advance(30)
    assert withdrawals.sweep().submits == 1
    assert world.finish(paid) == "completed"


def test_a_recheck_of_a_paid_withdrawal_waits_for_the_end_of_the_backoff_too(world: World) -> None:
    """Otherwise it would occupy a thread that has webhooks to apply, and be lost for a day."""
    withdrawal_id = world.paid()
    world.sql("UPDATE payout_attempts SET recheck_at = now()")
    due = world.attempts(withdrawal_id)[0].recheck_at
    rate_limit.back_off(provider().code, 60)
    assert steps.claim(withdrawal_id) is None
    assert world.attempts(withdrawal_id)[0].recheck_at == due
    world.advance()
    assert steps.claim(withdrawal_id) is not None


def test_a_low_rate_limit_is_not_a_backoff(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYOUTS_PER_SECOND", "0.1")
    world.forget_settings()
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    assert wait_for_slot(provider().code, 0) is not None
    assert seconds_to_next_slot(world) > rate_limit.BACKLOG_SECONDS
    assert steps.claim(withdrawal_id) is not None
