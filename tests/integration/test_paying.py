"""Claim, call, record: every way in which RazorpayX answers, and what becomes of coins and rupees."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from shared import db, withdrawals
from shared.razorpayx.answers import Accepted, Found, PayoutReport, Refused, Throttled, Unknown
from shared.razorpayx.client import RazorpayX
from shared.razorpayx.reasons import LASTING, PASSING
from shared.settings import settings
from shared.steps import LookUp, Prepare, Send
from shared.withdrawals import claim, record_answer
from tests.drip import Dripping
from tests.simulator import ACCOUNT
from tests.world import World, forget_settings
from worker import tasks

# scenario of the simulator -> (how the withdrawal ends, payouts that exist, refunds)
PAID, BACK, NEVER = ("completed", 1, 0), ("failed", 1, 1), ("failed", 0, 1)
SCENARIOS = {
    "success": PAID,
    "drop": PAID,
    "drop.before": PAID,
    "504": PAID,
    "504.before": PAID,
    "500": PAID,
    "429": PAID,
    "401": PAID,
    "409": PAID,
    "garbage": PAID,
    "empty": PAID,
    "wrong": PAID,
    "silent.after": PAID,
    "silent.before": PAID,
    "queued": PAID,
    "pending": PAID,
    "rejected": BACK,
    "cancelled": BACK,
    "refuse.invalid_vpa": NEVER,
    "refuse.fund_account": NEVER,
    "500.fund_account": PAID,
    **{
        f"fail.{reason}": BACK
        for reason in LASTING
        if reason.startswith(("beneficiary_vpa", "bank_", "transaction"))
    },
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_answer_of_the_provider(world: World, scenario: str) -> None:
    status, payouts, refunds = SCENARIOS[scenario]
    world.credit(coins=2000)
    withdrawal_id = world.request(coins=500, upi_id=f"{scenario}@sim")
    assert world.finish(withdrawal_id) == status, world.story(withdrawal_id)
    assert len(world.simulator.payouts()) == payouts
    assert world.refunds(withdrawal_id) == refunds
    assert world.balance() == (1500 if status == "completed" else 2000)
    assert (world.read(withdrawal_id).failure_reason is None) == (status == "completed")


@pytest.mark.parametrize("reason", ["beneficiary_psp_offline", "npci_beneficiary_timeout", "gateway_down"])
def test_a_passing_failure_is_tried_anew_with_a_new_key_and_refunded_in_the_end(
    world: World, reason: str
) -> None:
    assert reason in PASSING
    world.credit()
    withdrawal_id = world.request(upi_id=f"fail.{reason}@sim")
    assert world.finish(withdrawal_id) == "failed"
    keys = [payout["idempotency_key"] for payout in world.simulator.payouts()]
    assert len(keys) == len(set(keys)) == 3
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed"] * 3
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_passing_failure_that_passes_is_paid_once(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.simulator.scenario("fail.beneficiary_bank_offline", next=1)
    assert world.finish(withdrawal_id) == "completed"
    assert [attempt.state for attempt in world.attempts(withdrawal_id)] == ["failed", "paid"]
    assert len(world.simulator.live_payouts()) == 1


def test_a_lost_reply_never_pays_twice(world: World) -> None:
    """The same key and the same bytes go out again, and RazorpayX answers with the same payout."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    waiting = world.read(withdrawal_id)
    assert (waiting.status, waiting.status_reason) == ("processing", "confirming")
    assert world.refunds(withdrawal_id) == 0
    assert world.finish(withdrawal_id) == "completed"
    calls = world.simulator.calls()
    assert len(calls) == 2
    assert len({call["idempotency_key"] for call in calls}) == 1
    assert len(world.simulator.payouts()) == 1


def test_what_is_absent_for_an_hour_of_answered_look_ups_is_given_back(world: World) -> None:
    """RazorpayX's own rule. Each look-up was answered, and each answer was: none."""
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=6)
    assert world.story(withdrawal_id).count("looked_up:none") == 2
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    assert world.step(withdrawal_id) == "processing"  # a clock that jumps is not enough
    for _ in range(2):
        world.step(withdrawal_id)
    for minutes, status in ((-62, "processing"), (3, "failed")):
        world.sql(f"UPDATE payout_attempts SET absent_since = absent_since - interval '{minutes} minutes'")
        assert world.step(withdrawal_id) == status
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)
    late = PayoutReport("pout_00000000000009", "processed", 5000, str(world.attempts(withdrawal_id)[0].id))
    with db.transaction() as session:
        assert withdrawals.apply_report(session, late, "webhook") == "conflict"
    assert world.read(withdrawal_id).review == "processed_after_refused"
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_one_look_up_without_an_answer_starts_the_hour_anew(world: World) -> None:
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=6)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '59 minutes'")
    world.simulator.settings(lookups="500")
    world.step(withdrawal_id)
    world.simulator.settings(lookups="ok")
    for _ in range(8):
        assert world.step(withdrawal_id) == "processing"
        world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '5 minutes'")
    assert world.refunds(withdrawal_id) == 0


def test_a_look_up_that_slept_over_its_lease_says_nothing(world: World) -> None:
    """Asked before the payout was there, told an hour later."""
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=11)
    world.advance()
    look_up = claim(withdrawal_id)
    assert isinstance(look_up, LookUp)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    world.advance()  # its lease is over
    record_answer(look_up, Found(()))
    assert world.read(withdrawal_id).status == "processing"
    assert world.story(withdrawal_id)[-1] == "too_late"


def test_a_look_up_asks_the_account_that_was_to_pay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name another account today; the payout was sent from the one in its body."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    monkeypatch.setenv("RAZORPAYX_ACCOUNT_NUMBER", "9999999999999999")
    forget_settings()
    world.sql("UPDATE payout_attempts SET sends = 9")
    world.advance()
    look_up = claim(withdrawal_id)
    assert isinstance(look_up, LookUp) and look_up.account_number == ACCOUNT
    record_answer(look_up, world.perform(look_up))
    assert world.attempts(withdrawal_id)[0].state in ("accepted", "paid")


def test_under_another_key_nothing_in_doubt_is_sent_and_no_absence_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another merchant or mode never heard of the key: it would pay again, and finds none."""
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    monkeypatch.setenv("RAZORPAYX_KEY_ID", "rzp_test_another")
    forget_settings()
    world.advance()
    step = claim(send.withdrawal_id)
    assert isinstance(step, LookUp)
    for _ in range(9):
        record_answer(step, Found(()))
        world.advance()
        step = claim(send.withdrawal_id)
        assert isinstance(step, LookUp)
    assert world.attempts(send.withdrawal_id)[0].absent_since is None
    assert world.refunds(send.withdrawal_id) == 0


def test_under_another_key_what_was_never_taken_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Throttled("refuses_us", "401"))
    monkeypatch.setenv("RAZORPAYX_KEY_ID", "rzp_test_another")
    forget_settings()
    world.advance()
    assert isinstance(claim(send.withdrawal_id), Prepare)
    assert [attempt.state for attempt in world.attempts(send.withdrawal_id)] == ["refused"]


def test_an_outage_tells_a_person_and_ends_by_itself(world: World) -> None:
    """Flagged because nobody answered for an hour; once answered, the flag is gone and all goes on."""
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=6)
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    world.step(withdrawal_id)
    assert world.read(withdrawal_id).review == "unanswered"
    world.simulator.settings(lookups="ok")
    for _ in range(6):
        world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '61 minutes'")
    assert world.step(withdrawal_id) == "failed"
    assert world.read(withdrawal_id).review is None
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_payee_that_is_no_longer_known_is_made_known_anew(world: World) -> None:
    world.paid()
    world.sql("UPDATE destinations SET fund_account_id = 'fa_00000000000000'")
    assert world.read(world.paid()).status == "completed"


def test_polls_without_an_answer_leave_a_trace_and_do_not_move_the_promise(world: World) -> None:
    world.credit()
    withdrawal_id = world.request(upi_id="never@sim")
    world.step(withdrawal_id)
    promised = world.read(withdrawal_id).expected_by
    world.simulator.settings(down="500")
    for _ in range(3):
        world.step(withdrawal_id)
    assert world.story(withdrawal_id).count("polled:no_answer") == 3
    assert world.read(withdrawal_id).expected_by == promised


def test_a_payee_that_cannot_be_made_known_is_asked_for_less_and_less_often(world: World) -> None:
    world.simulator.settings(down="500")
    world.credit()
    withdrawal_id = world.request()
    assert world.finish(withdrawal_id, steps=3) == "pending"
    assert world.story(withdrawal_id) == ["requested", *["preparing", "not_prepared"] * 3]
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '5 minutes'")
    world.step(withdrawal_id)
    wait = world.sql("SELECT extract(epoch FROM due_at - now()) AS s FROM withdrawals")[0].s
    assert 290 < wait < 400


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"]
)
def test_a_peer_that_drips_bytes_is_hung_up_on(world: World, drip: bytes) -> None:
    """A byte now and then keeps every single read short; the call as a whole is bounded all the same."""
    world.credit()
    send = world.first_send()
    with Dripping(drip) as peer:
        slow = settings().model_copy(update={"razorpayx_base_url": peer.url})
        begun = time.monotonic()
        assert isinstance(RazorpayX(slow).perform(send), Unknown)
        assert time.monotonic() - begun < 4


def test_a_worker_that_slept_over_its_lease_does_not_call(world: World) -> None:
    """Stopped after the claim and woken hours later: the coins may have gone back meanwhile."""
    world.credit()
    send = world.first_send()
    late = world.perform(replace(send, until=send.until - 3600))
    assert isinstance(late, Throttled)
    assert world.simulator.calls() == []


def test_what_never_answers_stays_held_and_a_person_is_told(world: World) -> None:
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    world.credit()
    withdrawal_id = world.request()
    assert world.finish(withdrawal_id, steps=8) == "processing"
    assert world.balance() == 1500
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    world.step(withdrawal_id)
    assert world.read(withdrawal_id).review == "unanswered"
    sends = len(world.simulator.calls())
    assert sends == 4  # the first, and after 1, 2 and 5 minutes
    world.finish(withdrawal_id, steps=5)
    assert len(world.simulator.calls()) == sends
    assert (world.refunds(withdrawal_id), world.balance()) == (0, 1500)


def test_a_key_older_than_six_days_is_never_sent_again(world: World) -> None:
    """After seven days RazorpayX has forgotten the key, and would pay a second time."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '6 days 1 minute'")
    assert world.finish(withdrawal_id) == "completed"
    assert len(world.simulator.calls()) == 1  # found by its reference instead


def test_refused_while_an_earlier_send_is_in_doubt_is_no_failure(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    world.advance()
    again = claim(send.withdrawal_id)
    assert isinstance(again, Send)
    assert (again.attempt_id, again.body) == (send.attempt_id, send.body)
    record_answer(again, Refused("input_validation_failed", "no longer allowed", 400))
    waiting = world.read(send.withdrawal_id)
    assert (waiting.status, world.refunds(send.withdrawal_id)) == ("processing", 0)
    assert world.attempts(send.withdrawal_id)[0].state == "unknown"


def test_refused_at_the_first_send_refunds_at_once(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("input_validation_failed", "not a VPA", 400))
    assert world.read(send.withdrawal_id).status == "failed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (1, 2000)


def test_refused_after_being_throttled_is_still_certain(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Throttled("busy", "429"))
    world.advance()
    again = claim(send.withdrawal_id)
    assert isinstance(again, Send)
    record_answer(again, Refused("input_validation_failed", "not a VPA", 400))
    assert world.read(send.withdrawal_id).status == "failed"


def test_a_worker_that_came_back_too_late_changes_nothing(world: World) -> None:
    """Its lease ran out and another worker got the payout accepted; now its own bad news arrives."""
    world.credit()
    slow = world.first_send()
    world.advance()
    quick = claim(slow.withdrawal_id)
    assert isinstance(quick, Send)
    report = PayoutReport("pout_00000000000001", "processing", 5000, reference_id=str(slow.attempt_id))
    record_answer(quick, Accepted(report))
    for late in (Unknown("timeout"), Refused("server_error", "no", 400), Throttled("busy", "429")):
        record_answer(slow, late)
        assert world.attempts(slow.withdrawal_id)[0].state == "accepted"
    assert world.read(slow.withdrawal_id).status == "processing"


def test_two_workers_one_claim(world: World) -> None:
    world.credit(coins=2000)
    world.paid()
    withdrawal_id = world.request()
    world.advance()
    with ThreadPoolExecutor(8) as threads:
        steps = list(threads.map(lambda _: claim(withdrawal_id), range(8)))
    assert len([step for step in steps if step]) == 1


def test_nothing_is_claimed_within_the_cancel_window(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    assert claim(withdrawal_id) is None
    world.advance(8)
    assert claim(withdrawal_id) is None
    world.advance(3)
    assert claim(withdrawal_id) is not None


def test_cancelled_while_the_payee_is_prepared_is_not_sent(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    world.advance()
    step = claim(withdrawal_id)
    assert isinstance(step, Prepare)
    withdrawals.cancel(withdrawal_id, reason="just in time", actor="app:test")
    assert record_answer(step, world.perform(step)) is None
    assert world.simulator.payouts() == []
    assert world.balance() == 2000


def test_the_payee_is_made_known_once(world: World) -> None:
    for _ in range(3):
        world.paid()
    contacts = world.simulator.calls(path="/v1/contacts")
    assert len(contacts) == len(world.simulator.calls(path="/v1/fund_accounts")) == 1
    assert len(world.sql("SELECT FROM destinations")) == 1


def test_two_payouts_under_one_reference_are_left_to_a_person(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    found = [
        PayoutReport(f"pout_0000000000000{n}", status, 5000, reference_id=str(send.attempt_id))
        for n, status in enumerate(("failed", "processed"))
    ]
    record_answer(LookUp(send.withdrawal_id, send.attempt_id, ACCOUNT, checks=0), Found(tuple(found)))
    held = world.read(send.withdrawal_id)
    assert (held.status, held.review) == ("processing", "two_payouts")
    assert world.refunds(send.withdrawal_id) == 0


def test_no_transaction_is_open_while_the_provider_is_asked(world: World) -> None:
    world.credit()
    send = world.first_send()
    with ThreadPoolExecutor(1) as threads:
        world.simulator.scenario("silent.before", default=True)
        call = threads.submit(world.perform, send)
        busy = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()"
        while not call.done():
            assert world.sql(busy)[0].n == 0
            assert db.engine().pool.checkedout() == 0  # type: ignore[attr-defined]
    assert isinstance(call.result(), Unknown)


def test_a_step_that_always_raises_is_put_off_and_blocks_nobody(world: World) -> None:
    """A row that our own code cannot handle: it stays held and visible, and is looked at again later."""
    world.credit(coins=2000)
    world.paid()
    poison, well = world.request(), world.request()
    world.advance()
    world.sql_without_rules(
        f"UPDATE withdrawals SET amount_paise = 99 + 1, version = 1 WHERE id = '{poison}'"
    )
    world.sql(
        "ALTER TABLE payout_attempts ADD CONSTRAINT ours CHECK (request_body NOT LIKE '%\"amount\": 100,%'::bytea)"
    )
    with pytest.raises(IntegrityError):
        tasks.submit_withdrawal.run(str(poison))
    tasks.submit_withdrawal.run(str(well))
    assert world.read(poison).status == "pending"
    assert "worker_error" in world.story(poison)
    assert claim(poison) is None
    assert len(world.attempts(well)) == 1
