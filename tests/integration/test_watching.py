"""What is looked after by the clock: silence of webhooks, and money."""

import json
import time
from uuid import UUID

import pytest

from shared import db, inbox, switches, watching, withdrawals
from shared.models import ExceptionRecord, Switch
from tests.world import World

DAY = 86_400


def records(world: World, kind: str) -> list[ExceptionRecord]:
    """The open ones."""
    return world.sql(  # type: ignore[return-value]
        "SELECT * FROM exception_records WHERE kind = :kind AND resolved_at IS NULL", kind=kind
    )


def payouts(world: World) -> Switch:
    return world.sql("SELECT *, probe_at <= now() AS is_half_open FROM switches WHERE name = 'payouts'")[0]  # type: ignore[return-value]


def unheard(world: World, number: int, *, days_ago: float = 0) -> None:
    """Payouts that end and no webhook says so."""
    for _ in range(number):
        world.paid()
    age(world, days_ago * DAY)


def age(world: World, seconds: float) -> None:
    """Events are written once: their clock is moved past the database's rules, which `payouts check` sees."""
    world.broken_on_purpose = True
    world.sql_without_rules(
        f"UPDATE withdrawal_events SET created_at = created_at - interval '{seconds} seconds'"
    )


# --- webhooks


def test_three_ends_of_just_now_are_no_silence_yet(world: World) -> None:
    unheard(world, 3)
    assert watching.warn_of_silence() is False
    assert records(world, watching.SILENT) == []
    age(world, 1801)
    assert watching.warn_of_silence() is True


def test_a_small_shop_is_told_of_silence_too(world: World) -> None:
    """One payout a day, and the webhook is off since long ago."""
    for _ in range(3):
        unheard(world, 1, days_ago=1.5)
    assert watching.warn_of_silence() is True
    assert [record.ours for record in records(world, watching.SILENT)] == [{"payouts_that_ended_unheard": 3}]


def test_silence_goes_on_through_a_quiet_day(world: World) -> None:
    unheard(world, 3, days_ago=0.5)
    assert watching.warn_of_silence() is True
    age(world, 2 * DAY)
    watching.warn_of_silence()
    assert len(records(world, watching.SILENT)) == 1, "no webhook came"


def test_silence_ends_with_a_webhook_and_not_with_more_patience(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard(world, 3, days_ago=0.5)
    watching.warn_of_silence()
    monkeypatch.setenv("WEBHOOK_SILENCE_SECONDS", str(2 * DAY))
    world.forget_settings()
    assert watching.warn_of_silence() is False
    assert len(records(world, watching.SILENT)) == 1
    inbox.receive("event-1", b'{"event": "payout.updated"}')
    watching.warn_of_silence()
    assert records(world, watching.SILENT) == []


def test_the_lag_of_webhooks_is_measured_from_the_event_to_our_door(world: World) -> None:
    for number in range(3):
        body = {"event": "payout.updated", "created_at": int(time.time()) - 30, "payload": {}}
        inbox.receive(f"event-{number}", json.dumps(body).encode())
        inbox.apply(f"event-{number}")
    with db.transaction() as session:
        told = watching.webhooks(session)
    assert told.lag_p50_seconds == pytest.approx(30, abs=5)
    assert told.lag_p95_seconds == pytest.approx(30, abs=5)


# --- money


def queued_for_money(world: World) -> UUID:
    """The payout that paused all others: RazorpayX keeps it until there is money."""
    world.credit(coins=5000)
    world.simulator.post("balance", {"paise": 0})
    withdrawal_id = world.request()
    world.step(withdrawal_id)
    assert payouts(world).reason.startswith("low_balance")
    return withdrawal_id


def test_a_pause_for_want_of_money_names_the_missing_rupees(world: World) -> None:
    queued_for_money(world)
    watching.learn_balance(2000)
    assert payouts(world).reason == "low_balance: ₹30.00 is missing to pay all that waits"


def test_the_record_of_missing_money_tells_todays_sum(world: World) -> None:
    queued_for_money(world)
    for available, missing in ((2000, 3000), (4500, 500)):
        watching.learn_balance(available)
        [record] = records(world, "low_balance")
        assert record.ours == {"needed_paise": 5000, "missing_paise": missing}
        assert record.theirs == {"available_paise": available}


def test_once_there_is_money_one_of_those_held_back_may_try_at_once(world: World) -> None:
    world.credit()
    waits = world.request()
    with db.transaction() as session:
        switches.trip(session, "payouts", reason="low_balance: none", withdrawal_id=waits)
    world.step(waits, seconds=20)
    assert world.read(waits).status_reason == "paused"
    assert not payouts(world).is_half_open  # type: ignore[attr-defined]
    watching.learn_balance(2000)
    assert not payouts(world).is_half_open  # type: ignore[attr-defined]
    watching.learn_balance(1_000_000)
    assert payouts(world).is_half_open and not payouts(world).is_on  # type: ignore[attr-defined]


def test_money_that_comes_while_nobody_waits_ends_the_pause(world: World) -> None:
    withdrawal_id = queued_for_money(world)
    watching.learn_balance(1_000_000)
    assert not payouts(world).is_on, "RazorpayX still keeps that one for want of money"
    world.simulator.post("balance", {"paise": 1_000_000})
    assert world.finish(withdrawal_id) == "completed"
    assert not payouts(world).is_on and records(world, "paused")
    watching.learn_balance(1_000_000)
    assert payouts(world).is_on
    assert (payouts(world).actor, records(world, "paused")) == ("system", [])


def test_money_says_nothing_about_a_pause_of_people_or_of_another_kind(world: World) -> None:
    world.credit()
    withdrawals.pause("payouts", reason="low_balance: I think", actor="operator:asha")
    watching.learn_balance(1_000_000)
    assert not payouts(world).is_on
    withdrawals.resume("payouts", reason="seen", actor="operator:asha")
    with db.transaction() as session:
        switches.trip(session, "payouts", reason="no_answers: 10", withdrawal_id=world.request())
    watching.learn_balance(1_000_000)
    assert not payouts(world).is_on


def test_a_probe_under_way_ends_the_pause_itself(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    with db.transaction() as session:
        switches.trip(session, "payouts", reason="low_balance: none", withdrawal_id=withdrawal_id)
    world.sql("UPDATE switches SET probe_at = now()")
    assert withdrawals.claim(withdrawal_id) is not None
    watching.learn_balance(1_000_000)
    assert not payouts(world).is_on
