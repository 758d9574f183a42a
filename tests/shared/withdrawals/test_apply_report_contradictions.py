"""Several payouts of one withdrawal, and contradictory reports: each new one opens or updates an exception record,
and an approval covers only what its proposer saw.
"""

from typing import Any
from uuid import UUID

import pytest

from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict
from shared.people import exception_records
from shared.proof import checks
from shared.providers.answers import Found, Refused
from shared.providers.razorpayx.answers import build_report as report_of
from shared.providers.steps import LookUp, Send
from shared.states import Decision, Status
from shared.withdrawals import blocks
from tests.support.steps import claim, record_answer
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("people")

ASHA = "operator:asha"
RAVI = "operator:ravi"
FIRST = "pout_00000000000001"
OTHER = "pout_00000000000002"


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    proposal = withdrawals.propose(withdrawal_id, decision, evidence="seen", actor=ASHA)
    withdrawals.approve(proposal.id, actor=RAVI)


def report(
    world: World, attempt: Any, status: str, payout_id: str | None = None, utr: str | None = None
) -> str:
    """Apply this report about an attempt's payout, as from our own call; returns the effect."""
    payout = {"id": payout_id or attempt.payout_id, "amount": 5000, "reference_id": str(attempt.id)}
    return world.receive_report({**payout, "status": status, "utr": utr})


def open_records() -> list[Any]:
    with transaction() as session:
        return exception_records.listing(session)


def is_frozen() -> bool:
    with transaction() as session:
        return blocks.is_frozen(session, "user123")


@pytest.fixture
def two_attempts(world: World) -> tuple[UUID, list[Any]]:
    """A withdrawal whose first attempt failed and whose second was refused: it is refunded."""
    world.broken_on_purpose = True  # the provider pays both later
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
def test_taken_back_coins_cover_one_payout_and_a_second_one_opens_a_record(
    world: World, two_attempts: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, second) = two_attempts
    assert report(world, first, "processed", FIRST, "500000000001") == "conflict"
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert report(world, first, "processed", FIRST, "500000000001") == "repeat"
    assert report(world, second, "processed", OTHER, "500000000002") == "conflict"
    [record] = open_records()
    assert record.theirs["payout_id"] == OTHER and world.read(withdrawal_id).hold == record.kind


@pytest.mark.failure(2)
def test_the_same_status_of_another_payout_updates_the_record(
    world: World, two_attempts: tuple[UUID, list[Any]]
) -> None:
    _, (first, second) = two_attempts
    report(world, first, "processed", FIRST)
    report(world, second, "processed", OTHER)
    [record] = open_records()
    assert record.theirs["payout_id"] == OTHER
    assert [earlier["payout_id"] for earlier in record.theirs["before"]] == [FIRST]
    count = len(world.sql("SELECT FROM exception_records"))
    report(world, first, "processed", FIRST)
    report(world, second, "processed", OTHER)  # both were reported already
    assert len(world.sql("SELECT FROM exception_records")) == count


@pytest.fixture
def unknown(world: World) -> tuple[UUID, LookUp]:
    """A send without an answer, which a worker looks up."""
    world.broken_on_purpose = True
    world.credit()
    world.simulator.scenario("500.always", default=True)
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=9)
    world.advance()
    look_up = claim(withdrawal_id)
    assert isinstance(look_up, LookUp)
    return withdrawal_id, look_up


def record_found(look_up: LookUp, *statuses: str) -> None:
    reference = str(look_up.attempt_id)
    reports = (
        report_of(payout_id, status, 5000, reference)
        for payout_id, status in zip((FIRST, OTHER), statuses, strict=True)
    )
    record_answer(look_up, Found(tuple(reports)))


@pytest.mark.failure(21)
def test_a_new_status_of_one_of_two_payouts_invalidates_an_open_proposal(
    world: World, unknown: tuple[UUID, LookUp]
) -> None:
    withdrawal_id, look_up = unknown
    record_found(look_up, "failed", "failed")
    world.advance()
    proposal = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="both failed", actor=ASHA)
    record_found(look_up, "processed", "failed")
    assert open_records()[0].theirs["payouts"][0]["status"] == "processed"
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(proposal.id, actor=RAVI)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("processing", 0)


@pytest.mark.failure(21)
def test_a_refund_proposed_before_two_payouts_were_found_is_refused(
    world: World, unknown: tuple[UUID, LookUp]
) -> None:
    withdrawal_id, look_up = unknown
    world.sql("UPDATE withdrawals SET hold = 'wallet_frozen'")
    proposal = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="nothing there", actor=ASHA)
    record_found(look_up, "processed", "processed")
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(proposal.id, actor=RAVI)
    assert world.refunds(withdrawal_id) == 0


@pytest.mark.failure(21)
@pytest.mark.parametrize("status", ["processing", "processed"])
def test_no_refund_while_the_last_report_of_an_ended_attempt_says_it_is_live(
    world: World, status: str
) -> None:
    """Refused and to be retried, but then the provider reports the payout."""
    world.broken_on_purpose = True
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("beneficiary_bank_failure", "later", 400))
    attempt = world.attempts(send.withdrawal_id)[0]
    assert report(world, attempt, status, FIRST) == "conflict"
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(send.withdrawal_id, Decision.REFUND)
    world.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    decide(send.withdrawal_id, Decision.REFUND)  # after a day two people may decide
    assert world.read(send.withdrawal_id).status == "failed" and is_frozen()


@pytest.mark.failure(2)
def test_each_report_that_contradicts_a_decision_puts_the_withdrawal_on_hold_again(world: World) -> None:
    world.broken_on_purpose = True
    withdrawal_id = world.paid()
    attempt = world.attempts(withdrawal_id)[0]
    assert report(world, attempt, "failed") == "conflict"
    decide(withdrawal_id, Decision.REFUND)
    assert report(world, attempt, "processed") == "conflict" and is_frozen()
    decide(withdrawal_id, Decision.TAKE_BACK)
    assert report(world, attempt, "processed") == "repeat"
    assert report(world, attempt, "reversed") == "conflict"
    decide(withdrawal_id, Decision.GIVE_BACK)
    assert report(world, attempt, "reversed") in ("late", "repeat")  # decided already
    assert checks.run().holds


@pytest.mark.failure(21)
def test_two_people_can_refund_a_payment_that_only_a_webhook_reported(world: World) -> None:
    world.broken_on_purpose = True
    withdrawal_id = world.paid()
    world.sql_without_rules("UPDATE payout_attempts SET unconfirmed = true")
    world.sql_without_rules("UPDATE withdrawals SET hold = 'utr_of_another'")
    decide(withdrawal_id, Decision.REFUND)
    assert world.read(withdrawal_id).status == "failed"


@pytest.mark.failure(2)
def test_a_payout_paid_again_after_a_reversal_is_held_and_its_coins_not_given_back(
    world: World, two_attempts: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, _) = two_attempts
    report(world, first, "processed", FIRST)
    decide(withdrawal_id, Decision.TAKE_BACK)
    report(world, first, "reversed", FIRST)
    assert report(world, first, "processed", FIRST) == "conflict"
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(withdrawal_id, Decision.GIVE_BACK)


@pytest.mark.failure(2)
def test_coins_are_not_taken_back_for_a_reversed_payment(
    world: World, two_attempts: tuple[UUID, list[Any]]
) -> None:
    withdrawal_id, (first, _) = two_attempts
    report(world, first, "processed", FIRST)
    report(world, first, "reversed", FIRST)
    with pytest.raises(BadRequest, match="It was not paid in the end"):
        decide(withdrawal_id, Decision.TAKE_BACK)


@pytest.mark.failure(21)
def test_a_withdrawal_that_continues_after_a_hold_is_queried_once_more(world: World) -> None:
    """It was reversed while on hold; the decision to continue does not lose that report."""
    withdrawal_id = world.paid()
    attempt = world.attempts(withdrawal_id)[0]
    world.sql("UPDATE withdrawals SET hold = 'two_payouts'")
    world.sql("UPDATE payout_attempts SET recheck_at = NULL")
    world.set_status(attempt.payout_id, "reversed")
    assert report(world, attempt, "reversed") == "conflict"
    decide(withdrawal_id, Decision.GO_ON)
    world.bring_on(withdrawal_id)
    assert (world.read(withdrawal_id).status, world.refunds(withdrawal_id)) == ("failed", 1)


@pytest.mark.failure(2)
def test_a_utr_from_an_untrue_webhook_is_removed(world: World) -> None:
    """Otherwise the withdrawal that the UTR belongs to could not use it."""
    world.credit()
    send = world.first_send()
    record_answer(send, world.perform(send))
    attempt = world.attempts(send.withdrawal_id)[0]
    payout = {"id": attempt.payout_id, "amount": 5000, "reference_id": str(attempt.id), "utr": "434343434343"}
    assert world.webhook("payout.processed", {**payout, "status": "processed"}, "e1") == "pay"
    assert world.read(send.withdrawal_id).utr == "434343434343"
    world.set_status(attempt.payout_id, "failed", "beneficiary_bank_failure")
    world.receive_report({**payout, "status": "failed", "utr": None})
    assert world.read(send.withdrawal_id).utr is world.attempts(send.withdrawal_id)[0].utr is None
