"""What two people decide: bound to the facts they saw, never by one alone, and never beside a worker's call."""

from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from shared import db, exception_records, withdrawals
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.states import Decision, PaidVia
from shared.withdrawals.paid_outside import NOT_TOLD
from tests.world import World, payment

pytestmark = pytest.mark.usefixtures("people")

ASHA, RAVI = "operator:asha", "operator:ravi"
SEEN = "RazorpayX dashboard, 12:30: no such reference; support ticket 4711"


@pytest.fixture
def unknown(world: World) -> UUID:
    """A withdrawal that nobody can tell anything about: unanswered sends, unanswered look-ups."""
    world.credit()
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    for _ in range(5):
        world.step(send.withdrawal_id)
    assert world.read(send.withdrawal_id).review == "unanswered"
    return send.withdrawal_id


def propose(withdrawal_id: UUID, decision: Decision, utr: str | None = None) -> UUID:
    told = payment(utr, PaidVia.RAZORPAYX) if utr else NOT_TOLD
    return withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA, paid=told).id


@pytest.mark.failure(21)
def test_two_people_refund_what_nobody_can_tell(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    assert (world.balance(), world.read(unknown).status) == (1500, "processing")
    withdrawals.approve(proposal, actor=RAVI)
    row = world.read(unknown)
    assert (row.status, row.review, world.balance(), world.refunds(unknown)) == ("failed", None, 2000, 1)
    assert world.story(unknown)[-2:] == ["proposed:refund", "resolved"]
    with db.transaction() as session:
        assert exception_records.listing(session) == []


def test_two_people_say_that_it_was_paid(world: World, unknown: UUID) -> None:
    withdrawals.approve(propose(unknown, Decision.PAID, utr="500000000001"), actor=RAVI)
    row = world.read(unknown)
    assert (row.status, row.utr, world.refunds(unknown)) == ("completed", "500000000001", 0)


@pytest.mark.failure(21)
@pytest.mark.parametrize("status", ["reversed", "failed"])
def test_news_that_what_people_called_paid_ended_otherwise_calls_a_person(
    world: World, unknown: UUID, status: str
) -> None:
    """No reply ever named its payout, and people saw it paid: what RazorpayX says of it now may be of just that."""
    withdrawals.approve(propose(unknown, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert told_of(world, unknown, "pout_00000000000078", status) == "conflict"
    row = world.read(unknown)
    assert (row.status, row.review, world.refunds(unknown)) == ("completed", f"{status}_after_refused", 0)
    withdrawals.approve(propose(unknown, Decision.REFUND), actor=RAVI)
    assert (world.read(unknown).status, world.balance(), world.refunds(unknown)) == ("failed", 2000, 1)


@pytest.mark.failure(21)
def test_a_payout_that_failed_was_paid_and_came_back_calls_people_each_time(
    world: World, accepted: UUID
) -> None:
    ours = world.attempts(accepted)[0].payout_id
    told_of(world, accepted, ours, "failed", "beneficiary_bank_offline")
    assert told_of(world, accepted, ours, "processed") == "conflict"
    withdrawals.approve(propose(accepted, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert told_of(world, accepted, ours, "reversed") == "conflict"
    assert (world.read(accepted).review, world.refunds(accepted)) == ("reversed_after_failed", 0)


def test_what_two_people_call_paid_is_still_looked_at_for_a_reversal(world: World) -> None:
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"
    withdrawals.approve(propose(send.withdrawal_id, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert world.attempts(send.withdrawal_id)[0].recheck_at is not None


@pytest.fixture
def outside(world: World) -> UUID:
    """Two people have said that it was paid another way, while its payout was with the bank."""
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    withdrawals.approve(propose(send.withdrawal_id, Decision.PAID, utr="SBIN426333000001"), actor=RAVI)
    return send.withdrawal_id


def told(world: World, withdrawal_id: UUID, status: str, utr: str | None, **more: int) -> str:
    """What a call of ours was told, and what that did."""
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    payout = {"id": payout_id, "amount": 5000, "status": status, "utr": utr, **more}
    return world.hears(payout)


@pytest.mark.failure(21)
def test_paid_outside_and_then_by_its_payout_too_calls_a_person_once(world: World, outside: UUID) -> None:
    assert told(world, outside, "processed", None) == "repeat"  # it does not say yet under which UTR
    assert told(world, outside, "processed", "500000000002") == "conflict"
    row = world.read(outside)
    assert (row.status, row.review, row.utr) == ("completed", "processed_after_paid", "SBIN426333000001")
    with db.transaction() as session:
        [record] = exception_records.listing(session)
    assert (record.kind, record.ours["utr"]) == ("processed_after_paid", "SBIN426333000001")
    assert record.theirs["utr"] == "500000000002"
    withdrawals.approve(propose(outside, Decision.GO_ON), actor=RAVI)
    world.sql("UPDATE payout_attempts SET fees_paise = NULL")  # as if told only now
    assert told(world, outside, "processed", "500000000002", fees=590) == "repeat"
    row = world.read(outside)
    assert (row.review, row.utr) == (None, "SBIN426333000001")


@pytest.mark.failure(21)
def test_what_was_paid_outside_is_not_given_back_when_its_payout_is_reversed(
    world: World, outside: UUID
) -> None:
    assert told(world, outside, "reversed", None) == "conflict"
    row = world.read(outside)
    assert (row.status, row.review, world.refunds(outside)) == ("completed", "reversed_after_paid", 0)


def test_what_two_people_saw_of_its_own_payout_is_no_contradiction(world: World, outside: UUID) -> None:
    assert told(world, outside, "processed", "SBIN426333000001") == "repeat"
    assert told(world, outside, "reversed", "SBIN426333000001") == "reverse"
    assert (world.read(outside).status, world.refunds(outside)) == ("failed", 1)


@pytest.mark.failure(21, 22)
def test_one_person_is_not_two(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    with pytest.raises(Conflict, match="second person"):
        withdrawals.approve(proposal, actor=ASHA)
    with pytest.raises(IntegrityError, match="two_people"):
        world.sql("UPDATE resolutions SET decided_by = proposed_by, decided_at = now(), outcome = 'approved'")
    assert world.refunds(unknown) == 0


@pytest.mark.failure(21, 22)
def test_an_approval_of_other_facts_is_refused(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    told = {"id": "pout_came0000000001", "amount": 5000, "status": "processed"}
    told["reference_id"] = str(world.attempts(unknown)[0].id)
    assert world.hears(told, "lookup") == "pay"
    with pytest.raises((Conflict, BadRequest)):
        withdrawals.approve(proposal, actor=RAVI)
    assert (world.refunds(unknown), world.read(unknown).status) == (0, "completed")


def test_a_look_in_between_changes_no_facts(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    world.step(unknown)
    withdrawals.approve(proposal, actor=RAVI)
    assert world.refunds(unknown) == 1


def test_a_proposal_is_decided_once(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    withdrawals.approve(proposal, actor=RAVI)
    for again in (withdrawals.approve, withdrawals.reject):
        with pytest.raises(Conflict, match="Decided already"):
            again(proposal, actor=RAVI)
    assert world.refunds(unknown) == 1


def test_one_proposal_at_a_time_and_a_rejected_one_makes_room(world: World, unknown: UUID) -> None:
    first = propose(unknown, Decision.REFUND)
    with pytest.raises(Conflict, match="A proposal waits"):
        propose(unknown, Decision.PAID, utr="500000000001")
    withdrawals.reject(first, actor=ASHA)
    propose(unknown, Decision.PAID, utr="500000000001")
    assert world.refunds(unknown) == 0


@pytest.mark.failure(21)
def test_nothing_is_decided_while_a_worker_sends(world: World) -> None:
    world.credit()
    send = world.first_send()
    for decision, utr in ((Decision.REFUND, None), (Decision.PAID, "500000000001"), (Decision.GO_ON, None)):
        with pytest.raises(Conflict, match="worker"):
            propose(send.withdrawal_id, decision, utr)


def test_what_waits_for_its_time_is_not_explained_into_going_on(world: World) -> None:
    """Its user may still cancel: two people cannot send it before."""
    world.credit()
    withdrawal_id = world.request()
    due_at = world.read(withdrawal_id).due_at
    with pytest.raises(BadRequest, match="by itself"):
        propose(withdrawal_id, Decision.GO_ON)
    assert world.read(withdrawal_id).due_at == due_at


@pytest.mark.parametrize(
    ("decision", "utr"), [(Decision.REFUND, None), (Decision.PAID, None), (Decision.PAID, "500000000001")]
)
def test_what_is_refunded_cannot_be_refunded_or_paid_again(
    world: World, decision: Decision, utr: str | None
) -> None:
    failed = world.paid("fail.bank_account_closed@sim")
    with pytest.raises(BadRequest):
        propose(failed, decision, utr)
    assert world.refunds(failed) == 1


@pytest.mark.parametrize(("decision", "utr"), [(Decision.REFUND, None), (Decision.PAID, "500000000001")])
def test_on_what_was_paid_nothing_is_decided_without_a_contradiction(
    world: World, decision: Decision, utr: str | None
) -> None:
    with pytest.raises(BadRequest, match="paid"):
        propose(world.paid(), decision, utr)


@pytest.mark.failure(21)
def test_paid_needs_its_utr_and_everything_needs_evidence(world: World, unknown: UUID) -> None:
    with pytest.raises(BadRequest, match="UTR"):
        propose(unknown, Decision.PAID)
    with pytest.raises(BadRequest, match="Evidence"):
        withdrawals.propose(unknown, Decision.REFUND, evidence="  ", actor=ASHA)


def test_a_held_one_goes_on_with_a_new_key(world: World) -> None:
    """A contradiction that people have explained: here, a failure for a reason that cannot be."""
    world.credit()
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "failed", "reason": None})
    told = {key: payout[key] for key in ("id", "amount", "reference_id")}
    details = {"status_details": {"reason": "invalid_ifsc_code"}}
    world.hears({**told, "status": "failed", **details})
    assert world.step(send.withdrawal_id) == "processing"
    withdrawals.approve(propose(send.withdrawal_id, Decision.GO_ON), actor=RAVI)
    assert world.finish(send.withdrawal_id) == "completed"
    assert len(world.attempts(send.withdrawal_id)) == 2


def test_a_report_that_contradicts_the_decision_is_flagged_and_moves_nothing(
    world: World, unknown: UUID
) -> None:
    withdrawals.approve(propose(unknown, Decision.REFUND), actor=RAVI)
    attempt = world.attempts(unknown)[0]
    told = {
        "id": "pout_late0000000001",
        "amount": 5000,
        "reference_id": str(attempt.id),
        "status": "processed",
    }
    assert world.hears(told, "lookup") == "conflict"
    assert (world.read(unknown).status, world.read(unknown).review) == ("failed", "processed_after_refused")
    assert (world.balance(), world.refunds(unknown)) == (2000, 1)


def test_a_proposal_that_does_not_exist(world: World) -> None:
    with pytest.raises(NotFound):
        withdrawals.approve(new_id(), actor=RAVI)


def told_of(world: World, withdrawal_id: UUID, payout_id: str, status: str, reason: str | None = None) -> str:
    """What a call of ours was told of a payout under this withdrawal's first reference; what that did."""
    reference = str(world.attempts(withdrawal_id)[0].id)
    payout = {"id": payout_id, "amount": 5000, "reference_id": reference, "status": status}
    payout["status_details"] = {"reason": reason}
    return world.hears(payout)


@pytest.fixture
def accepted(world: World) -> UUID:
    """A withdrawal whose payout RazorpayX has, and calls processing."""
    world.credit()
    world.simulator.scenario("never", default=True)
    send = world.first_send()
    withdrawals.record_answer(send, world.perform(send))
    assert world.attempts(send.withdrawal_id)[0].state == "accepted"
    return send.withdrawal_id


@pytest.mark.parametrize("whose", ["its own", "another"])
def test_what_contradicted_itself_is_never_begun_anew(world: World, accepted: UUID, whose: str) -> None:
    """Its payout failed, and it, or another under its reference, was paid: a new one would pay twice."""
    ours = world.attempts(accepted)[0].payout_id
    other = ours if whose == "its own" else "pout_00000000000077"
    told = [(ours, "failed", "beneficiary_bank_offline"), (other, "processed", None)]
    for payout_id, status, reason in told if whose == "its own" else reversed(told):
        told_of(world, accepted, payout_id, status, reason)
    row = world.read(accepted)
    assert (row.status, row.review is not None, world.refunds(accepted)) == ("processing", True, 0)
    with pytest.raises(BadRequest, match="cannot go on"):
        propose(accepted, Decision.GO_ON)
    withdrawals.approve(propose(accepted, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert (world.read(accepted).status, len(world.attempts(accepted))) == ("completed", 1)


def test_what_people_explained_and_then_fails_is_held_and_not_begun_anew(
    world: World, accepted: UUID
) -> None:
    ours = world.attempts(accepted)[0].payout_id
    assert told_of(world, accepted, "pout_00000000000077", "processing") == "conflict"
    withdrawals.approve(propose(accepted, Decision.GO_ON), actor=RAVI)  # its own payout is still on its way
    assert told_of(world, accepted, ours, "failed", "beneficiary_bank_offline") == "fail"
    world.step(accepted)
    row = world.read(accepted)
    assert (row.status, row.review, len(world.attempts(accepted))) == ("processing", "held:contradicted", 1)
    with pytest.raises(BadRequest, match="cannot go on"):
        propose(accepted, Decision.GO_ON)
    withdrawals.approve(propose(accepted, Decision.REFUND), actor=RAVI)
    assert world.refunds(accepted) == 1


def test_what_the_provider_says_is_on_its_way_is_not_refunded_by_people(world: World, accepted: UUID) -> None:
    with pytest.raises(BadRequest, match="may still be paid"):
        propose(accepted, Decision.REFUND)
    world.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    proposal = propose(accepted, Decision.REFUND)  # nobody has said so for a day
    told_of(world, accepted, world.attempts(accepted)[0].payout_id, "processing")
    world.step(accepted)
    with pytest.raises((BadRequest, Conflict)):
        withdrawals.approve(proposal, actor=RAVI)
    assert (world.read(accepted).status, world.refunds(accepted)) == ("processing", 0)


def test_after_the_banks_time_people_may_refund_what_is_said_to_be_on_its_way(
    world: World, accepted: UUID
) -> None:
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '5 days 1 minute'")
    withdrawals.approve(propose(accepted, Decision.REFUND), actor=RAVI)
    assert world.refunds(accepted) == 1
