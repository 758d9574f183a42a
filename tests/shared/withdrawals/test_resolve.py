"""Decisions of two people: bound to the facts they saw, never by one person, and never during a worker's call."""

from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.people import exception_records
from shared.states import Decision, PaidVia
from shared.withdrawals.paid_outside import NO_PAYMENT
from tests.support import steps
from tests.support.world import World, payment

pytestmark = pytest.mark.usefixtures("people")

ASHA = "operator:asha"
RAVI = "operator:ravi"
SEEN = "RazorpayX dashboard, 12:30: no such reference; support ticket 4711"


@pytest.fixture
def unknown(world: World) -> UUID:
    """A withdrawal with an unknown result: its sends and look-ups are unanswered."""
    world.credit()
    world.simulator.scenario("500.always", default=True)
    world.simulator.settings(lookups="500")
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '2 hours'")
    for _ in range(5):
        world.step(send.withdrawal_id)
    assert world.read(send.withdrawal_id).hold == "unanswered"
    return send.withdrawal_id


def propose(withdrawal_id: UUID, decision: Decision, utr: str | None = None) -> UUID:
    paid = payment(utr, PaidVia.PROVIDER) if utr else NO_PAYMENT
    return withdrawals.propose(withdrawal_id, decision, evidence=SEEN, actor=ASHA, paid=paid).id


@pytest.mark.failure(21)
def test_two_people_refund_a_withdrawal_with_an_unknown_result(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    assert (world.balance(), world.read(unknown).status) == (1500, "processing")
    withdrawals.approve(proposal, actor=RAVI)
    row = world.read(unknown)
    assert (row.status, row.hold, world.balance(), world.refunds(unknown)) == ("failed", None, 2000, 1)
    assert world.story(unknown)[-2:] == ["proposed:refund", "resolved"]
    with transaction() as session:
        assert exception_records.listing(session) == []


def test_two_people_decide_that_a_withdrawal_was_paid(world: World, unknown: UUID) -> None:
    withdrawals.approve(propose(unknown, Decision.PAID, utr="500000000001"), actor=RAVI)
    row = world.read(unknown)
    assert (row.status, row.utr, world.refunds(unknown)) == ("completed", "500000000001", 0)


@pytest.mark.failure(21)
@pytest.mark.parametrize("status", ["reversed", "failed"])
def test_a_report_that_contradicts_a_paid_decision_puts_the_withdrawal_on_hold(
    world: World, unknown: UUID, status: str
) -> None:
    """No reply named its payout and people saw it paid: the report may be about that payment."""
    withdrawals.approve(propose(unknown, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert report_payout(world, unknown, "pout_00000000000078", status) == "conflict"
    row = world.read(unknown)
    assert (row.status, row.hold, world.refunds(unknown)) == ("completed", f"{status}_after_refused", 0)
    withdrawals.approve(propose(unknown, Decision.REFUND), actor=RAVI)
    assert (world.read(unknown).status, world.balance(), world.refunds(unknown)) == ("failed", 2000, 1)


@pytest.mark.failure(21)
def test_each_contradictory_report_about_a_payout_puts_the_withdrawal_on_hold(
    world: World, accepted: UUID
) -> None:
    ours = world.attempts(accepted)[0].payout_id
    report_payout(world, accepted, ours, "failed", "beneficiary_bank_offline")
    assert report_payout(world, accepted, ours, "processed") == "conflict"
    withdrawals.approve(propose(accepted, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert report_payout(world, accepted, ours, "reversed") == "conflict"
    assert (world.read(accepted).hold, world.refunds(accepted)) == ("reversed_after_failed", 0)


def test_a_withdrawal_that_two_people_called_paid_is_still_rechecked(world: World) -> None:
    world.credit()
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    assert world.read(send.withdrawal_id).status_reason == "bank_processing"
    withdrawals.approve(propose(send.withdrawal_id, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert world.attempts(send.withdrawal_id)[0].recheck_at is not None


@pytest.fixture
def paid_outside(world: World) -> UUID:
    """Two people decided that it was paid another way while the bank processed its payout."""
    world.credit()
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    withdrawals.approve(propose(send.withdrawal_id, Decision.PAID, utr="SBIN426333000001"), actor=RAVI)
    return send.withdrawal_id


def report_own_payout(world: World, withdrawal_id: UUID, status: str, utr: str | None, **fields: int) -> str:
    """Apply a report about the first attempt's payout, as from our own call; returns the effect."""
    payout_id = world.attempts(withdrawal_id)[0].payout_id
    payout = {"id": payout_id, "amount": 5000, "status": status, "utr": utr, **fields}
    return world.receive_report(payout)


@pytest.mark.failure(21)
def test_a_payout_paid_after_a_payment_outside_the_system_opens_one_record(
    world: World, paid_outside: UUID
) -> None:
    assert report_own_payout(world, paid_outside, "processed", None) == "repeat"  # the report has no UTR yet
    assert report_own_payout(world, paid_outside, "processed", "500000000002") == "conflict"
    row = world.read(paid_outside)
    assert (row.status, row.hold, row.utr) == ("completed", "processed_after_paid", "SBIN426333000001")
    with transaction() as session:
        [record] = exception_records.listing(session)
    assert (record.kind, record.ours["utr"]) == ("processed_after_paid", "SBIN426333000001")
    assert record.theirs["utr"] == "500000000002"
    withdrawals.approve(propose(paid_outside, Decision.GO_ON), actor=RAVI)
    world.sql("UPDATE payout_attempts SET fees_paise = NULL")  # so that the next report is new
    assert report_own_payout(world, paid_outside, "processed", "500000000002", fees=590) == "repeat"
    row = world.read(paid_outside)
    assert (row.hold, row.utr) == (None, "SBIN426333000001")


@pytest.mark.failure(21)
def test_a_payment_outside_the_system_is_not_refunded_when_its_payout_is_reversed(
    world: World, paid_outside: UUID
) -> None:
    assert report_own_payout(world, paid_outside, "reversed", None) == "conflict"
    row = world.read(paid_outside)
    assert (row.status, row.hold, world.refunds(paid_outside)) == ("completed", "reversed_after_paid", 0)


def test_a_payout_under_the_utr_of_the_decision_is_no_contradiction(world: World, paid_outside: UUID) -> None:
    assert report_own_payout(world, paid_outside, "processed", "SBIN426333000001") == "repeat"
    assert report_own_payout(world, paid_outside, "reversed", "SBIN426333000001") == "reverse"
    assert (world.read(paid_outside).status, world.refunds(paid_outside)) == ("failed", 1)


@pytest.mark.failure(21, 22)
def test_the_proposer_cannot_approve_their_own_proposal(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    with pytest.raises(Conflict, match="second person"):
        withdrawals.approve(proposal, actor=ASHA)
    with pytest.raises(IntegrityError, match="two_people"):
        world.sql("UPDATE resolutions SET decided_by = proposed_by, decided_at = now(), outcome = 'approved'")
    assert world.refunds(unknown) == 0


@pytest.mark.failure(21, 22)
def test_an_approval_is_refused_when_the_facts_have_changed(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    report = {"id": "pout_came0000000001", "amount": 5000, "status": "processed"}
    report["reference_id"] = str(world.attempts(unknown)[0].id)
    assert world.receive_report(report, "lookup") == "pay"
    with pytest.raises((Conflict, BadRequest)):
        withdrawals.approve(proposal, actor=RAVI)
    assert (world.refunds(unknown), world.read(unknown).status) == (0, "completed")


def test_a_query_between_proposal_and_approval_changes_no_facts(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    world.step(unknown)
    withdrawals.approve(proposal, actor=RAVI)
    assert world.refunds(unknown) == 1


def test_a_proposal_is_decided_once(world: World, unknown: UUID) -> None:
    proposal = propose(unknown, Decision.REFUND)
    withdrawals.approve(proposal, actor=RAVI)
    for decide in (withdrawals.approve, withdrawals.reject):
        with pytest.raises(Conflict, match="Already decided"):
            decide(proposal, actor=RAVI)
    assert world.refunds(unknown) == 1


def test_one_proposal_is_open_at_a_time_until_it_is_rejected(world: World, unknown: UUID) -> None:
    first = propose(unknown, Decision.REFUND)
    with pytest.raises(Conflict, match="A proposal is open"):
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


def test_two_people_cannot_send_a_withdrawal_before_it_is_due(world: World) -> None:
    """Its user may still cancel it."""
    world.credit()
    withdrawal_id = world.request()
    due_at = world.read(withdrawal_id).due_at
    with pytest.raises(BadRequest, match="without a decision"):
        propose(withdrawal_id, Decision.GO_ON)
    assert world.read(withdrawal_id).due_at == due_at


@pytest.mark.parametrize(
    ("decision", "utr"), [(Decision.REFUND, None), (Decision.PAID, None), (Decision.PAID, "500000000001")]
)
def test_a_refunded_withdrawal_cannot_be_refunded_again_or_called_paid(
    world: World, decision: Decision, utr: str | None
) -> None:
    failed = world.paid("fail.bank_account_closed@sim")
    with pytest.raises(BadRequest):
        propose(failed, decision, utr)
    assert world.refunds(failed) == 1


@pytest.mark.parametrize(("decision", "utr"), [(Decision.REFUND, None), (Decision.PAID, "500000000001")])
def test_a_paid_withdrawal_cannot_be_decided_without_a_contradiction(
    world: World, decision: Decision, utr: str | None
) -> None:
    with pytest.raises(BadRequest, match="paid"):
        propose(world.paid(), decision, utr)


@pytest.mark.failure(21)
def test_a_paid_decision_needs_a_utr_and_every_decision_needs_evidence(world: World, unknown: UUID) -> None:
    with pytest.raises(BadRequest, match="UTR"):
        propose(unknown, Decision.PAID)
    with pytest.raises(BadRequest, match="Evidence"):
        withdrawals.propose(unknown, Decision.REFUND, evidence="  ", actor=ASHA)


def test_a_held_withdrawal_continues_with_a_new_key(world: World) -> None:
    """People explained the contradiction; here, a failure for an impossible reason."""
    world.credit()
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    payout = world.simulator.payouts()[0]
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "failed", "reason": None})
    report = {key: payout[key] for key in ("id", "amount", "reference_id")}
    details = {"status_details": {"reason": "invalid_ifsc_code"}}
    world.receive_report({**report, "status": "failed", **details})
    assert world.step(send.withdrawal_id) == "processing"
    withdrawals.approve(propose(send.withdrawal_id, Decision.GO_ON), actor=RAVI)
    assert world.finish(send.withdrawal_id) == "completed"
    assert len(world.attempts(send.withdrawal_id)) == 2


def test_a_report_that_contradicts_a_refund_decision_is_flagged_and_moves_nothing(
    world: World, unknown: UUID
) -> None:
    withdrawals.approve(propose(unknown, Decision.REFUND), actor=RAVI)
    attempt = world.attempts(unknown)[0]
    report = {
        "id": "pout_late0000000001",
        "amount": 5000,
        "reference_id": str(attempt.id),
        "status": "processed",
    }
    assert world.receive_report(report, "lookup") == "conflict"
    assert (world.read(unknown).status, world.read(unknown).hold) == ("failed", "processed_after_refused")
    assert (world.balance(), world.refunds(unknown)) == (2000, 1)


def test_approving_an_unknown_proposal_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        withdrawals.approve(new_id(), actor=RAVI)


def report_payout(
    world: World, withdrawal_id: UUID, payout_id: str, status: str, reason: str | None = None
) -> str:
    """Apply a report about a payout with the first attempt's reference; returns the effect."""
    reference = str(world.attempts(withdrawal_id)[0].id)
    payout = {"id": payout_id, "amount": 5000, "reference_id": reference, "status": status}
    payout["status_details"] = {"reason": reason}
    return world.receive_report(payout)


@pytest.fixture
def accepted(world: World) -> UUID:
    """A withdrawal whose payout the provider accepted and reports as processing."""
    world.credit()
    world.simulator.scenario("never", default=True)
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    assert world.attempts(send.withdrawal_id)[0].state == "accepted"
    return send.withdrawal_id


@pytest.mark.parametrize("paid_payout", ["its own", "another"])
def test_a_contradictory_withdrawal_is_never_retried(world: World, accepted: UUID, paid_payout: str) -> None:
    """Its payout failed, and that payout or another under its reference was paid: a retry would pay twice."""
    ours = world.attempts(accepted)[0].payout_id
    other = ours if paid_payout == "its own" else "pout_00000000000077"
    reports = [(ours, "failed", "beneficiary_bank_offline"), (other, "processed", None)]
    for payout_id, status, reason in reports if paid_payout == "its own" else reversed(reports):
        report_payout(world, accepted, payout_id, status, reason)
    row = world.read(accepted)
    assert (row.status, row.hold is not None, world.refunds(accepted)) == ("processing", True, 0)
    with pytest.raises(BadRequest, match="cannot continue"):
        propose(accepted, Decision.GO_ON)
    withdrawals.approve(propose(accepted, Decision.PAID, utr="500000000001"), actor=RAVI)
    assert (world.read(accepted).status, len(world.attempts(accepted))) == ("completed", 1)


def test_a_withdrawal_that_fails_after_people_let_it_continue_is_held_and_not_retried(
    world: World, accepted: UUID
) -> None:
    ours = world.attempts(accepted)[0].payout_id
    assert report_payout(world, accepted, "pout_00000000000077", "processing") == "conflict"
    withdrawals.approve(propose(accepted, Decision.GO_ON), actor=RAVI)  # its own payout is still processing
    assert report_payout(world, accepted, ours, "failed", "beneficiary_bank_offline") == "fail"
    world.step(accepted)
    row = world.read(accepted)
    assert (row.status, row.hold, len(world.attempts(accepted))) == ("processing", "held:contradicted", 1)
    with pytest.raises(BadRequest, match="cannot continue"):
        propose(accepted, Decision.GO_ON)
    withdrawals.approve(propose(accepted, Decision.REFUND), actor=RAVI)
    assert world.refunds(accepted) == 1


def test_people_cannot_refund_a_payout_that_the_provider_reports_as_processing(
    world: World, accepted: UUID
) -> None:
    with pytest.raises(BadRequest, match="may still be paid"):
        propose(accepted, Decision.REFUND)
    world.sql("UPDATE payout_attempts SET answered_at = answered_at - interval '25 hours'")
    proposal = propose(accepted, Decision.REFUND)  # not reported as processing for a day
    report_payout(world, accepted, world.attempts(accepted)[0].payout_id, "processing")
    world.step(accepted)
    with pytest.raises((BadRequest, Conflict)):
        withdrawals.approve(proposal, actor=RAVI)
    assert (world.read(accepted).status, world.refunds(accepted)) == ("processing", 0)


def test_people_can_refund_a_processing_payout_after_five_days(world: World, accepted: UUID) -> None:
    world.sql("UPDATE payout_attempts SET created_at = created_at - interval '5 days 1 minute'")
    withdrawals.approve(propose(accepted, Decision.REFUND), actor=RAVI)
    assert world.refunds(accepted) == 1
