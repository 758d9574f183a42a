"""Switches: people and the system stop payouts, nothing is sent meanwhile, and nothing is lost by it."""

from uuid import UUID

import pytest
from sqlalchemy import text

from sandbox.processes import wait_until
from shared import db, exception_records, switches, withdrawals
from shared.errors import NotFound
from shared.razorpayx.answers import Refused, Throttled
from shared.settings import settings
from shared.states import Decision
from shared.steps import Prepare
from shared.withdrawals import pausing
from tests.world import World

BANK_IS_AWAY = "beneficiary_psp_offline"


def creates(world: World) -> int:
    return len(world.simulator.calls())


def switch(world: World, name: str = switches.PAYOUTS) -> switches.Switch:
    with db.transaction() as session:
        found = [one for one in switches.listing(session) if one.name == name]
    return found[0]


def open_records(world: World, kind: str) -> int:
    with db.transaction() as session:
        return sum(record.kind == kind for record in exception_records.listing(session))


def to(world: World, handle: str) -> UUID:
    return world.request(coins=100, upi_id=f"asha{len(world.sql('SELECT FROM withdrawals'))}@{handle}")


def fails_once(world: World, upi_id: str) -> None:
    """One payout to `upi_id` that the provider takes and that fails."""
    withdrawal_id = world.request(coins=100, upi_id=upi_id)
    world.step(withdrawal_id)
    reference = str(world.attempts(withdrawal_id)[0].id)
    wait_until(lambda: world.simulator.payouts(reference)[0]["status"] == "failed", 5)
    world.step(withdrawal_id)


@pytest.fixture
def rich(world: World) -> World:
    world.credit(coins=100_000)
    return world


def test_while_all_is_paused_nothing_is_sent_and_it_says_so(rich: World) -> None:
    withdrawals.pause(switches.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = rich.request()
    for _ in range(3):
        assert rich.step(withdrawal_id) == "pending"
    row = rich.read(withdrawal_id)
    assert (row.status_reason, row.expected_by is not None) == ("paused", True)
    assert creates(rich) == len(rich.simulator.calls(path="/v1/contacts")) == 0


def test_a_user_can_cancel_what_is_paused(rich: World) -> None:
    withdrawals.pause(switches.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = rich.request(coins=500)
    rich.step(withdrawal_id)
    _, balance = withdrawals.cancel(withdrawal_id, reason="tired of waiting", actor="app:test")
    assert balance == 100_000


def test_the_end_of_a_pause_makes_everything_due_at_once(rich: World) -> None:
    withdrawals.pause(switches.PAYOUTS, reason="bank holiday", actor="operator:asha")
    ids = [rich.request() for _ in range(3)]
    for withdrawal_id in ids:
        rich.step(withdrawal_id)
    withdrawals.resume(switches.PAYOUTS, reason="it is over", actor="operator:ravi")
    assert rich.sql("SELECT count(*) AS n FROM withdrawals WHERE due_at <= now()")[0].n == 3
    assert [rich.finish(withdrawal_id) for withdrawal_id in ids] == ["completed"] * 3


def test_a_pause_of_people_is_not_probed(rich: World) -> None:
    withdrawals.pause(switches.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = rich.request()
    for _ in range(5):
        rich.step(withdrawal_id, seconds=90_000)
    assert not switch(rich).is_on and creates(rich) == 0


def test_a_missing_switch_is_off(rich: World) -> None:
    rich.sql("DELETE FROM switches")
    withdrawal_id = rich.request()
    assert rich.step(withdrawal_id) == "pending"
    assert rich.read(withdrawal_id).status_reason == "paused"
    assert creates(rich) == 0


def test_what_may_have_been_paid_is_looked_up_during_a_pause_and_not_sent_again(rich: World) -> None:
    rich.simulator.scenario("drop", default=True)
    send = rich.first_send()
    withdrawals.record_answer(send, rich.perform(send))
    withdrawals.pause(switches.PAYOUTS, reason="to look", actor="operator:asha")
    assert rich.finish(send.withdrawal_id) == "completed"
    assert creates(rich) == 1
    assert rich.simulator.calls("GET")


def test_what_was_throttled_waits_through_a_pause(rich: World) -> None:
    rich.simulator.scenario("429", default=True)
    send = rich.first_send()
    withdrawals.record_answer(send, rich.perform(send))
    withdrawals.pause(switches.PAYOUTS, reason="to look", actor="operator:asha")
    assert rich.step(send.withdrawal_id) == "processing"
    assert (rich.read(send.withdrawal_id).status_reason, creates(rich)) == ("paused", 1)
    withdrawals.resume(switches.PAYOUTS, reason="seen", actor="operator:asha")
    assert rich.finish(send.withdrawal_id) == "completed"


def test_one_handle_is_paused_and_the_others_go_on(rich: World) -> None:
    withdrawals.pause("handle:okaxis", reason="their night", actor="operator:asha")
    waits, goes = to(rich, "OKAXIS"), to(rich, "ybl")
    assert (rich.step(waits), rich.finish(goes)) == ("pending", "completed")
    assert rich.read(waits).status_reason == "handle_paused"
    withdrawals.resume("handle:okaxis", reason="morning", actor="operator:asha")
    assert rich.finish(waits) == "completed"


def test_resuming_what_was_never_paused_is_a_clear_error(rich: World) -> None:
    with pytest.raises(NotFound):
        withdrawals.resume("handle:nobody", reason="oops", actor="operator:asha")


@pytest.mark.parametrize("scenario", ["401", "refuse.ip", "refuse.account_number", "refuse.url"])
def test_a_refusal_of_us_pauses_everything_with_its_reason(rich: World, scenario: str) -> None:
    rich.simulator.scenario(scenario, next=1)
    rich.step(rich.request())
    assert not switch(rich).is_on
    assert switch(rich).reason.startswith("provider_refuses_us: ")
    assert (switch(rich).actor, open_records(rich, "paused")) == ("system", 1)
    before = creates(rich)
    waits = rich.request()
    rich.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=waits)
    rich.bring_on(waits)
    assert rich.read(waits).status_reason == "paused"
    assert creates(rich) == before


@pytest.mark.failure(26)
@pytest.mark.usefixtures("people")
def test_a_payee_who_provokes_refusals_is_set_aside_while_others_are_paid(rich: World) -> None:
    rich.paid()
    rich.simulator.scenario("refuse.mode", vpa="bad@okaxis")
    bad = rich.request(coins=100, upi_id="bad@okaxis")
    rich.step(bad)
    assert (rich.read(bad).status_reason, switch(rich).is_on) == ("provider_refuses_us", True)
    rich.paid()
    rich.step(bad)
    row = rich.read(bad)
    assert (row.status, row.review, switch(rich).is_on) == ("processing", "held:refused_alone", True)
    assert (open_records(rich, "held:refused_alone"), rich.refunds(bad)) == (1, 0)
    rich.paid()
    held = withdrawals.propose(bad, Decision.REFUND, evidence="Razorpay: not a UPI id", actor="operator:asha")
    withdrawals.approve(held.id, actor="operator:ravi")
    assert (rich.read(bad).status, rich.refunds(bad)) == ("failed", 1)


def test_a_refused_payee_pauses_a_quiet_system_once_and_is_no_probe_while_another_waits(rich: World) -> None:
    rich.simulator.scenario("refuse.mode", vpa="bad@okaxis")
    bad = rich.request(coins=100, upi_id="bad@okaxis")
    rich.step(bad)
    assert switch(rich).reason.startswith("provider_refuses_us: Payout mode is not valid")
    goes = rich.request(coins=100)
    rich.advance()
    rich.sql("UPDATE switches SET probe_at = now() + interval '1 minute' WHERE NOT is_on")
    rich.bring_on(goes)
    rich.step(bad)
    assert (rich.read(bad).status_reason, creates(rich)) == ("paused", 1)
    rich.sql("UPDATE withdrawals SET due_at = now() + interval '1 hour' WHERE due_at IS NOT NULL")
    withdrawals.sweep()  # wakes one, and not the oldest
    due = rich.sql("SELECT id FROM withdrawals WHERE due_at <= now()")
    assert [row.id for row in due] == [goes]
    rich.bring_on(goes)
    assert switch(rich).is_on
    rich.step(bad)
    assert (rich.read(bad).review, switch(rich).is_on) == ("held:refused_alone", True)


def test_wrong_settings_pause_everything_and_once_mended_all_are_paid(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others passed until a moment ago; then each is refused, and it is nobody's own request."""
    rich.paid()
    mended = settings().razorpayx_account_number
    monkeypatch.setenv("RAZORPAYX_ACCOUNT_NUMBER", "9999999999999999")
    rich.forget_settings()
    ids = [rich.request(coins=100) for _ in range(3)]
    for withdrawal_id in ids:
        rich.step(withdrawal_id)
    assert switch(rich).is_on, "the first refusal of each may be its own"
    rich.step(ids[0])
    assert switch(rich).reason.startswith("provider_refuses_us")
    monkeypatch.setenv("RAZORPAYX_ACCOUNT_NUMBER", mended)
    rich.forget_settings()
    assert [rich.finish(withdrawal_id) for withdrawal_id in ids] == ["completed"] * 3
    assert [row.kind for row in rich.sql("SELECT kind FROM exception_records")] == ["paused"]
    assert "settings_changed" in rich.story(ids[0])


def test_one_probe_at_a_time_and_its_good_end_resumes_all(rich: World) -> None:
    rich.simulator.scenario("401", next=1)
    rich.step(rich.request())
    waiting = [rich.request() for _ in range(4)]
    rich.advance()
    before = creates(rich)
    # Nobody's answer is recorded between these two: the second finds the probe taken.
    probe = withdrawals.claim(waiting[0])
    assert probe is not None and withdrawals.claim(waiting[1]) is None
    assert rich.read(waiting[1]).status_reason == "paused"
    withdrawals.record_answer(probe, rich.perform(probe))
    assert switch(rich).is_on
    assert (creates(rich) - before, open_records(rich, "paused")) == (1, 0)
    assert rich.sql("SELECT count(*) AS n FROM withdrawals WHERE due_at <= now()")[0].n >= 1


def test_a_probe_that_fails_doubles_the_wait(rich: World) -> None:
    rich.simulator.scenario("refuse.ip", default=True)
    waits = []
    for _ in range(4):
        rich.step(rich.request(), seconds=4000)
        waits.append(rich.sql("SELECT extract(epoch FROM probe_at - now()) AS s FROM switches")[0].s)
    assert [round(float(seconds) / 60) for seconds in waits] == [1, 2, 4, 8]
    assert creates(rich) == 4


def test_the_sweep_lets_the_oldest_try_when_a_probe_is_due(rich: World) -> None:
    rich.simulator.scenario("401", next=1)
    rich.step(rich.request())
    ids = [rich.request() for _ in range(3)]
    for withdrawal_id in ids:
        rich.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)
        rich.bring_on(withdrawal_id)
    rich.sql("UPDATE switches SET probe_at = now()")
    withdrawals.sweep()
    due = rich.sql("SELECT id FROM withdrawals WHERE due_at <= now() AND status_reason = 'paused'")
    assert [row.id for row in due] == [ids[0]]


def test_waking_one_wakes_one_whatever_postgresql_plans(rich: World) -> None:
    """Statistics of a moment when there was one row make it run the inner query once for each row."""
    withdrawals.pause(switches.PAYOUTS, reason="bank holiday", actor="operator:asha")
    for _ in range(3):
        rich.step(rich.request())
    rich.sql("ANALYZE withdrawals")
    with db.transaction() as session:
        for plan in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            session.execute(text(f"SET LOCAL enable_{plan} = off"))
        assert pausing.wake(session, switches.PAYOUTS, limit=1) == 1


def test_unknowns_in_a_row_pause_and_a_good_answer_between_them_does_not(rich: World) -> None:
    rich.paid()
    for count in range(1, 21):
        rich.simulator.scenario("504.before", next=1) if count != 9 else None
        rich.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL")
        withdrawal_id = rich.request(coins=100)
        rich.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)
        rich.bring_on(withdrawal_id)
        assert switch(rich).is_on == (count < 19), count
    assert switch(rich).reason.startswith("no_answers: 10 in a row")


def test_automatic_pauses_can_be_switched_off(rich: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_PAUSE", "off")
    rich.forget_settings()
    rich.simulator.scenario("refuse.ip", next=1)
    rich.step(rich.request())
    assert switch(rich).is_on


@pytest.mark.failure(17)
def test_a_handle_whose_bank_is_away_waits_while_others_go_on(rich: World) -> None:
    for number in range(5):
        assert switch(rich).is_on
        upi_id = f"asha{number}@okaxis"
        rich.simulator.scenario(f"fail.{BANK_IS_AWAY}", vpa=upi_id)
        fails_once(rich, upi_id)
    assert not switch(rich, "handle:okaxis").is_on
    assert switch(rich, "handle:okaxis").reason.startswith(BANK_IS_AWAY)
    rich.sql("UPDATE switches SET probe_at = now() + interval '1 hour' WHERE NOT is_on")
    waits, goes = rich.request(coins=100, upi_id="ravi@okaxis"), rich.request(coins=100, upi_id="ravi@ybl")
    rich.sql("UPDATE withdrawals SET due_at = now() WHERE id IN (:a, :b)", a=waits, b=goes)
    rich.bring_on(waits)
    rich.bring_on(goes)
    assert (rich.read(waits).status_reason, rich.read(goes).status) == ("handle_paused", "processing")
    # And when its bank is back, the probe that is paid resumes it.
    assert rich.finish(waits) == "completed"
    assert switch(rich, "handle:okaxis").is_on


@pytest.mark.failure(15)
def test_low_balance_pauses_waits_and_goes_on_by_itself(rich: World) -> None:
    rich.simulator.post("balance", {"paise": 0})
    first = rich.request()
    rich.step(first)
    row = rich.read(first)
    assert (row.status, row.status_reason) == ("processing", "provider_queued")
    assert switch(rich).reason.startswith("low_balance")
    assert rich.refunds(first) == 0
    rich.simulator.post("balance", {"paise": 10_000_000})
    assert rich.finish(first) == "completed"
    assert rich.finish(rich.request()) == "completed"
    assert switch(rich).is_on


@pytest.mark.failure(15)
@pytest.mark.parametrize("scenario", ["refuse.insufficient_funds", "fail.insufficient_funds"])
def test_want_of_money_is_ours_to_mend_and_refunds_nobody(rich: World, scenario: str) -> None:
    rich.simulator.scenario(scenario, next=1)
    withdrawal_id = rich.request()
    rich.step(withdrawal_id)
    assert rich.finish(withdrawal_id) == "completed"
    assert rich.refunds(withdrawal_id) == 0
    keys = [payout["idempotency_key"] for payout in rich.simulator.payouts()]
    assert len(keys) == len(set(keys))
    paused = rich.sql("SELECT theirs ->> 'reason' AS why, resolved_by FROM exception_records")
    assert [(row.why, row.resolved_by) for row in paused] == [("low_balance", "system")]


def test_a_reason_that_cannot_be_is_held_for_a_person(rich: World) -> None:
    send = rich.first_send()
    withdrawals.record_answer(send, rich.perform(send))
    payout = rich.simulator.payouts()[0]
    told = {
        "id": payout["id"],
        "status": "failed",
        "amount": payout["amount"],
        "reference_id": payout["reference_id"],
        "status_details": {"reason": "imps_not_allowed", "source": "beneficiary_bank"},
    }
    rich.hears(told)
    rich.simulator.post(f"payouts/{payout['id']}/status", {"status": "failed", "reason": None})
    for _ in range(4):
        assert rich.step(send.withdrawal_id) == "processing"
    assert rich.read(send.withdrawal_id).review == "held:imps_not_allowed"
    assert (creates(rich), rich.refunds(send.withdrawal_id)) == (1, 0)
    assert open_records(rich, "held:imps_not_allowed") == 1


def test_a_network_that_is_down_pauses_all_until_a_probe_is_paid(rich: World) -> None:
    for _ in range(5):
        assert switch(rich).is_on
        rich.simulator.scenario("fail.gateway_down", next=1)
        fails_once(rich, "asha@okaxis")
        rich.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL")
    assert switch(rich, "network").reason.startswith("gateway_down: 5 in a row")
    rich.sql("UPDATE switches SET probe_at = now() + interval '1 day' WHERE NOT is_on")
    waits = rich.request(coins=100)
    rich.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=waits)
    rich.bring_on(waits)
    assert rich.read(waits).status_reason == "paused"
    rich.sql("UPDATE switches SET probe_at = now() WHERE NOT is_on")
    assert rich.finish(waits) == "completed"
    assert switch(rich, "network").is_on


def test_who_cannot_be_sent_for_another_reason_takes_no_probe(rich: World) -> None:
    """Older withdrawals to a paused handle must not be the only ones that try whether all may go on."""
    for n in range(5):
        rich.request(coins=100, upi_id=f"asha{n}@okaxis")
    good = rich.request(coins=100, upi_id="ravi@okhdfcbank")
    rich.advance()
    withdrawals.pause("handle:okaxis", reason="maintenance until Monday", actor="operator:asha")
    with db.transaction() as session:
        switches.trip(session, switches.PAYOUTS, reason="low_balance: none", withdrawal_id=good)
    ids = [row.id for row in rich.sql("SELECT id FROM withdrawals ORDER BY created_at")]
    for one in ids:
        rich.bring_on(one)
    rich.sql("UPDATE switches SET probe_at = now() WHERE probe_at IS NOT NULL")
    rich.sql("UPDATE withdrawals SET due_at = now()")
    for one in ids:
        rich.bring_on(one)
    rich.step(good)
    assert switch(rich).is_on and rich.finish(good) == "completed"
    assert {rich.read(one).status_reason for one in ids[:-1]} == {"handle_paused"}


def test_a_payee_who_is_refused_says_nothing_about_money(rich: World) -> None:
    withdrawal_id = rich.request(upi_id="bad@okaxis")
    rich.advance()
    with db.transaction() as session:
        switches.trip(session, switches.PAYOUTS, reason="low_balance: none", withdrawal_id=withdrawal_id)
    rich.sql("UPDATE switches SET probe_at = now() WHERE probe_at IS NOT NULL")
    step = withdrawals.claim(withdrawal_id)
    assert isinstance(step, Prepare), "it is the probe"
    withdrawals.record_answer(step, Refused("input_validation_failed", "no such name", 400))
    assert (rich.read(withdrawal_id).status, switch(rich).is_on) == ("failed", False)


def test_every_turn_of_a_switch_leaves_a_line_with_both_sides(rich: World) -> None:
    withdrawals.pause(switches.PAYOUTS, reason="fraud suspected", actor="operator:asha")
    withdrawals.resume(switches.PAYOUTS, reason="seen", actor="operator:ravi")
    with db.transaction() as session:
        switches.trip(session, switches.PAYOUTS, reason="no_answers: 10", withdrawal_id=rich.request())
    lines = rich.sql("SELECT operator, action, subject, reason, data FROM audit_log ORDER BY id")
    assert [line[:4] for line in lines] == [
        ("asha", "paused", "payouts", "fraud suspected"),
        ("ravi", "resumed", "payouts", "seen"),
        ("system", "paused", "payouts", "no_answers: 10"),
    ]
    assert lines[1].data["before"] == {"is_on": False, "reason": "fraud suspected", "actor": "operator:asha"}
    assert lines[1].data["after"] == {"is_on": True}


def test_probes_that_fail_and_fail_wait_no_longer_than_set(rich: World) -> None:
    withdrawal_id = rich.request()
    for failed in range(13):
        with db.transaction() as session:
            switches.trip(session, switches.PAYOUTS, reason="no_answers: 10", withdrawal_id=withdrawal_id)
        rich.sql("UPDATE switches SET probe_id = :id", id=withdrawal_id)
        seconds = rich.sql("SELECT extract(epoch FROM probe_at - now())::float8 AS s FROM switches")[0].s
        assert seconds == pytest.approx(min(60 * 2**failed, settings().probe_max_seconds), abs=5)


@pytest.mark.parametrize(("name", "held"), [("payouts", "paused"), ("handle:okhdfcbank", "handle_paused")])
def test_who_was_held_back_at_the_very_end_of_a_pause_is_woken(rich: World, name: str, held: str) -> None:
    """Whoever ended it did not see this one yet."""
    withdrawals.pause(name, reason="bank holiday", actor="operator:asha")
    withdrawal_id = rich.request()
    rich.step(withdrawal_id)
    assert rich.read(withdrawal_id).status_reason == held
    due = "SELECT FROM withdrawals WHERE due_at <= now()"
    withdrawals.sweep()
    assert rich.sql(due) == [], "it is still off"
    rich.sql("UPDATE switches SET is_on = true")
    withdrawals.sweep()
    assert len(rich.sql(due)) == 1


def test_a_provider_that_cannot_be_reached_pauses_like_one_that_does_not_answer(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTO_PAUSE_UNKNOWNS", "3")
    rich.forget_settings()
    send = rich.first_send()
    for count in range(1, 4):
        withdrawals.record_answer(send, Throttled("unreachable", "No connection"))
        assert switch(rich).is_on == (count < 3)
    assert switch(rich).reason.startswith("no_answers: 3 in a row")


def test_a_provider_that_is_busy_pauses_nothing(rich: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_PAUSE_UNKNOWNS", "1")
    rich.forget_settings()
    withdrawals.record_answer(rich.first_send(), Throttled("busy", "Too many"))
    assert switch(rich).is_on
