"""When a withdrawal in a burst is expected: by the real rate of calls, and never extended for a stuck one."""

from uuid import UUID

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.monitoring import gauge_queries, watchdog
from shared.proof import checks
from shared.providers import rate_limit
from shared.providers.registry import provider
from shared.states import WAITING, Reason
from tests.support import steps
from tests.support.world import World

MINUTE_SECONDS = 60
NEW_PAYEES = 25  # enough that the last ones would be late if each counted as one call
SECONDS_A_CALL = 2.0


@pytest.fixture
def slow(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A rate limit at which each call takes two seconds. The calls do not really wait: see `work_on`."""
    monkeypatch.setenv("PAYOUTS_PER_SECOND", str(1 / SECONDS_A_CALL))
    world.forget_settings()
    world.sql("UPDATE switches SET is_on = true")
    return world


def pass_time(world: World, seconds: float) -> None:
    """Move due times, expected times and the rate limit."""
    world.advance(seconds)
    for table, column in (
        ("withdrawals", "expected_by"),
        ("withdrawals", "trying_since"),
        ("pace", "sampled_at"),
    ):
        world.sql(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)", s=seconds)


def work_on(world: World, withdrawal_id: UUID) -> None:
    """One message of a worker; its calls take time on the test's clock only."""
    before = count_calls(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: world.sql("UPDATE pace SET next_at = now()"))
        world.bring_on(withdrawal_id)
    calls = count_calls(world) - before
    world.sql("UPDATE pace SET next_at = now()")
    pass_time(world, calls * SECONDS_A_CALL * rate_limit.SLOT_MARGIN)


def count_calls(world: World) -> int:
    return int(world.sql("SELECT calls FROM pace WHERE name = 'razorpayx'")[0].calls)


def burst(world: World, number: int = NEW_PAYEES) -> list[UUID]:
    """Withdrawals to new payees, due and swept once: each has an expected time."""
    ids = []
    for n in range(number):
        world.credit(user_id=f"user{n}")
        ids.append(world.request(user_id=f"user{n}", upi_id=f"user{n}@okaxis"))
    pass_time(world, 30)
    steps.sweep()
    assert {world.read(withdrawal_id).status_reason for withdrawal_id in ids} == {Reason.PACED}
    return ids


def lateness(world: World) -> float:
    with transaction() as session:
        return float(session.execute(gauge_queries.LATENESS, {"provider": provider().code}).one().seconds)


def unattended(world: World) -> list[str]:
    """The findings of `payouts check` about promise 6."""
    return [row[0] for check in checks.CHECKS if check.promise == 6 for row in world.sql(check.sql)]


def test_in_a_burst_of_new_payees_none_is_late_while_the_rate_is_kept(slow: World) -> None:
    for withdrawal_id in burst(slow):
        work_on(slow, withdrawal_id)
        slow.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE status = 'processing'")
        assert watchdog.warn_of_overdue() == 0
        assert lateness(slow) < 60, "PayoutsStuck would fire"
        if count_calls(slow) == 3 * (NEW_PAYEES - 1):  # one is left, and it waited longest
            slow.sql(
                "UPDATE withdrawals SET due_at = due_at - interval '10 minutes' WHERE status = 'pending'"
            )
            assert not unattended(slow)
    assert count_calls(slow) == 3 * NEW_PAYEES


def test_a_stuck_withdrawal_in_a_burst_becomes_overdue(slow: World) -> None:
    stuck, *others = burst(slow, 6)
    for withdrawal_id in others:
        work_on(slow, withdrawal_id)
        steps.sweep()
    pass_time(slow, MINUTE_SECONDS)
    steps.sweep()
    assert watchdog.warn_of_overdue() == 1
    [record] = slow.sql("SELECT withdrawal_id FROM exception_records WHERE kind = 'overdue'")
    assert record.withdrawal_id == stuck
    assert lateness(slow) > MINUTE_SECONDS


def test_without_workers_all_withdrawals_of_a_burst_become_overdue(slow: World) -> None:
    ids = burst(slow, 5)
    for _ in range(10):
        pass_time(slow, MINUTE_SECONDS)
        steps.sweep()
    assert watchdog.warn_of_overdue() == len(ids)
    assert lateness(slow) > 5 * MINUTE_SECONDS


def test_without_workers_lateness_rises_before_the_expected_time_passes(slow: World) -> None:
    """Expected in half an hour, and no call is made."""
    burst(slow)
    pass_time(slow, 3 * MINUTE_SECONDS)
    assert lateness(slow) == pytest.approx(3 * MINUTE_SECONDS + 30, abs=20)


def test_the_expected_time_counts_one_call_for_known_payees_and_three_for_new_ones(slow: World) -> None:
    slow.credit()
    first = slow.request(coins=100)
    pass_time(slow, 30)
    work_on(slow, first)
    known = slow.request(coins=100)
    pass_time(slow, 30)
    steps.sweep()
    expected_seconds = (
        "SELECT extract(epoch FROM expected_by - updated_at)::float8 AS s FROM withdrawals WHERE id = :id"
    )
    one_call = slow.sql(expected_seconds, id=known)[0].s
    slow.credit(user_id="another")
    new = slow.request(user_id="another", upi_id="another@okaxis")
    pass_time(slow, 30)
    steps.sweep()
    four_calls = slow.sql(expected_seconds, id=new)[0].s
    assert four_calls - one_call == pytest.approx(3 * 1.25 * SECONDS_A_CALL * rate_limit.SLOT_MARGIN, abs=0.2)


def test_the_backlog_of_one_user_is_expected_after_the_withdrawals_of_others(
    slow: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYOUTS_PER_USER", "2")
    slow.forget_settings()
    slow.credit(coins=100_000)
    many = [slow.request(coins=100) for _ in range(20)]
    slow.credit(user_id="another")
    single = slow.request(user_id="another", upi_id="another@okaxis")
    pass_time(slow, 30)
    steps.sweep()
    expected = {key: slow.read(key).expected_by for key in (*many, single)}
    assert expected[many[-1]] > expected[single] > expected[many[1]]  # type: ignore[operator]


@pytest.mark.parametrize(("kept", "overdue"), [(0.4, 0), (0.01, 1)])
def test_an_overtaken_withdrawal_gets_more_time_only_while_the_rate_is_kept(
    slow: World, kept: float, overdue: int
) -> None:
    first, second = burst(slow, 2)
    slow.sql("UPDATE withdrawals SET expected_by = now() - interval '1 second' WHERE id = :id", id=second)
    slow.sql("UPDATE pace SET sampled_at = now(), per_second = :kept", kept=kept)
    steps.sweep()
    assert watchdog.warn_of_overdue() == overdue
    assert slow.read(first).status_reason == Reason.PACED


def test_paused_withdrawals_queue_again_when_the_pause_ends(slow: World) -> None:
    """The pause lasted as long as announced; the hundreds that resume at once are not late."""
    slow.credit()
    withdrawals.pause("payouts", reason="to look", actor="operator:asha")
    paused = slow.request()
    slow.step(paused, seconds=30)
    assert slow.read(paused).status_reason == Reason.PAUSED
    pass_time(slow, WAITING[Reason.PAUSED][1] - MINUTE_SECONDS)
    steps.sweep()
    assert slow.read(paused).status_reason == Reason.PAUSED, "a paused withdrawal is not queued"
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    pass_time(slow, 30)
    steps.sweep()
    assert slow.read(paused).status_reason == Reason.PACED
    pass_time(slow, MINUTE_SECONDS)
    assert watchdog.warn_of_overdue() == 0


def test_the_call_rate_is_measured_over_the_last_half_minute(slow: World) -> None:
    slow.sql("UPDATE pace SET calls = 100, sampled_calls = 40, sampled_at = now() - interval '60 seconds'")
    assert rate_limit.calls_per_second(provider().code) == pytest.approx(1.0, abs=0.05)
    slow.sql("UPDATE pace SET calls = 1000")
    assert rate_limit.calls_per_second(provider().code) == pytest.approx(1.0, abs=0.05), (
        "the sample is not taken anew for each caller"
    )
