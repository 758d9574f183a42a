"""Several payouts of one withdrawal, and words that come after words: each new one reaches people, and is decided
on by whoever has seen it.
"""

from typing import Any
from uuid import UUID

import pytest

from shared import blocks, checks, db, exception_records, withdrawals
from shared.errors import BadRequest, Conflict
from shared.razorpayx.answers import Found, PayoutReport, Refused
from shared.states import Decision, Status
from shared.steps import LookUp, Send
from shared.withdrawals import claim, record_answer
from tests.world import World

pytestmark = pytest.mark.usefixtures("people")

ASHA, RAVI = "operator:asha", "operator:ravi"
ONE, OTHER = "pout_00000000000001", "pout_00000000000002"


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    made = withdrawals.propose(withdrawal_id, decision, evidence="seen", actor=ASHA)
    withdrawals.approve(made.id, actor=RAVI)


def says(
    world: World, attempt: Any, status: str, payout_id: str | None = None, utr: str | None = None
) -> str:
    """A call of ours is told this of an attempt's payout."""
    told = {"id": payout_id or attempt.payout_id, "amount": 5000, "reference_id": str(attempt.id)}
    return world.hears({**told, "status": status, "utr": utr})


def open_records() -> list[Any]:
    with db.transaction() as session:
        return exception_records.listing(session)


def is_frozen() -> bool:
    with db.transaction() as session:
        return blocks.is_frozen(session, "user123")


@pytest.fixture
def two(world: World) -> tuple[UUID, list[Any]]:
    """A withdrawal whose first attempt failed and whose second one was refused: its coins are back."""
    world.broken_on_purpose = True  # RazorpayX pays both, in what follows
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("beneficiary_bank_failure", "later", 400))
    world.advance(7200)
    step = claim(send.withdrawal_id)
    assert isinstance(step, Send)
    record_answer(step, Refused("input_validation_failed", "no", 400))
    assert world.read(send.withdrawal_id).status == Status.FAILED and world.balance() == 2000
    return send.withdrawal_id, world.attempts(send.withdrawal_id)


@pytest.mark.failure(2)
def test_coins_that_were_taken_back_pay_for_one_payout_and_a_second_calls_people(
    world: World, two: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, second) = two
    assert says(world, first, "processed", ONE, "500000000001") == "conflict"
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert says(world, first, "processed", ONE, "500000000001") == "repeat"
    assert says(world, second, "processed", OTHER, "500000000002") == "conflict"
    [record] = open_records()
    assert record.theirs["payout_id"] == OTHER and world.read(withdrawal_id).review == record.kind


@pytest.mark.failure(2)
def test_the_same_word_of_another_payout_is_news(world: World, two: tuple[UUID, list[Any]]) -> None:
    _, (first, second) = two
    says(world, first, "processed", ONE)
    says(world, second, "processed", OTHER)
    [record] = open_records()
    assert record.theirs["payout_id"] == OTHER
    assert [said["payout_id"] for said in record.theirs["before"]] == [ONE]
    number = len(world.sql("SELECT FROM exception_records"))
    says(world, first, "processed", ONE)
    says(world, second, "processed", OTHER)  # told, both of them
    assert len(world.sql("SELECT FROM exception_records")) == number


@pytest.fixture
def unknown(world: World) -> tuple[UUID, LookUp]:
    """A send without an answer, which somebody looks up; its user's wallet is frozen, so people look at it."""
    world.broken_on_purpose = True
    world.credit()
    world.simulator.scenario("500.always", default=True)
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=9)
    world.advance()
    look_up = claim(withdrawal_id)
    assert isinstance(look_up, LookUp)
    return withdrawal_id, look_up


def found(look_up: LookUp, *statuses: str) -> None:
    reference = str(look_up.attempt_id)
    reports = (
        PayoutReport(payout_id, status, 5000, reference)
        for payout_id, status in zip((ONE, OTHER), statuses, strict=True)
    )
    record_answer(look_up, Found(tuple(reports)))


@pytest.mark.failure(21)
def test_what_became_of_one_of_two_payouts_is_news_and_an_approval_of_before_is_refused(
    world: World, unknown: tuple[UUID, LookUp]
) -> None:
    withdrawal_id, look_up = unknown
    found(look_up, "failed", "failed")
    world.advance()
    made = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="both failed", actor=ASHA)
    found(look_up, "processed", "failed")
    assert open_records()[0].theirs["payouts"][0]["status"] == "processed"
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(made.id, actor=RAVI)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("processing", 0)


@pytest.mark.failure(21)
def test_a_refund_that_was_proposed_before_two_payouts_were_found_is_refused(
    world: World, unknown: tuple[UUID, LookUp]
) -> None:
    withdrawal_id, look_up = unknown
    world.sql("UPDATE withdrawals SET review = 'wallet_frozen'")
    made = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="nothing there", actor=ASHA)
    found(look_up, "processed", "processed")
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(made.id, actor=RAVI)
    assert world.refunds(withdrawal_id) == 0


@pytest.mark.failure(21)
@pytest.mark.parametrize("word", ["processing", "processed"])
def test_nothing_is_refunded_while_the_last_word_of_an_ended_attempt_is_that_it_lives(
    world: World, word: str
) -> None:
    """Refused, to be tried anew; and then RazorpayX has it all the same."""
    world.broken_on_purpose = True
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("beneficiary_bank_failure", "later", 400))
    attempt = world.attempts(send.withdrawal_id)[0]
    assert says(world, attempt, word, ONE) == "conflict"
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(send.withdrawal_id, Decision.REFUND)
    world.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    decide(send.withdrawal_id, Decision.REFUND)  # two people know better, and say so
    assert world.read(send.withdrawal_id).status == "failed" and is_frozen()


@pytest.mark.failure(2)
def test_what_people_called_sent_back_and_lives_calls_people_each_time(world: World) -> None:
    world.broken_on_purpose = True
    withdrawal_id = world.paid()
    attempt = world.attempts(withdrawal_id)[0]
    assert says(world, attempt, "failed") == "conflict"
    decide(withdrawal_id, Decision.REFUND)
    assert says(world, attempt, "processed") == "conflict" and is_frozen()
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert says(world, attempt, "processed") == "repeat"
    assert says(world, attempt, "reversed") == "conflict"
    decide(withdrawal_id, Decision.GIVE_BACK)
    assert says(world, attempt, "reversed") in ("late", "repeat")  # they know
    assert checks.run().holds


@pytest.mark.failure(21)
def test_a_payment_that_only_a_webhook_told_of_can_be_refunded_by_two_people(world: World) -> None:
    world.broken_on_purpose = True
    withdrawal_id = world.paid()
    world.sql_without_rules("UPDATE payout_attempts SET unconfirmed = true")
    world.sql_without_rules("UPDATE withdrawals SET review = 'utr_of_another'")
    decide(withdrawal_id, Decision.REFUND)
    assert world.read(withdrawal_id).status == "failed"


@pytest.mark.failure(2)
def test_paid_sent_back_and_paid_again_is_a_new_matter_each_time(
    world: World, two: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, _) = two
    says(world, first, "processed", ONE)
    decide(withdrawal_id, Decision.TAKE_BACK)
    says(world, first, "reversed", ONE)
    assert says(world, first, "processed", ONE) == "conflict"
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(withdrawal_id, Decision.GIVE_BACK)


@pytest.mark.failure(2)
def test_coins_are_not_taken_back_for_a_payment_that_came_back(
    world: World, two: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, _) = two
    says(world, first, "processed", ONE)
    says(world, first, "reversed", ONE)
    with pytest.raises(BadRequest, match="It was not paid in the end"):
        decide(withdrawal_id, Decision.TAKE_BACK)


@pytest.mark.failure(21)
def test_what_is_explained_is_asked_for_once_more(world: World) -> None:
    """It came back while it was blocked; whoever explains the block does not lose that."""
    withdrawal_id = world.paid()
    attempt = world.attempts(withdrawal_id)[0]
    world.sql("UPDATE withdrawals SET review = 'two_payouts'")
    world.sql("UPDATE payout_attempts SET recheck_at = NULL")
    world.becomes(attempt.payout_id, "reversed")
    assert says(world, attempt, "reversed") == "conflict"
    decide(withdrawal_id, Decision.GO_ON)
    world.bring_on(withdrawal_id)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("failed", 1)


@pytest.mark.failure(2)
def test_a_utr_that_only_a_webhook_told_goes_when_it_was_not_so(world: World) -> None:
    """Otherwise it would be burnt for the withdrawal whose it is."""
    world.credit()
    send = world.first_send()
    record_answer(send, world.perform(send))
    attempt = world.attempts(send.withdrawal_id)[0]
    told = {"id": attempt.payout_id, "amount": 5000, "reference_id": str(attempt.id), "utr": "434343434343"}
    assert world.webhook("payout.processed", {**told, "status": "processed"}, "e1") == "pay"
    assert world.read(send.withdrawal_id).utr == "434343434343"
    world.becomes(attempt.payout_id, "failed", "beneficiary_bank_failure")
    world.hears({**told, "status": "failed", "utr": None})
    assert world.read(send.withdrawal_id).utr is world.attempts(send.withdrawal_id)[0].utr is None
