"""Missed updates are applied through `apply_report`; contradictions are recorded and left to people."""

from typing import Any
from uuid import UUID

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.people import exception_records
from shared.providers.answers import Refused
from shared.reconciliation import owed_coins
from shared.states import Decision
from shared.withdrawals import blocks
from tests.shared.reconciliation.days import Day, kinds, sent
from tests.support import steps
from tests.support.world import World, payment

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("people")]


def test_a_missed_final_state_is_applied_and_is_no_discrepancy(day: Day) -> None:
    withdrawal_id = sent(day.world)
    assert day.world.read(withdrawal_id).status == "processing"
    result = day.run()
    assert (result.outcome, result.applied) == ("clean", 1)
    assert day.world.read(withdrawal_id).status == "completed" and day.rows() == []


def test_every_repair_is_an_event_that_names_reconciliation(day: Day) -> None:
    withdrawal_id = sent(day.world)
    day.run()
    events = day.world.sql(
        "SELECT actor, to_status FROM withdrawal_events WHERE withdrawal_id = :id ORDER BY id DESC LIMIT 1",
        id=withdrawal_id,
    )
    assert tuple(events[0]) == ("reconciliation", "completed")


def test_a_missed_failure_is_refunded_once(day: Day) -> None:
    withdrawal_id = sent(day.world, "fail.bank_account_closed@sim")
    assert day.run().outcome == "clean"
    assert day.run().applied == 0
    assert day.world.refunds(withdrawal_id) == 1


def test_a_missed_reversal_is_refunded_once(day: Day) -> None:
    withdrawal_id = day.world.paid()
    day.provider.set_status(day.payout(withdrawal_id), "reversed")
    assert day.run().outcome == "clean"
    assert day.run().applied == 0
    assert day.world.refunds(withdrawal_id) == 1


def test_a_lost_reply_is_found_and_adopted(day: Day) -> None:
    withdrawal_id = sent(day.world, "drop@sim")
    assert day.attempt(withdrawal_id).payout_id is None
    assert day.run().outcome == "clean"
    assert day.world.read(withdrawal_id).status == "completed"


def test_a_missing_utr_is_stored(day: Day) -> None:
    withdrawal_id = day.world.paid()
    utr = day.attempt(withdrawal_id).utr
    day.world.sql("UPDATE payout_attempts SET utr = NULL")
    day.world.sql("UPDATE withdrawals SET utr = NULL")
    assert day.run().outcome == "clean"
    assert day.attempt(withdrawal_id).utr == day.world.read(withdrawal_id).utr == utr


def test_a_different_utr_is_reported_and_not_overwritten(day: Day) -> None:
    withdrawal_id = day.world.paid()
    day.world.sql("UPDATE payout_attempts SET utr = '4711'")
    assert day.run().outcome == "exceptions"
    assert kinds(day) == ["utr_differs"] and day.attempt(withdrawal_id).utr == "4711"


def test_two_unknown_payouts_with_one_reference_hold_the_withdrawal(day: Day) -> None:
    day.world.paid()
    withdrawal_id = sent(day.world, "drop@sim")
    day.provider.pay(50_00, str(day.attempt(withdrawal_id).id))
    day.world.broken_on_purpose = True
    day.run()
    assert kinds(day) == ["two_payouts"] and day.attempt(withdrawal_id).payout_id is None
    assert day.world.read(withdrawal_id).hold == "two_payouts"


def test_a_payout_marked_paid_by_an_operator_and_reversed_is_reported(day: Day) -> None:
    """We never received the payout's id, so nothing polls it, and the webhook was lost."""
    withdrawal_id = sent(day.world, "drop@sim")
    proposal = withdrawals.propose(
        withdrawal_id, Decision.PAID, evidence="Their dashboard", actor="operator:asha", paid=payment()
    )
    withdrawals.approve(proposal.id, actor="operator:ravi")
    assert day.attempt(withdrawal_id).state == "refused"
    [payout] = day.world.simulator.payouts(str(day.attempt(withdrawal_id).id))
    day.provider.set_status(payout["id"], "reversed")
    day.run()
    assert kinds(day) == ["reversed_after_refused"]
    assert day.world.read(withdrawal_id).hold == "reversed_after_refused"


def test_an_abandoned_attempt_that_is_alive_at_the_provider_stops_resending(day: Day) -> None:
    withdrawal_id = sent(day.world, "fail.beneficiary_psp_offline@sim")
    day.run()
    assert day.attempt(withdrawal_id).state == "failed"
    day.provider.set_status(day.payout(withdrawal_id), "processing")
    day.run()
    assert kinds(day) == ["processing_after_failed"]
    for _ in range(3):
        day.world.step(withdrawal_id)
    assert len(day.world.attempts(withdrawal_id)) == 1


@pytest.mark.failure(2)
def test_a_payment_after_the_refund_is_followed_to_its_end(day: Day) -> None:
    """Without webhooks and polls, the nightly runs find the payment, hold it and follow it to its end."""
    world = day.world
    withdrawal_id, payout = paid_late(world)
    day.run()
    assert kinds(day) == ["processed_after_refused"]
    with transaction() as session:
        assert blocks.wallet_block(session, "user123") is not None
    decide(withdrawal_id, Decision.TAKE_BACK)
    run = day.run()
    assert (run.outcome, run.totals.paid, run.totals.remainder) == ("clean", 5590, 0)

    day.provider.set_status(payout["id"], "reversed")
    day.run()
    assert kinds(day) == ["reversed_after_refused"] and world.balance() == 1500
    day.run()
    assert sorted(kinds(day)) == [
        "reversed_after_refused",
        "reversed_not_refunded",
    ]  # the coins are still owed
    decide(withdrawal_id, Decision.GIVE_BACK)
    assert (world.balance(), day.run().outcome) == (2000, "clean")


@pytest.mark.failure(2)
def test_coins_that_were_not_returned_are_found_each_night(day: Day) -> None:
    """The record of the reversal was closed, but the coins were never given back."""
    world = day.world
    withdrawal_id, payout = paid_late(world)
    world.receive_report(payout)
    decide(withdrawal_id, Decision.TAKE_BACK)
    world.receive_report(world.set_status(payout["id"], "reversed"))
    with transaction() as session:
        for record in exception_records.listing(session):
            exception_records.close(session, record.id, resolution="seen", actor="operator:asha")
    day.run()
    assert kinds(day) == ["reversed_not_refunded"]


def paid_late(world: World) -> tuple[UUID, dict[str, Any]]:
    """A withdrawal that was refunded as refused although the provider paid it, unknown to us."""
    world.credit()
    send = world.first_send()
    steps.record_answer(send, Refused("input_validation_failed", "no", 400))
    return send.withdrawal_id, world.arrive_late(send.withdrawal_id)


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    proposal = withdrawals.propose(withdrawal_id, decision, evidence="Their statement", actor="operator:asha")
    withdrawals.approve(proposal.id, actor="operator:ravi")


@pytest.mark.failure(2)
def test_owed_coins_are_reported_each_night_even_for_a_compared_day(day: Day) -> None:
    world = day.world
    withdrawal_id, payout = paid_late(world)
    world.receive_report(payout)
    decide(withdrawal_id, Decision.TAKE_BACK)
    world.receive_report(world.set_status(payout["id"], "reversed"))
    with transaction() as session:
        for record in exception_records.listing(session):
            exception_records.close(session, record.id, resolution="seen", actor="operator:asha")
        assert owed_coins.open_records(session) == 1
    assert kinds(day) == ["reversed_not_refunded"]
    decide(withdrawal_id, Decision.GIVE_BACK)
    with transaction() as session:
        assert owed_coins.open_records(session) == 0 and exception_records.listing(session) == []


@pytest.mark.failure(2)
def test_a_reversed_payout_that_is_paid_again_is_held_and_can_be_recovered(day: Day) -> None:
    world = day.world
    withdrawal_id = world.paid()
    payout_id = day.payout(withdrawal_id)
    day.provider.set_status(payout_id, "reversed")
    day.run()
    day.provider.set_status(payout_id, "processed")
    day.run()
    assert kinds(day) == ["processed_after_reversed"]
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert (world.balance(), day.run().outcome) == (1500, "clean")
