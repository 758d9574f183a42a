"""Pauses by people and by the system: nothing is sent meanwhile, and nothing is lost."""

from uuid import UUID

import pytest
from sqlalchemy import text

from sandbox.processes import wait_until
from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import NotFound
from shared.people import exception_records
from shared.providers.answers import Refused, Throttled
from shared.providers.steps import Prepare
from shared.settings import settings
from shared.states import Decision
from shared.withdrawals import circuit_breakers, pauses
from tests.support import steps
from tests.support.world import World

BANK_OFFLINE = "beneficiary_psp_offline"


def count_creates(world: World) -> int:
    return len(world.simulator.calls())


def switch(world: World, name: str = circuit_breakers.PAYOUTS) -> circuit_breakers.CircuitBreaker:
    with transaction() as session:
        breakers = circuit_breakers.all_breakers(session)
    return next(breaker for breaker in breakers if breaker.name == name)


def open_records(world: World, kind: str) -> int:
    with transaction() as session:
        return sum(record.kind == kind for record in exception_records.listing(session))


def request_to(world: World, handle: str) -> UUID:
    return world.request(coins=100, upi_id=f"asha{len(world.sql('SELECT FROM withdrawals'))}@{handle}")


def fail_once(world: World, upi_id: str) -> None:
    """One payout to `upi_id` that the provider accepts and that fails."""
    withdrawal_id = world.request(coins=100, upi_id=upi_id)
    world.step(withdrawal_id)
    reference = str(world.attempts(withdrawal_id)[0].id)
    wait_until(lambda: world.simulator.payouts(reference)[0]["status"] == "failed", 5)
    world.step(withdrawal_id)


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=100_000)
    return world


def test_during_a_pause_nothing_is_sent_and_withdrawals_say_why(funded: World) -> None:
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = funded.request()
    for _ in range(3):
        assert funded.step(withdrawal_id) == "pending"
    row = funded.read(withdrawal_id)
    assert (row.status_reason, row.expected_by is not None) == ("paused", True)
    assert count_creates(funded) == len(funded.simulator.calls(path="/v1/contacts")) == 0


def test_a_user_can_cancel_a_paused_withdrawal(funded: World) -> None:
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = funded.request(coins=500)
    funded.step(withdrawal_id)
    _, balance = withdrawals.cancel(withdrawal_id, reason="tired of waiting", actor="app:test")
    assert balance == 100_000


def test_resuming_makes_all_paused_withdrawals_due_at_once(funded: World) -> None:
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="bank holiday", actor="operator:asha")
    ids = [funded.request() for _ in range(3)]
    for withdrawal_id in ids:
        funded.step(withdrawal_id)
    withdrawals.resume(circuit_breakers.PAYOUTS, reason="it is over", actor="operator:ravi")
    assert funded.sql("SELECT count(*) AS n FROM withdrawals WHERE due_at <= now()")[0].n == 3
    assert [funded.finish(withdrawal_id) for withdrawal_id in ids] == ["completed"] * 3


def test_a_pause_by_an_operator_is_not_probed(funded: World) -> None:
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="bank holiday", actor="operator:asha")
    withdrawal_id = funded.request()
    for _ in range(5):
        funded.step(withdrawal_id, seconds=90_000)
    assert not switch(funded).is_on and count_creates(funded) == 0


def test_a_missing_switch_counts_as_off(funded: World) -> None:
    funded.sql("DELETE FROM switches")
    withdrawal_id = funded.request()
    assert funded.step(withdrawal_id) == "pending"
    assert funded.read(withdrawal_id).status_reason == "paused"
    assert count_creates(funded) == 0


def test_an_unknown_payout_is_looked_up_during_a_pause_and_not_resent(funded: World) -> None:
    funded.simulator.scenario("drop", default=True)
    send = funded.first_send()
    steps.record_answer(send, funded.perform(send))
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="to look", actor="operator:asha")
    assert funded.finish(send.withdrawal_id) == "completed"
    assert count_creates(funded) == 1
    assert funded.simulator.calls("GET")


def test_a_throttled_payout_waits_until_the_pause_ends(funded: World) -> None:
    funded.simulator.scenario("429", default=True)
    send = funded.first_send()
    steps.record_answer(send, funded.perform(send))
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="to look", actor="operator:asha")
    assert funded.step(send.withdrawal_id) == "processing"
    assert (funded.read(send.withdrawal_id).status_reason, count_creates(funded)) == ("paused", 1)
    withdrawals.resume(circuit_breakers.PAYOUTS, reason="seen", actor="operator:asha")
    assert funded.finish(send.withdrawal_id) == "completed"


def test_pausing_one_handle_does_not_stop_the_others(funded: World) -> None:
    withdrawals.pause("handle:okaxis", reason="their night", actor="operator:asha")
    paused, other = request_to(funded, "OKAXIS"), request_to(funded, "ybl")
    assert (funded.step(paused), funded.finish(other)) == ("pending", "completed")
    assert funded.read(paused).status_reason == "handle_paused"
    withdrawals.resume("handle:okaxis", reason="morning", actor="operator:asha")
    assert funded.finish(paused) == "completed"


def test_resuming_an_unknown_switch_is_not_found(funded: World) -> None:
    with pytest.raises(NotFound):
        withdrawals.resume("handle:nobody", reason="oops", actor="operator:asha")


@pytest.mark.parametrize("scenario", ["401", "refuse.ip", "refuse.account_number", "refuse.url"])
def test_a_refusal_of_our_account_pauses_everything_with_its_reason(funded: World, scenario: str) -> None:
    funded.simulator.scenario(scenario, next=1)
    funded.step(funded.request())
    assert not switch(funded).is_on
    assert switch(funded).reason.startswith("provider_refuses_us: ")
    assert (switch(funded).actor, open_records(funded, "paused")) == ("system", 1)
    before = count_creates(funded)
    paused = funded.request()
    funded.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=paused)
    funded.bring_on(paused)
    assert funded.read(paused).status_reason == "paused"
    assert count_creates(funded) == before


@pytest.mark.failure(26)
@pytest.mark.usefixtures("people")
def test_a_payee_whose_requests_are_refused_is_put_on_hold_while_others_are_paid(funded: World) -> None:
    funded.paid()
    funded.simulator.scenario("refuse.mode", vpa="bad@okaxis")
    bad = funded.request(coins=100, upi_id="bad@okaxis")
    funded.step(bad)
    assert (funded.read(bad).status_reason, switch(funded).is_on) == ("provider_refuses_us", True)
    funded.paid()
    funded.step(bad)
    row = funded.read(bad)
    assert (row.status, row.hold, switch(funded).is_on) == ("processing", "held:refused_alone", True)
    assert (open_records(funded, "held:refused_alone"), funded.refunds(bad)) == (1, 0)
    funded.paid()
    proposal = withdrawals.propose(
        bad, Decision.REFUND, evidence="Razorpay: not a UPI id", actor="operator:asha"
    )
    withdrawals.approve(proposal.id, actor="operator:ravi")
    assert (funded.read(bad).status, funded.refunds(bad)) == ("failed", 1)


def test_a_refused_payee_pauses_an_idle_system_once_and_is_not_used_as_the_probe(funded: World) -> None:
    funded.simulator.scenario("refuse.mode", vpa="bad@okaxis")
    bad = funded.request(coins=100, upi_id="bad@okaxis")
    funded.step(bad)
    assert switch(funded).reason.startswith("provider_refuses_us: Payout mode is not valid")
    other = funded.request(coins=100)
    funded.advance()
    funded.sql("UPDATE switches SET probe_at = now() + interval '1 minute' WHERE NOT is_on")
    funded.bring_on(other)
    funded.step(bad)
    assert (funded.read(bad).status_reason, count_creates(funded)) == ("paused", 1)
    funded.sql("UPDATE withdrawals SET due_at = now() + interval '1 hour' WHERE due_at IS NOT NULL")
    withdrawals.sweep()  # wakes one, but not the oldest
    due = funded.sql("SELECT id FROM withdrawals WHERE due_at <= now()")
    assert [row.id for row in due] == [other]
    funded.bring_on(other)
    assert switch(funded).is_on
    funded.step(bad)
    assert (funded.read(bad).hold, switch(funded).is_on) == ("held:refused_alone", True)


def test_wrong_settings_pause_everything_and_all_are_paid_after_they_are_corrected(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payouts succeed, then each is refused: the cause is the settings and not a payee."""
    funded.paid()
    correct = settings().razorpayx_account_number
    monkeypatch.setenv("RAZORPAYX_ACCOUNT_NUMBER", "9999999999999999")
    funded.forget_settings()
    ids = [funded.request(coins=100) for _ in range(3)]
    for withdrawal_id in ids:
        funded.step(withdrawal_id)
    assert switch(funded).is_on, "a first refusal may be due to the payee"
    funded.step(ids[0])
    assert switch(funded).reason.startswith("provider_refuses_us")
    monkeypatch.setenv("RAZORPAYX_ACCOUNT_NUMBER", correct)
    funded.forget_settings()
    assert [funded.finish(withdrawal_id) for withdrawal_id in ids] == ["completed"] * 3
    assert [row.kind for row in funded.sql("SELECT kind FROM exception_records")] == ["paused"]
    assert "settings_changed" in funded.story(ids[0])


def test_one_probe_runs_at_a_time_and_its_success_resumes_all(funded: World) -> None:
    funded.simulator.scenario("401", next=1)
    funded.step(funded.request())
    waiting = [funded.request() for _ in range(4)]
    funded.advance()
    before = count_creates(funded)
    # No answer is recorded between these two claims, so the second finds the probe taken.
    probe = steps.claim(waiting[0])
    assert probe is not None and steps.claim(waiting[1]) is None
    assert funded.read(waiting[1]).status_reason == "paused"
    steps.record_answer(probe, funded.perform(probe))
    assert switch(funded).is_on
    assert (count_creates(funded) - before, open_records(funded, "paused")) == (1, 0)
    assert funded.sql("SELECT count(*) AS n FROM withdrawals WHERE due_at <= now()")[0].n >= 1


def test_a_failed_probe_doubles_the_wait(funded: World) -> None:
    funded.simulator.scenario("refuse.ip", default=True)
    waits = []
    for _ in range(4):
        funded.step(funded.request(), seconds=4000)
        waits.append(funded.sql("SELECT extract(epoch FROM probe_at - now()) AS s FROM switches")[0].s)
    assert [round(float(seconds) / 60) for seconds in waits] == [1, 2, 4, 8]
    assert count_creates(funded) == 4


def test_when_a_probe_is_due_the_sweep_wakes_the_oldest_withdrawal(funded: World) -> None:
    funded.simulator.scenario("401", next=1)
    funded.step(funded.request())
    ids = [funded.request() for _ in range(3)]
    for withdrawal_id in ids:
        funded.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)
        funded.bring_on(withdrawal_id)
    funded.sql("UPDATE switches SET probe_at = now()")
    withdrawals.sweep()
    due = funded.sql("SELECT id FROM withdrawals WHERE due_at <= now() AND status_reason = 'paused'")
    assert [row.id for row in due] == [ids[0]]


def test_wake_with_a_limit_of_one_wakes_one_under_any_query_plan(funded: World) -> None:
    """With statistics of a single row, PostgreSQL may run the inner query once for each row."""
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="bank holiday", actor="operator:asha")
    for _ in range(3):
        funded.step(funded.request())
    funded.sql("ANALYZE withdrawals")
    with transaction() as session:
        for plan in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            session.execute(text(f"SET LOCAL enable_{plan} = off"))
        assert pauses.wake(session, circuit_breakers.PAYOUTS, limit=1) == 1


def test_consecutive_unknown_answers_pause_and_a_good_answer_resets_the_count(funded: World) -> None:
    funded.paid()
    for count in range(1, 21):
        funded.simulator.scenario("504.before", next=1) if count != 9 else None
        funded.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL")
        withdrawal_id = funded.request(coins=100)
        funded.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)
        funded.bring_on(withdrawal_id)
        assert switch(funded).is_on == (count < 19), count
    assert switch(funded).reason.startswith("no_answers: 10 in a row")


def test_automatic_pauses_can_be_switched_off(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_PAUSE", "off")
    funded.forget_settings()
    funded.simulator.scenario("refuse.ip", next=1)
    funded.step(funded.request())
    assert switch(funded).is_on


@pytest.mark.failure(17)
def test_a_handle_whose_bank_is_offline_is_paused_while_others_continue(funded: World) -> None:
    for number in range(5):
        assert switch(funded).is_on
        upi_id = f"asha{number}@okaxis"
        funded.simulator.scenario(f"fail.{BANK_OFFLINE}", vpa=upi_id)
        fail_once(funded, upi_id)
    assert not switch(funded, "handle:okaxis").is_on
    assert switch(funded, "handle:okaxis").reason.startswith(BANK_OFFLINE)
    funded.sql("UPDATE switches SET probe_at = now() + interval '1 hour' WHERE NOT is_on")
    paused = funded.request(coins=100, upi_id="ravi@okaxis")
    other = funded.request(coins=100, upi_id="ravi@ybl")
    funded.sql("UPDATE withdrawals SET due_at = now() WHERE id IN (:a, :b)", a=paused, b=other)
    funded.bring_on(paused)
    funded.bring_on(other)
    assert (funded.read(paused).status_reason, funded.read(other).status) == ("handle_paused", "processing")
    # When the bank is back, a paid probe resumes the handle.
    assert funded.finish(paused) == "completed"
    assert switch(funded, "handle:okaxis").is_on


@pytest.mark.failure(15)
def test_a_low_balance_pauses_payouts_and_they_resume_by_themselves(funded: World) -> None:
    funded.simulator.post("balance", {"paise": 0})
    first = funded.request()
    funded.step(first)
    row = funded.read(first)
    assert (row.status, row.status_reason) == ("processing", "provider_queued")
    assert switch(funded).reason.startswith("low_balance")
    assert funded.refunds(first) == 0
    funded.simulator.post("balance", {"paise": 10_000_000})
    assert funded.finish(first) == "completed"
    assert funded.finish(funded.request()) == "completed"
    assert switch(funded).is_on


@pytest.mark.failure(15)
@pytest.mark.parametrize("scenario", ["refuse.insufficient_funds", "fail.insufficient_funds"])
def test_insufficient_funds_are_retried_and_refund_no_one(funded: World, scenario: str) -> None:
    funded.simulator.scenario(scenario, next=1)
    withdrawal_id = funded.request()
    funded.step(withdrawal_id)
    assert funded.finish(withdrawal_id) == "completed"
    assert funded.refunds(withdrawal_id) == 0
    keys = [payout["idempotency_key"] for payout in funded.simulator.payouts()]
    assert len(keys) == len(set(keys))
    paused = funded.sql("SELECT theirs ->> 'reason' AS why, resolved_by FROM exception_records")
    assert [(row.why, row.resolved_by) for row in paused] == [("low_balance", "system")]


def test_an_impossible_failure_reason_is_held_for_people(funded: World) -> None:
    send = funded.first_send()
    steps.record_answer(send, funded.perform(send))
    payout = funded.simulator.payouts()[0]
    report = {
        "id": payout["id"],
        "status": "failed",
        "amount": payout["amount"],
        "reference_id": payout["reference_id"],
        "status_details": {"reason": "imps_not_allowed", "source": "beneficiary_bank"},
    }
    funded.receive_report(report)
    funded.simulator.post(f"payouts/{payout['id']}/status", {"status": "failed", "reason": None})
    for _ in range(4):
        assert funded.step(send.withdrawal_id) == "processing"
    assert funded.read(send.withdrawal_id).hold == "held:imps_not_allowed"
    assert (count_creates(funded), funded.refunds(send.withdrawal_id)) == (1, 0)
    assert open_records(funded, "held:imps_not_allowed") == 1


def test_a_network_outage_pauses_all_until_a_probe_is_paid(funded: World) -> None:
    for _ in range(5):
        assert switch(funded).is_on
        funded.simulator.scenario("fail.gateway_down", next=1)
        fail_once(funded, "asha@okaxis")
        funded.sql("UPDATE withdrawals SET due_at = now() + interval '1 day' WHERE due_at IS NOT NULL")
    assert switch(funded, "network").reason.startswith("gateway_down: 5 in a row")
    funded.sql("UPDATE switches SET probe_at = now() + interval '1 day' WHERE NOT is_on")
    paused = funded.request(coins=100)
    funded.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=paused)
    funded.bring_on(paused)
    assert funded.read(paused).status_reason == "paused"
    funded.sql("UPDATE switches SET probe_at = now() WHERE NOT is_on")
    assert funded.finish(paused) == "completed"
    assert switch(funded, "network").is_on


def test_a_withdrawal_to_a_paused_handle_is_not_used_as_the_probe(funded: World) -> None:
    """Older withdrawals to a paused handle must not be the only probes of all payouts."""
    for n in range(5):
        funded.request(coins=100, upi_id=f"asha{n}@okaxis")
    good = funded.request(coins=100, upi_id="ravi@okhdfcbank")
    funded.advance()
    withdrawals.pause("handle:okaxis", reason="maintenance until Monday", actor="operator:asha")
    with transaction() as session:
        circuit_breakers.trip(
            session, circuit_breakers.PAYOUTS, reason="low_balance: none", withdrawal_id=good
        )
    ids = [row.id for row in funded.sql("SELECT id FROM withdrawals ORDER BY created_at")]
    for withdrawal_id in ids:
        funded.bring_on(withdrawal_id)
    funded.sql("UPDATE switches SET probe_at = now() WHERE probe_at IS NOT NULL")
    funded.sql("UPDATE withdrawals SET due_at = now()")
    for withdrawal_id in ids:
        funded.bring_on(withdrawal_id)
    funded.step(good)
    assert switch(funded).is_on and funded.finish(good) == "completed"
    assert {funded.read(withdrawal_id).status_reason for withdrawal_id in ids[:-1]} == {"handle_paused"}


def test_a_refused_payee_does_not_end_a_low_balance_pause(funded: World) -> None:
    withdrawal_id = funded.request(upi_id="bad@okaxis")
    funded.advance()
    with transaction() as session:
        circuit_breakers.trip(
            session, circuit_breakers.PAYOUTS, reason="low_balance: none", withdrawal_id=withdrawal_id
        )
    funded.sql("UPDATE switches SET probe_at = now() WHERE probe_at IS NOT NULL")
    step = steps.claim(withdrawal_id)
    assert isinstance(step, Prepare), "it is the probe"
    steps.record_answer(step, Refused("input_validation_failed", "no such name", 400))
    assert (funded.read(withdrawal_id).status, switch(funded).is_on) == ("failed", False)


def test_every_change_of_a_switch_is_in_the_audit_log_with_before_and_after(funded: World) -> None:
    withdrawals.pause(circuit_breakers.PAYOUTS, reason="fraud suspected", actor="operator:asha")
    withdrawals.resume(circuit_breakers.PAYOUTS, reason="seen", actor="operator:ravi")
    with transaction() as session:
        circuit_breakers.trip(
            session, circuit_breakers.PAYOUTS, reason="no_answers: 10", withdrawal_id=funded.request()
        )
    rows = funded.sql("SELECT operator, action, subject, reason, data FROM audit_log ORDER BY id")
    assert [row[:4] for row in rows] == [
        ("asha", "paused", "payouts", "fraud suspected"),
        ("ravi", "resumed", "payouts", "seen"),
        ("system", "paused", "payouts", "no_answers: 10"),
    ]
    assert rows[1].data["before"] == {"is_on": False, "reason": "fraud suspected", "actor": "operator:asha"}
    assert rows[1].data["after"] == {"is_on": True}


def test_the_wait_between_failed_probes_has_a_maximum(funded: World) -> None:
    withdrawal_id = funded.request()
    for failed in range(13):
        with transaction() as session:
            circuit_breakers.trip(
                session, circuit_breakers.PAYOUTS, reason="no_answers: 10", withdrawal_id=withdrawal_id
            )
        funded.sql("UPDATE switches SET probe_id = :id", id=withdrawal_id)
        seconds = funded.sql("SELECT extract(epoch FROM probe_at - now())::float8 AS s FROM switches")[0].s
        assert seconds == pytest.approx(min(60 * 2**failed, settings().probe_max_seconds), abs=5)


@pytest.mark.parametrize(
    ("name", "status_reason"), [("payouts", "paused"), ("handle:okhdfcbank", "handle_paused")]
)
def test_a_withdrawal_paused_just_before_the_pause_ends_is_woken(
    funded: World, name: str, status_reason: str
) -> None:
    """The transaction that resumed did not see this withdrawal yet."""
    withdrawals.pause(name, reason="bank holiday", actor="operator:asha")
    withdrawal_id = funded.request()
    funded.step(withdrawal_id)
    assert funded.read(withdrawal_id).status_reason == status_reason
    due = "SELECT FROM withdrawals WHERE due_at <= now()"
    withdrawals.sweep()
    assert funded.sql(due) == [], "the switch is still off"
    funded.sql("UPDATE switches SET is_on = true")
    withdrawals.sweep()
    assert len(funded.sql(due)) == 1


def test_unreachable_answers_pause_like_unknown_answers(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTO_PAUSE_UNKNOWNS", "3")
    funded.forget_settings()
    send = funded.first_send()
    for count in range(1, 4):
        steps.record_answer(send, Throttled("unreachable", "No connection"))
        assert switch(funded).is_on == (count < 3)
    assert switch(funded).reason.startswith("no_answers: 3 in a row")


def test_busy_answers_do_not_pause(funded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTO_PAUSE_UNKNOWNS", "1")
    funded.forget_settings()
    steps.record_answer(funded.first_send(), Throttled("busy", "Too many"))
    assert switch(funded).is_on
