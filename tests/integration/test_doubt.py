"""We do not know: what nobody answered is held, sent again, looked up, and ended by evidence alone."""

from dataclasses import replace

import pytest

from shared import db, withdrawals
from shared.razorpayx.answers import Accepted, Found, PayoutReport, Refused, Throttled, Unknown
from shared.steps import LookUp, Prepare, Send
from shared.withdrawals import claim, record_answer
from tests.simulator import ACCOUNT
from tests.world import World, forget_settings


@pytest.mark.failure(1)
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


@pytest.mark.failure(2)
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
        assert withdrawals.apply_report(session, late, "lookup") == "conflict"
    assert world.read(withdrawal_id).review == "processed_after_refused"
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


@pytest.mark.failure(2)
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


@pytest.mark.failure(2)
def test_look_ups_that_contradict_themselves_never_give_coins_back(world: World) -> None:
    """The payout is alive, and for hours each look-up brings an empty page that cannot be true."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET sends = 9")  # from now on it is only looked up
    for how in ("count", "entity", "error", "has_more"):
        world.simulator.settings(lists=how)
        for _ in range(7):
            assert world.step(withdrawal_id) == "processing"
            world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '1 hour'")
        assert world.attempts(withdrawal_id)[0].absent_looks == 0
    world.simulator.settings(lists="ok")
    assert world.finish(withdrawal_id) == "completed"
    assert (world.refunds(withdrawal_id), len(world.simulator.payouts())) == (0, 1)


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


@pytest.mark.failure(1, 19)
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


@pytest.mark.failure(18)
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


@pytest.mark.failure(14)
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


def test_refused_after_a_worker_was_lost_is_no_failure(world: World) -> None:
    """It was claimed and nobody came back: it may be paid, whatever the next send is told."""
    world.credit()
    send = world.first_send()
    world.advance()
    again = claim(send.withdrawal_id)
    assert isinstance(again, Send)
    record_answer(again, Refused("input_validation_failed", "no longer allowed", 400))
    assert world.read(send.withdrawal_id).status == "processing"
    assert world.refunds(send.withdrawal_id) == 0


def test_what_was_sent_away_unseen_takes_none_of_the_resends(world: World) -> None:
    """RazorpayX asks for resends after a send without an answer; a 429 was one with."""
    world.credit()
    send = world.first_send()
    for _ in range(4):
        record_answer(send, Throttled("busy", "Too many"))
        world.advance()
        again = claim(send.withdrawal_id)
        assert isinstance(again, Send)
        send = again
    resends = 0
    while isinstance(send, Send):
        record_answer(send, Unknown("timed out"))
        world.advance()
        step = claim(send.withdrawal_id)
        assert step is not None
        resends += isinstance(step, Send)
        send = step  # type: ignore[assignment]
    assert resends == 3 and isinstance(send, LookUp)
