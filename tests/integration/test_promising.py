"""By when a withdrawal in a burst is expected: what the pace will really do, and no promise for what is stuck."""

from uuid import UUID

import pytest

from shared import checks, db, gauge_questions, pace, watching, withdrawals
from shared.states import WAITING, Reason
from tests.world import World

MINUTE = 60
NEW_PAYEES = 25  # so many that with one call for each the last ones would be late
SECONDS_A_CALL = 2.0


@pytest.fixture
def slow(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pace at which each call takes two seconds. The calls themselves wait for nothing: see `calls`."""
    monkeypatch.setenv("PAYOUTS_PER_SECOND", str(1 / SECONDS_A_CALL))
    world.forget_settings()
    world.sql("UPDATE switches SET is_on = true")
    return world


def time_passes(world: World, seconds: float) -> None:
    """For what waits, for what was promised, and for the pace."""
    world.advance(seconds)
    for table, column in (
        ("withdrawals", "expected_by"),
        ("withdrawals", "trying_since"),
        ("pace", "sampled_at"),
    ):
        world.sql(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)", s=seconds)


def brought_on(world: World, withdrawal_id: UUID) -> None:
    """A worker's message; its calls take their time by the world's clock, and none by ours."""
    before = calls(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: world.sql("UPDATE pace SET next_at = now()"))
        world.bring_on(withdrawal_id)
    made = calls(world) - before
    world.sql("UPDATE pace SET next_at = now()")
    time_passes(world, made * SECONDS_A_CALL * pace.SPARE)


def calls(world: World) -> int:
    return int(world.sql("SELECT calls FROM pace WHERE name = 'razorpayx'")[0].calls)


def burst(world: World, number: int = NEW_PAYEES) -> list[UUID]:
    """New payees at one time, due and swept once: they are told until when."""
    ids = []
    for n in range(number):
        world.credit(user_id=f"user{n}")
        ids.append(world.request(user_id=f"user{n}", upi_id=f"user{n}@okaxis"))
    time_passes(world, 30)
    withdrawals.sweep()
    assert {world.read(one).status_reason for one in ids} == {Reason.PACED}
    return ids


def late(world: World) -> float:
    with db.transaction() as session:
        return float(session.execute(gauge_questions.LATENESS).one().seconds)


def left_lying(world: World) -> list[str]:
    """What `payouts check` would say of promise 6."""
    return [row[0] for check in checks.CHECKS if check.promise == 6 for row in world.sql(check.sql)]


def test_in_a_burst_of_new_payees_nobody_is_late_while_the_pace_is_kept(slow: World) -> None:
    for withdrawal_id in burst(slow):
        brought_on(slow, withdrawal_id)
        slow.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE status = 'processing'")
        assert watching.warn_of_overdue() == 0
        assert late(slow) < 60, "PayoutsStuck would say that nobody takes them"
        if calls(slow) == 3 * (NEW_PAYEES - 1):  # one is left, after the longest wait
            slow.sql(
                "UPDATE withdrawals SET due_at = due_at - interval '10 minutes' WHERE status = 'pending'"
            )
            assert not left_lying(slow)
    assert calls(slow) == 3 * NEW_PAYEES


def test_the_one_that_is_stuck_in_a_burst_becomes_overdue(slow: World) -> None:
    stuck, *others = burst(slow, 6)
    for withdrawal_id in others:
        brought_on(slow, withdrawal_id)
        withdrawals.sweep()
    time_passes(slow, MINUTE)
    withdrawals.sweep()
    assert watching.warn_of_overdue() == 1
    [record] = slow.sql("SELECT withdrawal_id FROM exception_records WHERE kind = 'overdue'")
    assert record.withdrawal_id == stuck
    assert late(slow) > MINUTE


def test_where_nobody_works_all_of_a_burst_becomes_overdue(slow: World) -> None:
    ids = burst(slow, 5)
    for _ in range(10):
        time_passes(slow, MINUTE)
        withdrawals.sweep()
    assert watching.warn_of_overdue() == len(ids)
    assert late(slow) > 5 * MINUTE


def test_a_burst_that_nobody_works_on_is_late_before_its_promise_is_over(slow: World) -> None:
    """Told for half an hour from now, and not one call is made."""
    burst(slow)
    time_passes(slow, 3 * MINUTE)
    assert late(slow) == pytest.approx(3 * MINUTE + 30, abs=20)


def test_known_payees_are_promised_one_call_and_new_ones_three(slow: World) -> None:
    slow.credit()
    first = slow.request(coins=100)
    time_passes(slow, 30)
    brought_on(slow, first)
    known = slow.request(coins=100)
    time_passes(slow, 30)
    withdrawals.sweep()
    told = "SELECT extract(epoch FROM expected_by - updated_at)::float8 AS s FROM withdrawals WHERE id = :id"
    one_call = slow.sql(told, id=known)[0].s
    slow.credit(user_id="another")
    new = slow.request(user_id="another", upi_id="another@okaxis")
    time_passes(slow, 30)
    withdrawals.sweep()
    four_calls = slow.sql(told, id=new)[0].s
    assert four_calls - one_call == pytest.approx(3 * 1.25 * SECONDS_A_CALL * pace.SPARE, abs=0.2)


def test_one_users_many_are_promised_a_time_behind_everybodys(
    slow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYOUTS_PER_USER", "2")
    slow.forget_settings()
    slow.credit(coins=100_000)
    many = [slow.request(coins=100) for _ in range(20)]
    slow.credit(user_id="another")
    single = slow.request(user_id="another", upi_id="another@okaxis")
    time_passes(slow, 30)
    withdrawals.sweep()
    expected = {one: slow.read(one).expected_by for one in (*many, single)}
    assert expected[many[-1]] > expected[single] > expected[many[1]]  # type: ignore[operator]


@pytest.mark.parametrize(("kept", "overdue"), [(0.4, 0), (0.01, 1)])
def test_whom_others_overtook_is_told_anew_only_while_the_pace_is_kept(
    slow: World, kept: float, overdue: int
) -> None:
    first, second = burst(slow, 2)
    slow.sql("UPDATE withdrawals SET expected_by = now() - interval '1 second' WHERE id = :id", id=second)
    slow.sql("UPDATE pace SET sampled_at = now(), per_second = :kept", kept=kept)
    withdrawals.sweep()
    assert watching.warn_of_overdue() == overdue
    assert slow.read(first).status_reason == Reason.PACED


def test_what_a_pause_held_back_waits_for_its_turn_when_it_is_over(slow: World) -> None:
    """The pause lasted as long as was said; hundreds that go on at once are not late for that."""
    slow.credit()
    withdrawals.pause("payouts", reason="to look", actor="operator:asha")
    waits = slow.request()
    slow.step(waits, seconds=30)
    assert slow.read(waits).status_reason == Reason.PAUSED
    time_passes(slow, WAITING[Reason.PAUSED][1] - MINUTE)
    withdrawals.sweep()
    assert slow.read(waits).status_reason == Reason.PAUSED, "still: nobody tells it of a turn"
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    time_passes(slow, 30)
    withdrawals.sweep()
    assert slow.read(waits).status_reason == Reason.PACED
    time_passes(slow, MINUTE)
    assert watching.warn_of_overdue() == 0


def test_the_pace_is_measured_over_the_last_half_minute(slow: World) -> None:
    slow.sql("UPDATE pace SET calls = 100, sampled_calls = 40, sampled_at = now() - interval '60 seconds'")
    assert pace.measured() == pytest.approx(1.0, abs=0.05)
    slow.sql("UPDATE pace SET calls = 1000")
    assert pace.measured() == pytest.approx(1.0, abs=0.05), "not anew for each who asks"
