"""What only was not heard of is applied through the one door; what contradicts is told and left alone."""

from typing import Any
from uuid import UUID

import pytest

from shared import blocks, db, exception_records, withdrawals
from shared.razorpayx.answers import Refused
from shared.reconciliation import owed
from shared.states import Decision
from tests.integration.reconciliation.days import Day, kinds, sent
from tests.world import World, payment

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("people")]


def test_a_missed_end_is_applied_and_is_no_discrepancy(day: Day) -> None:
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
    day.provider.becomes(day.payout(withdrawal_id), "reversed")
    assert day.run().outcome == "clean"
    assert day.run().applied == 0
    assert day.world.refunds(withdrawal_id) == 1


def test_a_lost_reply_is_found_and_adopted(day: Day) -> None:
    withdrawal_id = sent(day.world, "drop@sim")
    assert day.attempt(withdrawal_id).payout_id is None
    assert day.run().outcome == "clean"
    assert day.world.read(withdrawal_id).status == "completed"


def test_a_utr_that_is_only_missing_here_is_learnt(day: Day) -> None:
    withdrawal_id = day.world.paid()
    utr = day.attempt(withdrawal_id).utr
    day.world.sql("UPDATE payout_attempts SET utr = NULL")
    day.world.sql("UPDATE withdrawals SET utr = NULL")
    assert day.run().outcome == "clean"
    assert day.attempt(withdrawal_id).utr == day.world.read(withdrawal_id).utr == utr


def test_another_utr_is_told_and_not_overwritten(day: Day) -> None:
    withdrawal_id = day.world.paid()
    day.world.sql("UPDATE payout_attempts SET utr = '4711'")
    assert day.run().outcome == "exceptions"
    assert kinds(day) == ["utr_differs"] and day.attempt(withdrawal_id).utr == "4711"


def test_two_unknown_payouts_of_one_reference_stop_it_and_neither_is_picked(day: Day) -> None:
    day.world.paid()
    withdrawal_id = sent(day.world, "drop@sim")
    day.provider.pay(50_00, str(day.attempt(withdrawal_id).id))
    day.world.broken_on_purpose = True
    day.run()
    assert kinds(day) == ["two_payouts"] and day.attempt(withdrawal_id).payout_id is None
    assert day.world.read(withdrawal_id).review == "two_payouts"


def test_what_people_called_paid_and_came_back_there_is_told(day: Day) -> None:
    """Its payout was never named to us, so nobody looks at it again; and the webhook was lost."""
    withdrawal_id = sent(day.world, "drop@sim")
    said = withdrawals.propose(
        withdrawal_id, Decision.PAID, evidence="Their dashboard", actor="operator:asha", paid=payment()
    )
    withdrawals.approve(said.id, actor="operator:ravi")
    assert day.attempt(withdrawal_id).state == "refused"
    [payout] = day.world.simulator.payouts(str(day.attempt(withdrawal_id).id))
    day.provider.becomes(payout["id"], "reversed")
    day.run()
    assert kinds(day) == ["reversed_after_refused"]
    assert day.world.read(withdrawal_id).review == "reversed_after_refused"


def test_what_is_given_up_here_and_lives_there_is_sent_no_more(day: Day) -> None:
    withdrawal_id = sent(day.world, "fail.beneficiary_psp_offline@sim")
    day.run()
    assert day.attempt(withdrawal_id).state == "failed"
    day.provider.becomes(day.payout(withdrawal_id), "processing")
    day.run()
    assert kinds(day) == ["processing_after_failed"]
    for _ in range(3):
        day.world.step(withdrawal_id)
    assert len(day.world.attempts(withdrawal_id)) == 1


@pytest.mark.failure(2)
def test_a_payment_after_the_refund_is_found_by_the_comparison_through_to_its_end(day: Day) -> None:
    """No webhook, and no look of ours: the night's comparison alone finds it, holds it, and lets it rest."""
    world = day.world
    withdrawal_id, payout = paid_late(world)
    day.run()
    assert kinds(day) == ["processed_after_refused"]
    with db.transaction() as session:
        assert blocks.of_wallet(session, "user123") is not None
    decide(withdrawal_id, Decision.TAKE_BACK)
    run = day.run()
    assert (run.outcome, run.totals.paid, run.totals.remainder) == ("clean", 5590, 0)

    day.provider.becomes(payout["id"], "reversed")
    day.run()
    assert kinds(day) == ["reversed_after_refused"] and world.balance() == 1500
    day.run()
    assert sorted(kinds(day)) == [
        "reversed_after_refused",
        "reversed_not_refunded",
    ]  # and still not given back
    decide(withdrawal_id, Decision.GIVE_BACK)
    assert (world.balance(), day.run().outcome) == (2000, "clean")


@pytest.mark.failure(2)
def test_coins_that_were_taken_back_and_never_given_back_are_found_each_night(day: Day) -> None:
    """The record of the reversal was closed, and the coins forgotten."""
    world = day.world
    withdrawal_id, payout = paid_late(world)
    world.hears(payout)
    decide(withdrawal_id, Decision.TAKE_BACK)
    world.hears(world.becomes(payout["id"], "reversed"))
    with db.transaction() as session:
        for record in exception_records.listing(session):
            exception_records.close(session, record.id, resolution="seen", actor="operator:asha")
    day.run()
    assert kinds(day) == ["reversed_not_refunded"]


def paid_late(world: World) -> tuple[UUID, dict[str, Any]]:
    """Refused, its coins back, and paid by RazorpayX all the same; nobody here has heard of that."""
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, Refused("input_validation_failed", "no", 400))
    return send.withdrawal_id, world.arrives_after_all(send.withdrawal_id)


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    made = withdrawals.propose(withdrawal_id, decision, evidence="Their statement", actor="operator:asha")
    withdrawals.approve(made.id, actor="operator:ravi")


@pytest.mark.failure(2)
def test_coins_that_are_owed_are_told_each_night_although_the_day_was_compared(day: Day) -> None:
    world = day.world
    withdrawal_id, payout = paid_late(world)
    world.hears(payout)
    decide(withdrawal_id, Decision.TAKE_BACK)
    world.hears(world.becomes(payout["id"], "reversed"))
    with db.transaction() as session:
        for record in exception_records.listing(session):
            exception_records.close(session, record.id, resolution="seen", actor="operator:asha")
        assert owed.tell(session) == 1
    assert kinds(day) == ["reversed_not_refunded"]
    decide(withdrawal_id, Decision.GIVE_BACK)
    with db.transaction() as session:
        assert owed.tell(session) == 0 and exception_records.listing(session) == []


@pytest.mark.failure(2)
def test_what_was_sent_back_and_is_paid_again_is_held_and_can_be_taken_back(day: Day) -> None:
    world = day.world
    withdrawal_id = world.paid()
    payout_id = day.payout(withdrawal_id)
    day.provider.becomes(payout_id, "reversed")
    day.run()
    day.provider.becomes(payout_id, "processed")
    day.run()
    assert kinds(day) == ["processed_after_reversed"]
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert (world.balance(), day.run().outcome) == (1500, "clean")
