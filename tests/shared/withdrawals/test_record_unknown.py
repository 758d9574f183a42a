"""Unknown results: the coins stay held, the payout is resent and looked up, and only evidence ends it."""

from dataclasses import replace

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.providers.answers import Accepted, Found, Refused, Throttled, Unknown
from shared.providers.razorpayx.answers import build_report as report_of
from shared.providers.steps import LookUp, Prepare, Send
from tests.support.simulator import ACCOUNT
from tests.support.steps import claim, record_answer
from tests.support.world import World, forget_settings


@pytest.mark.failure(1)
def test_a_lost_reply_never_pays_twice(world: World) -> None:
    """The same key and the same bytes go out again, and the provider returns the same payout."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    withdrawal = world.read(withdrawal_id)
    assert (withdrawal.status, withdrawal.status_reason) == ("processing", "confirming")
    assert world.refunds(withdrawal_id) == 0
    assert world.finish(withdrawal_id) == "completed"
    calls = world.simulator.calls()
    assert len(calls) == 2
    assert len({call["idempotency_key"] for call in calls}) == 1
    assert len(world.simulator.payouts()) == 1


@pytest.mark.failure(2)
def test_a_payout_that_every_look_up_misses_for_an_hour_is_refunded(world: World) -> None:
    """The provider's own rule: each look-up was answered, and each answer was "none"."""
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=6)
    assert world.story(withdrawal_id).count("looked_up:none") == 2
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    assert world.step(withdrawal_id) == "processing"  # elapsed time alone is not enough
    for _ in range(2):
        world.step(withdrawal_id)
    for minutes, status in ((-62, "processing"), (3, "failed")):
        world.sql(f"UPDATE payout_attempts SET absent_since = absent_since - interval '{minutes} minutes'")
        assert world.step(withdrawal_id) == status
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)
    late = report_of("pout_00000000000009", "processed", 5000, str(world.attempts(withdrawal_id)[0].id))
    with transaction() as session:
        assert withdrawals.apply_report(session, late, "lookup") == "conflict"
    assert world.read(withdrawal_id).hold == "processed_after_refused"
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


@pytest.mark.failure(2)
def test_one_unanswered_look_up_restarts_the_hour(world: World) -> None:
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
def test_inconsistent_look_up_responses_never_cause_a_refund(world: World) -> None:
    """The payout is live, but for hours each look-up returns an inconsistent empty page."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET sends = 9")  # no resend is left: only look-ups from now on
    for inconsistency in ("count", "entity", "error", "has_more"):
        world.simulator.settings(lists=inconsistency)
        for _ in range(7):
            assert world.step(withdrawal_id) == "processing"
            world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '1 hour'")
        assert world.attempts(withdrawal_id)[0].absent_replies == 0
    world.simulator.settings(lists="ok")
    assert world.finish(withdrawal_id) == "completed"
    assert (world.refunds(withdrawal_id), len(world.simulator.payouts())) == (0, 1)


def test_a_look_up_answered_after_its_lease_is_ignored(world: World) -> None:
    """The query was made before the payout existed; its answer is recorded an hour later."""
    world.simulator.scenario("500.always", default=True)
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=11)
    world.advance()
    look_up = claim(withdrawal_id)
    assert isinstance(look_up, LookUp)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    world.advance()  # its lease expires
    record_answer(look_up, Found(()))
    assert world.read(withdrawal_id).status == "processing"
    assert world.story(withdrawal_id)[-1] == "too_late"


def test_a_look_up_queries_the_account_that_the_payout_was_sent_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name another account now; the payout was sent from the account in its body."""
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


def test_under_another_api_key_an_unknown_payout_is_not_resent_and_absence_does_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another merchant or mode does not know the key: a resend would pay again, and look-ups find nothing."""
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


def test_under_another_api_key_a_throttled_payout_starts_a_new_attempt(
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


def test_an_outage_flags_a_withdrawal_and_the_flag_clears_by_itself(world: World) -> None:
    """Flagged because nothing was answered for an hour; an answer clears the flag."""
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    world.credit()
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=6)
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    world.step(withdrawal_id)
    assert world.read(withdrawal_id).hold == "unanswered"
    world.simulator.settings(lookups="ok")
    for _ in range(6):
        world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '61 minutes'")
    assert world.step(withdrawal_id) == "failed"
    assert world.read(withdrawal_id).hold is None
    assert (world.refunds(withdrawal_id), world.balance()) == (1, 2000)


def test_a_worker_whose_lease_expired_does_not_call(world: World) -> None:
    """The worker froze after the claim and woke hours later: the coins may have been refunded meanwhile."""
    world.credit()
    send = world.first_send()
    late = world.perform(replace(send, deadline=send.deadline - 3600))
    assert isinstance(late, Throttled)
    assert world.simulator.calls() == []


def test_an_unanswered_withdrawal_keeps_its_coins_held_and_is_flagged(world: World) -> None:
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    world.credit()
    withdrawal_id = world.request()
    assert world.finish(withdrawal_id, steps=8) == "processing"
    assert world.balance() == 1500
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    world.step(withdrawal_id)
    assert world.read(withdrawal_id).hold == "unanswered"
    sends = len(world.simulator.calls())
    assert sends == 4  # the first, and resends after 1, 2 and 5 minutes
    world.finish(withdrawal_id, steps=5)
    assert len(world.simulator.calls()) == sends
    assert (world.refunds(withdrawal_id), world.balance()) == (0, 1500)


@pytest.mark.failure(1, 19)
def test_a_key_older_than_six_days_is_never_sent_again(world: World) -> None:
    """After seven days the provider has forgotten the key and would pay a second time."""
    world.credit()
    withdrawal_id = world.request(upi_id="drop@sim")
    world.step(withdrawal_id)
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '6 days 1 minute'")
    assert world.finish(withdrawal_id) == "completed"
    assert len(world.simulator.calls()) == 1  # found by its reference


def test_a_refusal_while_an_earlier_send_is_in_doubt_is_not_a_failure(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    world.advance()
    resend = claim(send.withdrawal_id)
    assert isinstance(resend, Send)
    assert (resend.attempt_id, resend.body) == (send.attempt_id, send.body)
    record_answer(resend, Refused("input_validation_failed", "no longer allowed", 400))
    withdrawal = world.read(send.withdrawal_id)
    assert (withdrawal.status, world.refunds(send.withdrawal_id)) == ("processing", 0)
    assert world.attempts(send.withdrawal_id)[0].state == "unknown"


@pytest.mark.failure(18)
def test_a_refusal_of_the_first_send_refunds_at_once(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("input_validation_failed", "not a VPA", 400))
    assert world.read(send.withdrawal_id).status == "failed"
    assert (world.refunds(send.withdrawal_id), world.balance()) == (1, 2000)


def test_a_refusal_after_a_throttled_send_is_a_failure(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Throttled("busy", "429"))
    world.advance()
    resend = claim(send.withdrawal_id)
    assert isinstance(resend, Send)
    record_answer(resend, Refused("input_validation_failed", "not a VPA", 400))
    assert world.read(send.withdrawal_id).status == "failed"


def test_an_answer_recorded_after_the_lease_expired_changes_nothing(world: World) -> None:
    """The lease expired and another worker got the payout accepted; then the first worker records its answer."""
    world.credit()
    expired = world.first_send()
    world.advance()
    current = claim(expired.withdrawal_id)
    assert isinstance(current, Send)
    report = report_of("pout_00000000000001", "processing", 5000, reference_id=str(expired.attempt_id))
    record_answer(current, Accepted(report))
    for late in (Unknown("timeout"), Refused("server_error", "no", 400), Throttled("busy", "429")):
        record_answer(expired, late)
        assert world.attempts(expired.withdrawal_id)[0].state == "accepted"
    assert world.read(expired.withdrawal_id).status == "processing"


@pytest.mark.failure(14)
def test_two_payouts_under_one_reference_put_the_withdrawal_on_hold(world: World) -> None:
    world.credit()
    send = world.first_send()
    record_answer(send, Unknown("the wire broke"))
    reports = [
        report_of(f"pout_0000000000000{n}", status, 5000, reference_id=str(send.attempt_id))
        for n, status in enumerate(("failed", "processed"))
    ]
    record_answer(LookUp(send.withdrawal_id, send.attempt_id, ACCOUNT, queries=0), Found(tuple(reports)))
    withdrawal = world.read(send.withdrawal_id)
    assert (withdrawal.status, withdrawal.hold) == ("processing", "two_payouts")
    assert world.refunds(send.withdrawal_id) == 0


def test_a_refusal_after_a_worker_was_lost_is_not_a_failure(world: World) -> None:
    """A worker claimed it and never recorded: it may be paid, whatever the resend returns."""
    world.credit()
    send = world.first_send()
    world.advance()
    resend = claim(send.withdrawal_id)
    assert isinstance(resend, Send)
    record_answer(resend, Refused("input_validation_failed", "no longer allowed", 400))
    assert world.read(send.withdrawal_id).status == "processing"
    assert world.refunds(send.withdrawal_id) == 0


def test_throttled_sends_do_not_use_up_the_resends(world: World) -> None:
    """The provider asks for resends after an unanswered send; a 429 is an answer."""
    world.credit()
    send = world.first_send()
    for _ in range(4):
        record_answer(send, Throttled("busy", "Too many"))
        world.advance()
        resend = claim(send.withdrawal_id)
        assert isinstance(resend, Send)
        send = resend
    resends = 0
    while isinstance(send, Send):
        record_answer(send, Unknown("timed out"))
        world.advance()
        step = claim(send.withdrawal_id)
        assert step is not None
        resends += isinstance(step, Send)
        send = step  # type: ignore[assignment]
    assert resends == 3 and isinstance(send, LookUp)
