"""Scheduled checks: silent webhooks and the balance."""

import json
import time
from uuid import UUID

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.models import CircuitBreaker, ExceptionRecord
from shared.monitoring import watchdog
from shared.withdrawals import circuit_breakers, inbox
from tests.support import steps
from tests.support.world import World

DAY_SECONDS = 86_400


def records(world: World, kind: str) -> list[ExceptionRecord]:
    """The open records of this kind."""
    return world.sql(  # type: ignore[return-value]
        "SELECT * FROM exception_records WHERE kind = :kind AND resolved_at IS NULL", kind=kind
    )


def payouts_switch(world: World) -> CircuitBreaker:
    return world.sql("SELECT *, probe_at <= now() AS is_half_open FROM switches WHERE name = 'payouts'")[0]  # type: ignore[return-value]


def end_without_webhook(world: World, number: int, *, days_ago: float = 0) -> None:
    """Complete payouts without a webhook."""
    for _ in range(number):
        world.paid()
    move_back(world, days_ago * DAY_SECONDS)


def move_back(world: World, seconds: float) -> None:
    """Move all events into the past without the database's rules; `payouts check` would report it."""
    world.broken_on_purpose = True
    world.sql_without_rules(
        f"UPDATE withdrawal_events SET created_at = created_at - interval '{seconds} seconds'"
    )


# --- webhooks


def test_three_recent_results_without_webhooks_do_not_count_as_silence_yet(world: World) -> None:
    end_without_webhook(world, 3)
    assert watchdog.warn_of_silence() is False
    assert records(world, watchdog.WEBHOOKS_SILENT) == []
    move_back(world, 1801)
    assert watchdog.warn_of_silence() is True


def test_silence_is_reported_at_a_low_volume_too(world: World) -> None:
    """One payout a day, and the webhook has been off for a long time."""
    for _ in range(3):
        end_without_webhook(world, 1, days_ago=1.5)
    assert watchdog.warn_of_silence() is True
    assert [record.ours for record in records(world, watchdog.WEBHOOKS_SILENT)] == [
        {"payouts_that_ended_unheard": 3}
    ]


def test_silence_continues_through_a_day_without_payouts(world: World) -> None:
    end_without_webhook(world, 3, days_ago=0.5)
    assert watchdog.warn_of_silence() is True
    move_back(world, 2 * DAY_SECONDS)
    watchdog.warn_of_silence()
    assert len(records(world, watchdog.WEBHOOKS_SILENT)) == 1, "no webhook came"


def test_silence_ends_with_a_webhook_and_not_with_a_longer_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_without_webhook(world, 3, days_ago=0.5)
    watchdog.warn_of_silence()
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", str(2 * DAY_SECONDS))
    world.forget_settings()
    assert watchdog.warn_of_silence() is False
    assert len(records(world, watchdog.WEBHOOKS_SILENT)) == 1
    inbox.receive("event-1", b'{"event": "payout.updated"}')
    watchdog.warn_of_silence()
    assert records(world, watchdog.WEBHOOKS_SILENT) == []


def test_webhook_lag_is_measured_from_the_event_to_its_arrival(world: World) -> None:
    for number in range(3):
        body = {"event": "payout.updated", "created_at": int(time.time()) - 30, "payload": {}}
        inbox.receive(f"event-{number}", json.dumps(body).encode())
        steps.apply(f"event-{number}")
    with transaction() as session:
        stats = watchdog.webhook_stats(session)
    assert stats.lag_p50_seconds == pytest.approx(30, abs=5)
    assert stats.lag_p95_seconds == pytest.approx(30, abs=5)


# --- money


def queue_for_balance(world: World) -> UUID:
    """The payout that paused all others: RazorpayX queues it until the balance is sufficient."""
    world.credit(coins=5000)
    world.simulator.post("balance", {"paise": 0})
    withdrawal_id = world.request()
    world.step(withdrawal_id)
    assert payouts_switch(world).reason.startswith("low_balance")
    return withdrawal_id


def test_a_low_balance_pause_names_the_missing_rupees(world: World) -> None:
    queue_for_balance(world)
    watchdog.record_balance(2000)
    assert payouts_switch(world).reason == "low_balance: ₹30.00 more is needed to pay all pending withdrawals"


def test_the_low_balance_record_has_the_current_amount(world: World) -> None:
    queue_for_balance(world)
    for available, missing in ((2000, 3000), (4500, 500)):
        watchdog.record_balance(available)
        [record] = records(world, "low_balance")
        assert record.ours == {"needed_paise": 5000, "missing_paise": missing}
        assert record.theirs == {"available_paise": available}


def test_a_top_up_allows_one_probe_at_once(world: World) -> None:
    world.credit()
    pending = world.request()
    with transaction() as session:
        circuit_breakers.trip(session, "payouts", reason="low_balance: none", withdrawal_id=pending)
    world.step(pending, seconds=20)
    assert world.read(pending).status_reason == "paused"
    assert not payouts_switch(world).is_half_open  # type: ignore[attr-defined]
    watchdog.record_balance(2000)
    assert not payouts_switch(world).is_half_open  # type: ignore[attr-defined]
    watchdog.record_balance(1_000_000)
    assert payouts_switch(world).is_half_open and not payouts_switch(world).is_on  # type: ignore[attr-defined]


def test_a_top_up_without_pending_withdrawals_ends_the_pause(world: World) -> None:
    withdrawal_id = queue_for_balance(world)
    watchdog.record_balance(1_000_000)
    assert not payouts_switch(world).is_on, "RazorpayX still queues that payout for lack of money"
    world.simulator.post("balance", {"paise": 1_000_000})
    assert world.finish(withdrawal_id) == "completed"
    assert not payouts_switch(world).is_on and records(world, "paused")
    watchdog.record_balance(1_000_000)
    assert payouts_switch(world).is_on
    assert (payouts_switch(world).actor, records(world, "paused")) == ("system", [])


def test_a_top_up_does_not_end_other_pauses(world: World) -> None:
    world.credit()
    withdrawals.pause("payouts", reason="low_balance: I think", actor="operator:asha")
    watchdog.record_balance(1_000_000)
    assert not payouts_switch(world).is_on
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    with transaction() as session:
        circuit_breakers.trip(session, "payouts", reason="no_answers: 10", withdrawal_id=world.request())
    watchdog.record_balance(1_000_000)
    assert not payouts_switch(world).is_on


def test_a_probe_in_progress_ends_the_pause_itself(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    with transaction() as session:
        circuit_breakers.trip(session, "payouts", reason="low_balance: none", withdrawal_id=withdrawal_id)
    world.sql("UPDATE switches SET probe_at = now()")
    assert steps.claim(withdrawal_id) is not None
    watchdog.record_balance(1_000_000)
    assert not payouts_switch(world).is_on
