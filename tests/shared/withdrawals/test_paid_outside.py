"""Payments outside the system, decided by two people: their UTR is unique, and users see their time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from shared import withdrawals
from shared.clock import iso
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict
from shared.notifications.mail import user_mails
from shared.people import exception_records
from shared.reconciliation import report
from shared.reconciliation.day_totals import Totals
from shared.reconciliation.run import Result
from shared.states import Decision, PaidVia
from shared.withdrawals.paid_outside import Payment
from tests.support import steps
from tests.support.world import World, payment

pytestmark = pytest.mark.usefixtures("people")

ASHA = "operator:asha"
RAVI = "operator:ravi"
UTR = "433212345678"


def in_doubt(world: World, user_id: str = "user123", reference: str = "start") -> UUID:
    """A withdrawal that was sent and not answered."""
    world.credit(user_id, reference=reference)
    withdrawal_id = world.first_send(user_id=user_id).withdrawal_id
    world.sql(
        "UPDATE payout_attempts SET state = 'unknown', in_doubt = true WHERE withdrawal_id = :id",
        id=withdrawal_id,
    )
    return withdrawal_id


def propose(withdrawal_id: UUID, paid: Payment) -> UUID:
    return withdrawals.propose(
        withdrawal_id, Decision.PAID, evidence="statement of 29 Nov", actor=ASHA, paid=paid
    ).id


def decide(withdrawal_id: UUID, paid: Payment) -> None:
    withdrawals.approve(propose(withdrawal_id, paid), actor=RAVI)


@pytest.mark.failure(21)
@pytest.mark.parametrize(
    ("paid", "code"),
    [
        (payment(None), "utr_required"),
        (payment("1"), "invalid_utr"),
        (payment(UTR, None), "paid_via_required"),
        (payment(UTR, PaidVia.RTGS), "invalid_utr"),
        (payment(UTR, PaidVia.UNKNOWN), "invalid_paid_via"),
        (Payment(UTR, PaidVia.UPI), "paid_at_required"),
        (payment(UTR, at=datetime.now(UTC) + timedelta(days=1)), "paid_in_the_future"),
        (payment(UTR, at=datetime.now(UTC) - timedelta(days=9)), "paid_before_the_request"),
    ],
)
def test_a_payment_outside_the_system_needs_a_utr_a_method_and_a_time(
    world: World, paid: Payment, code: str
) -> None:
    withdrawal_id = in_doubt(world)
    with pytest.raises(BadRequest) as raised:
        propose(withdrawal_id, paid)
    assert raised.value.code == code and world.sql("SELECT FROM resolutions") == []


@pytest.mark.failure(21)
def test_a_utr_of_another_withdrawal_is_refused_by_the_code_and_by_the_database(world: World) -> None:
    paid = world.paid()
    first = in_doubt(world, reference="a")
    second = in_doubt(world, reference="b")
    for taken_utr in (str(world.read(paid).utr), str(world.attempts(paid)[0].utr)):
        with pytest.raises(Conflict, match="UTR already used"):
            propose(first, payment(taken_utr))
    proposal = propose(second, payment("4332 1234 5678"))
    decide(first, payment(UTR))
    with pytest.raises(Conflict, match="UTR already used"):
        withdrawals.approve(proposal, actor=RAVI)
    assert world.read(second).status == "processing"
    world.sql("UPDATE withdrawals SET utr = 'SBIN426333000001' WHERE id = :id", id=first)
    with pytest.raises(IntegrityError, match="uq_withdrawals_utr"):
        world.sql("UPDATE withdrawals SET utr = 'sbin426333000001' WHERE id = :id", id=paid)
    with pytest.raises(IntegrityError, match="another withdrawal has the UTR"):
        world.sql("UPDATE withdrawals SET utr = 'X', utr_twin = 1 WHERE id = :id", id=paid)


def test_only_a_decision_of_two_people_changes_how_a_withdrawal_was_paid(world: World) -> None:
    paid = world.paid()
    with pytest.raises(IntegrityError, match="no two people"):
        world.sql("UPDATE withdrawals SET paid_via = 'neft' WHERE id = :id", id=paid)
    outside = in_doubt(world, reference="a")
    decide(outside, payment(UTR, PaidVia.IMPS))
    with pytest.raises(IntegrityError, match="no two people"):
        world.sql("UPDATE withdrawals SET paid_via = 'razorpayx' WHERE id = :id", id=outside)


@pytest.mark.failure(21)
def test_users_see_the_time_of_the_payment_and_not_of_its_approval(world: World) -> None:
    withdrawal_id = in_doubt(world)
    world.sql("UPDATE wallets SET email = 'user@example.com'")
    world.sql("UPDATE withdrawals SET created_at = created_at - interval '3 days'")
    arrived = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
    decide(withdrawal_id, payment("SBIN426333000001", PaidVia.NEFT, arrived))
    row = world.read(withdrawal_id)
    assert (row.completed_at, row.paid_via, row.utr) == (arrived, "neft", "SBIN426333000001")
    with transaction() as session:
        values = {"followed_to": 0, "limit": 9, "too_old": 86_400, "max_cancellations": 5}
        endings = session.execute(user_mails.NEW_ENDINGS, values)
        [change] = [ending for ending in endings if ending.to_status == "completed"]
        assert user_mails._facts(change)["at"] == iso(arrived)
    [event] = world.sql("SELECT data FROM withdrawal_events WHERE reason = 'resolved'")
    assert (event.data["paid_via"], event.data["paid_at"]) == ("neft", iso(arrived))


@pytest.mark.failure(14)
@pytest.mark.parametrize("channel", ["webhook", "poll"])
def test_a_provider_report_with_the_utr_of_another_withdrawal_puts_it_on_hold(
    world: World, channel: str
) -> None:
    first = in_doubt(world)
    decide(first, payment(UTR))
    world.credit(reference="b")
    send = world.first_send()
    steps.record_answer(send, world.perform(send))
    payout = next(p for p in world.simulator.payouts() if p["reference_id"] == str(send.attempt_id))
    world.simulator.post(f"payouts/{payout['id']}/status", {"status": "processed"})
    world.simulator.post(f"payouts/{payout['id']}/alter", {"utr": UTR})
    if channel == "webhook":
        processed = {key: payout[key] for key in ("id", "amount", "reference_id")}
        processed |= {"status": "processed", "utr": UTR}
        assert world.webhook("payout.processed", processed, "event-utr") == "hinted"
        assert world.read(send.withdrawal_id).hold is None  # a webhook alone flags nothing
        world.bring_on(send.withdrawal_id)
        assert world.webhook("payout.processed", processed, "event-utr-2") == "hinted"
    else:
        for _ in range(3):
            world.step(send.withdrawal_id)
    row = world.read(send.withdrawal_id)
    assert (row.status, row.hold, row.utr) == ("processing", "utr_of_another", None)
    with transaction() as session:
        assert [r.kind for r in exception_records.listing(session)] == ["utr_of_another"]
    # People decide: the bank statement has its payment under another UTR.
    decide(send.withdrawal_id, payment("433212345679", PaidVia.PROVIDER))
    assert world.read(send.withdrawal_id).status == "completed"


def test_a_reconciliation_report_lists_payments_outside_the_system_and_balances() -> None:
    totals = Totals(payouts=1, debits=5000, paid=5000)
    totals.add_outside("imps", 2, 12_500)
    totals.add_outside("neft", 1, 100)
    now = datetime.now(UTC)
    text = report.page_text(Result(1, now, now, totals=totals))
    rows = {line[:60].strip(): line[60:].strip() for line in text.splitlines()}
    assert rows["Our ledger: paid, including fees"] == "₹176.00"
    assert rows["- paid outside RazorpayX, by IMPS: 2"] == "-₹125.00"
    assert rows["- paid outside RazorpayX, by NEFT: 1"] == "-₹1.00"
    assert rows["Remainder"] == "₹0.00" and "The totals balance." in text
