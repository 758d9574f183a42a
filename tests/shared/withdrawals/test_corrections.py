"""Payments that arrive after the refund: no coin is lost, whatever the provider reports next."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict
from shared.ids import new_id
from shared.models import ExceptionRecord
from shared.monitoring.explain import explain
from shared.people import exception_records
from shared.proof import checks
from shared.providers.answers import Refused
from shared.states import Decision
from shared.withdrawals import blocks
from tests.support.steps import record_answer
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("people")

ASHA = "operator:asha"
RAVI = "operator:ravi"
SEEN = "RazorpayX dashboard and the bank's statement of 30 November"


def refunded(world: World) -> UUID:
    """A withdrawal that every look-up missed for an hour: its coins are refunded."""
    world.credit()
    world.simulator.scenario("500.always", default=True)
    withdrawal_id = world.request()
    world.finish(withdrawal_id, steps=9)
    world.sql("UPDATE payout_attempts SET absent_since = absent_since - interval '2 hours'")
    assert world.finish(withdrawal_id) == "failed"
    assert (world.balance(), world.refunds(withdrawal_id)) == (2000, 1)
    return withdrawal_id


def decide(withdrawal_id: UUID, decision: Decision) -> None:
    proposal = withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA)
    withdrawals.approve(proposal.id, actor=RAVI)


def records() -> list[ExceptionRecord]:
    with transaction() as session:
        return exception_records.listing(session)


@pytest.fixture
def late(world: World) -> tuple[UUID, dict[str, Any]]:
    """A refunded withdrawal whose payout arrived after all, as our own query reports."""
    withdrawal_id = refunded(world)
    payout = world.arrive_late(withdrawal_id)
    assert world.receive_report(payout) == "conflict"
    return withdrawal_id, payout


@pytest.mark.failure(2)
def test_coins_taken_back_for_a_late_payment_are_given_back_once_if_it_is_reversed(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    """Lost reply, no payout found, refunded, paid late, coins taken back, reversed, coins given back."""
    withdrawal_id, payout = late
    decide(withdrawal_id, Decision.TAKE_BACK)
    row = world.read(withdrawal_id)
    assert (row.status, row.hold, world.balance(), records()) == ("failed", None, 1500, [])
    assert row.failure_reason is not None and "taken from your balance" in row.failure_reason
    assert world.receive_report(payout) == "repeat" and records() == []  # decided already
    with pytest.raises(BadRequest, match="It may still be paid"):
        decide(withdrawal_id, Decision.GIVE_BACK)

    assert world.receive_report(world.set_status(payout["id"], "reversed")) == "conflict"
    [record] = records()
    assert (record.kind, record.withdrawal_id) == ("reversed_after_refused", withdrawal_id)
    assert world.balance() == 1500  # nothing moves until two people have decided
    decide(withdrawal_id, Decision.GIVE_BACK)
    row = world.read(withdrawal_id)
    assert (row.status, row.hold, world.balance(), records()) == ("failed", None, 2000, [])
    assert row.failure_reason is not None and "Your coins are back" in row.failure_reason
    for decision in (Decision.GIVE_BACK, Decision.REFUND):
        with pytest.raises(BadRequest):
            decide(withdrawal_id, decision)
    assert (world.balance(), world.refunds(withdrawal_id)) == (2000, 1)
    assert checks.run().holds


@pytest.mark.failure(2)
def test_a_payment_after_a_refund_freezes_the_wallet_until_people_unfreeze_it(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    withdrawal_id, payout = late
    with transaction() as session:
        frozen = blocks.wallet_block(session, "user123")
    assert frozen is not None and str(withdrawal_id) in frozen.reason and frozen.added_by == "system"
    with pytest.raises(BadRequest, match="Wallet frozen"):
        world.request(upi_id="another@okaxis")
    world.receive_report(payout)  # a repeated report: the wallet is frozen already
    with transaction() as session:
        proposal = blocks.propose_unfreeze(session, "user123", reason="explained", actor=ASHA)
        blocks.approve(session, proposal.id, actor=RAVI)
    assert world.read(world.request(upi_id="another@okaxis")).status == "pending"


@pytest.mark.failure(2)
@pytest.mark.parametrize("status", ["reversed", "failed", "cancelled"])
def test_a_report_that_agrees_with_the_refund_freezes_no_wallet(world: World, status: str) -> None:
    """The payout failed or was reversed: the user may continue."""
    withdrawal_id = refunded(world)
    world.receive_report(world.arrive_late(withdrawal_id, status))
    with transaction() as session:
        assert blocks.wallet_block(session, "user123") is None


@pytest.mark.failure(2)
def test_a_newer_report_replaces_an_open_record_and_keeps_its_owner(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    withdrawal_id, payout = late
    [before] = records()
    with transaction() as session:
        exception_records.assign(session, before.id, owner=ASHA)
    world.receive_report(world.set_status(payout["id"], "reversed"))
    [record] = records()
    assert (record.kind, record.owner) == ("reversed_after_refused", ASHA)
    assert record.theirs["provider_status"] == "reversed"
    [earlier] = record.theirs["before"]
    assert (earlier["record"], earlier["provider_status"]) == (before.id, "processed")
    assert world.read(withdrawal_id).hold == "reversed_after_refused"
    with transaction() as session, pytest.raises(Conflict) as raised:
        exception_records.close(session, before.id, resolution="as if", actor=ASHA)
    assert f"A newer report replaces it: #{record.id}" in raised.value.details


@pytest.mark.failure(2)
def test_a_new_report_invalidates_a_proposal_to_take_coins_back(
    world: World, late: tuple[UUID, dict[str, Any]]
) -> None:
    """The bank reverses the payout while the proposal waits for the second person."""
    withdrawal_id, payout = late
    proposal = withdrawals.propose(withdrawal_id, Decision.TAKE_BACK, evidence=SEEN, actor=ASHA)
    world.receive_report(world.set_status(payout["id"], "reversed"))
    with pytest.raises(Conflict, match="Something has changed"):
        withdrawals.approve(proposal.id, actor=RAVI)
    assert world.balance() == 2000


def test_coins_are_taken_back_only_after_a_contradiction(world: World) -> None:
    withdrawal_id = refunded(world)
    with pytest.raises(BadRequest, match="There is no evidence that it was paid"):
        decide(withdrawal_id, Decision.TAKE_BACK)


def test_spent_coins_are_not_taken_back(world: World, late: tuple[UUID, dict[str, Any]]) -> None:
    withdrawal_id, _ = late
    world.sql_without_rules("UPDATE wallets SET balance_coins = 499")
    with pytest.raises(BadRequest, match="Insufficient"):
        decide(withdrawal_id, Decision.TAKE_BACK)
    world.sql_without_rules("UPDATE wallets SET balance_coins = 2000")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_taking_coins_back_needs_a_role_that_may_move_coins(
    world: World, late: tuple[UUID, dict[str, Any]], role: str
) -> None:
    world.operators("asha", role=role)
    with pytest.raises(Conflict, match="Your role may not do that"):
        withdrawals.propose(late[0], Decision.TAKE_BACK, evidence=SEEN, actor=ASHA)


@pytest.mark.parametrize("decision", [Decision.TAKE_BACK, Decision.GIVE_BACK])
def test_rejecting_a_correction_needs_a_role_that_may_move_coins(
    world: World, late: tuple[UUID, dict[str, Any]], decision: Decision
) -> None:
    """A role that may not propose that coins move may not reject such a proposal either."""
    withdrawal_id, payout = late
    if decision == Decision.GIVE_BACK:
        decide(withdrawal_id, Decision.TAKE_BACK)
        world.receive_report(world.set_status(payout["id"], "reversed"))
    proposal = withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA)
    world.operators("ravi", role="operator")
    with pytest.raises(Conflict, match="Your role may not do that"):
        withdrawals.reject(proposal.id, actor=RAVI)
    world.operators("ravi", role="finance")
    assert withdrawals.reject(proposal.id, actor=RAVI).outcome == "rejected"


def test_explain_shows_coins_that_were_taken_back(world: World, late: tuple[UUID, dict[str, Any]]) -> None:
    decide(late[0], Decision.TAKE_BACK)
    with transaction() as session:
        summaries = [entry.summary for entry in explain(session, late[0]).entries]
    assert {"adjustment -500 coins", f"{ASHA} proposed: take_back"} <= set(summaries)


@pytest.mark.failure(2)
def test_a_refused_payout_that_was_paid_after_all_is_corrected_in_the_same_way(world: World) -> None:
    """The provider refused it explicitly and paid it all the same."""
    world.credit()
    send = world.first_send()
    record_answer(send, Refused("input_validation_failed", "no", 400))
    assert world.receive_report(world.arrive_late(send.withdrawal_id)) == "conflict"
    decide(send.withdrawal_id, Decision.TAKE_BACK)
    assert world.balance() == 1500


# --- what the database refuses

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
        {"coins": 500},  # given back, without a decision
        {"coins": 500, "user": "user456"},
        {"coins": 500, "one": RAVI, "two": ASHA},
    ],
    ids=str,
)
def test_the_database_requires_each_correction_to_match_its_withdrawal_and_decision(
    world: World, late: tuple[UUID, dict[str, Any]], wrong: dict[str, Any]
) -> None:
    decide(late[0], Decision.TAKE_BACK)
    world.credit("user456")
    with pytest.raises(IntegrityError):
        world.sql(INSERT.format(**RIGHT | wrong), id=new_id())


def test_the_database_refuses_to_unlink_a_correction(world: World, late: tuple[UUID, dict[str, Any]]) -> None:
    decide(late[0], Decision.TAKE_BACK)
    with pytest.raises(IntegrityError):
        world.sql("UPDATE adjustments SET withdrawal_id = NULL, resolution_id = NULL")
