"""A payment that arrives after its coins went back: no coin is lost, whatever RazorpayX says next and when."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from shared import blocks, checks, db, exception_records, withdrawals
from shared.errors import BadRequest, Conflict
from shared.explaining import explain
from shared.ids import new_id
from shared.models import ExceptionRecord
from shared.razorpayx.answers import Refused
from shared.states import Decision
from shared.withdrawals import record_answer
from tests.world import World

pytestmark = pytest.mark.usefixtures("people")

ASHA, RAVI = "operator:asha", "operator:ravi"
SEEN = "RazorpayX dashboard and the bank's statement of 30 November"


def given_back(world: World) -> UUID:
    """Nothing was heard of its request for an hour of answered look-ups: its coins are back."""
    world.credit()
    world.simulator.scenario("500.always", default=True)
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=9)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    assert world.finish(withdrawal_id) == "failed"
    assert (world.balance(), world.refunds(withdrawal_id)) == (2000, 1)
    return withdrawal_id


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    made = withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA)
    withdrawals.approve(made.id, actor=RAVI)


def records() -> list[ExceptionRecord]:
    with db.transaction() as session:
        return exception_records.listing(session)


@pytest.fixture
def late(world: World) -> tuple[UUID, dict[str, Any]]:
    """It arrived after all, and our own look at it says so."""
    withdrawal_id = given_back(world)
    payout = world.arrives_after_all(withdrawal_id)
    assert world.hears(payout) == "conflict"
    return withdrawal_id, payout


@pytest.mark.failure(2)
def test_a_late_payment_whose_coins_were_taken_back_and_that_returns_gives_them_back_once(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    """The whole of it: lost reply, none, coins back, paid, coins taken back, sent back, coins back."""
    withdrawal_id, payout = late
    decide(withdrawal_id, Decision.TAKE_BACK)
    row = world.read(withdrawal_id)
    assert (row.status, row.review, world.balance(), records()) == ("failed", None, 1500, [])
    assert row.failure_reason is not None and "taken from your balance" in row.failure_reason
    assert world.hears(payout) == "repeat" and records() == []  # they know
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(withdrawal_id, Decision.GIVE_BACK)

    assert world.hears(world.becomes(payout["id"], "reversed")) == "conflict"
    [record] = records()
    assert (record.kind, record.withdrawal_id) == ("reversed_after_refused", withdrawal_id)
    assert world.balance() == 1500  # nothing moves until two people have decided
    decide(withdrawal_id, Decision.GIVE_BACK)
    row = world.read(withdrawal_id)
    assert (row.status, row.review, world.balance(), records()) == ("failed", None, 2000, [])
    assert row.failure_reason is not None and "Your coins are back" in row.failure_reason
    for again in (Decision.GIVE_BACK, Decision.REFUND):
        with pytest.raises(BadRequest):
            decide(withdrawal_id, again)
    assert (world.balance(), world.refunds(withdrawal_id)) == (2000, 1)
    assert checks.run().holds


@pytest.mark.failure(2)
def test_a_payment_after_the_coins_are_back_freezes_the_wallet_until_people_have_looked(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    withdrawal_id, payout = late
    with db.transaction() as session:
        frozen = blocks.of_wallet(session, "user123")
    assert frozen is not None and str(withdrawal_id) in frozen.reason and frozen.added_by == "system"
    with pytest.raises(BadRequest, match="Wallet frozen"):
        world.request(upi_id="another@okaxis")
    world.hears(payout)  # told once more: it is frozen already
    with db.transaction() as session:
        made = blocks.propose_unfreeze(session, "user123", reason="explained", actor=ASHA)
        blocks.approve(session, made.id, actor=RAVI)
    assert world.read(world.request(upi_id="another@okaxis")).status == "pending"


@pytest.mark.failure(2)
@pytest.mark.parametrize("said", ["reversed", "failed", "cancelled"])
def test_an_end_that_nothing_contradicts_freezes_nobody(world: World, said: str) -> None:
    """It was never taken, or came back: whatever of that is told again, the user may go on."""
    withdrawal_id = given_back(world)
    world.hears(world.arrives_after_all(withdrawal_id, said))
    with db.transaction() as session:
        assert blocks.of_wallet(session, "user123") is None


@pytest.mark.failure(2)
def test_a_record_that_is_open_goes_on_with_the_newest_word(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    withdrawal_id, payout = late
    [before] = records()
    with db.transaction() as session:
        exception_records.take(session, before.id, owner=ASHA)
    world.hears(world.becomes(payout["id"], "reversed"))
    [record] = records()
    assert (record.kind, record.owner) == ("reversed_after_refused", ASHA)
    assert record.theirs["provider_status"] == "reversed"
    [said] = record.theirs["before"]
    assert (said["record"], said["provider_status"]) == (before.id, "processed")
    assert world.read(withdrawal_id).review == "reversed_after_refused"
    with db.transaction() as session, pytest.raises(Conflict) as refused:
        exception_records.close(session, before.id, resolution="as if", actor=ASHA)
    assert f"goes on as #{record.id}" in refused.value.details


@pytest.mark.failure(2)
def test_a_proposal_to_take_back_counts_for_no_other_word(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    """While one waits for the second person, the bank sends it back: what was proposed is out of date."""
    withdrawal_id, payout = late
    made = withdrawals.propose(withdrawal_id, Decision.TAKE_BACK, evidence=SEEN, actor=ASHA)
    world.hears(world.becomes(payout["id"], "reversed"))
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(made.id, actor=RAVI)
    assert world.balance() == 2000


def test_coins_are_taken_back_only_after_a_contradiction(world: World) -> None:
    withdrawal_id = given_back(world)
    with pytest.raises(BadRequest, match="Nothing says that it was paid"):
        decide(withdrawal_id, Decision.TAKE_BACK)


def test_coins_that_are_spent_are_not_taken_back(world: World, late: tuple[UUID, dict[str, Any]]) -> None:
    withdrawal_id, _ = late
    world.sql_without_rules("UPDATE wallets SET balance_coins = 499")
    with pytest.raises(BadRequest, match="Insufficient"):
        decide(withdrawal_id, Decision.TAKE_BACK)
    world.sql_without_rules("UPDATE wallets SET balance_coins = 2000")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_taking_coins_back_needs_who_may_move_coins(
    world: World, late: tuple[UUID, dict[str, Any]], role: str
) -> None:
    world.operators("asha", role=role)
    with pytest.raises(Conflict, match="Your role may not do that"):
        withdrawals.propose(late[0], Decision.TAKE_BACK, evidence=SEEN, actor=ASHA)


@pytest.mark.parametrize("decision", [Decision.TAKE_BACK, Decision.GIVE_BACK])
def test_rejecting_a_correction_needs_who_may_move_coins(
    world: World, late: tuple[UUID, dict[str, Any]], decision: Decision
) -> None:
    """Who may not propose that coins move does not throw out either what finance proposed."""
    withdrawal_id, payout = late
    if decision == Decision.GIVE_BACK:
        decide(withdrawal_id, Decision.TAKE_BACK)
        world.hears(world.becomes(payout["id"], "reversed"))
    made = withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA)
    world.operators("ravi", role="operator")
    with pytest.raises(Conflict, match="Your role may not do that"):
        withdrawals.reject(made.id, actor=RAVI)
    world.operators("ravi", role="finance")
    assert withdrawals.reject(made.id, actor=RAVI).outcome == "rejected"


def test_the_story_tells_of_coins_that_were_taken_back(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    decide(late[0], Decision.TAKE_BACK)
    with db.transaction() as session:
        words = [line.words for line in explain(session, late[0]).lines]
    assert {"adjustment -500 coins", f"{ASHA} proposed: take_back"} <= set(words)


@pytest.mark.failure(2)
def test_what_failed_there_and_was_paid_late_is_corrected_in_the_same_way(world: World) -> None:
    """Refused in so many words, and paid all the same."""
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("input_validation_failed", "no", 400))
    assert world.hears(world.arrives_after_all(send.withdrawal_id)) == "conflict"
    decide(send.withdrawal_id, Decision.TAKE_BACK)
    assert world.balance() == 1500


# --- what the database refuses, past all that Python asks

INSERT = """
    INSERT INTO adjustments (id, kind, user_id, coins, reason, needs_two, proposed_by, decided_by, decided_at, outcome,
        withdrawal_id, resolution_id)
    SELECT :id, 'adjustment', '{user}', {coins}, 'x', true, '{one}', '{two}', now(), 'approved', withdrawal_id, id
    FROM resolutions WHERE decision = '{decision}' AND outcome = 'approved'
"""
RIGHT = {"user": "user123", "coins": 500, "one": ASHA, "two": RAVI, "decision": "take_back"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"coins": -500},  # taken a second time
        {"coins": 1},
        {"coins": 500},  # given back, and nobody decided that
        {"coins": 500, "user": "user456"},
        {"coins": 500, "one": RAVI, "two": ASHA},
    ],
    ids=str,
)
def test_the_database_ties_each_correction_to_a_withdrawal_and_a_decision(
    world: World, late: tuple[UUID, dict[str, Any]], wrong: dict[str, Any]
) -> None:
    decide(late[0], Decision.TAKE_BACK)
    world.credit("user456")
    with pytest.raises(IntegrityError):
        world.sql(INSERT.format(**RIGHT | wrong), id=new_id())


def test_the_database_ties_no_adjustment_afterwards(world: World, late: tuple[UUID, dict[str, Any]]) -> None:
    decide(late[0], Decision.TAKE_BACK)
    with pytest.raises(IntegrityError):
        world.sql("UPDATE adjustments SET withdrawal_id = NULL, resolution_id = NULL")
