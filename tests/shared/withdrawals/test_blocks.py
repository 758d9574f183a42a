"""Blocked payees and frozen wallets: new requests are refused, pending ones are held, and no one refunds alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.providers.steps import Prepare
from shared.states import Decision
from shared.withdrawals import blocks
from tests.cli.test_operations import output_of, payouts
from tests.shared.withdrawals.test_request import try_request
from tests.shared.withdrawals.test_review import ASHA, RAVI, approve, refused, reject
from tests.support import steps
from tests.support.api import GOOD, WITHDRAW, assert_refused
from tests.support.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=9000)
    return world


def block(payee: str = "user@okhdfcbank") -> None:
    with transaction() as session:
        blocks.add(session, payee, reason="reported", actor=ASHA)


def unblock(payee: str = "user@okhdfcbank") -> None:
    with transaction() as session:
        proposal = blocks.propose_unblock(session, payee, reason="a mistake", actor=ASHA)
        blocks.approve(session, proposal.id, actor=RAVI)


def freeze(user_id: str = "user123") -> None:
    with transaction() as session:
        blocks.freeze(session, user_id, reason="many phones", actor=ASHA)


def unfreeze(user_id: str = "user123") -> None:
    with transaction() as session:
        proposal = blocks.propose_unfreeze(session, user_id, reason="explained", actor=ASHA)
        blocks.approve(session, proposal.id, actor=RAVI)


@pytest.mark.parametrize("payee", ["user@okhdfcbank", "USER@OkHdfcBank", "@okhdfcbank", " @OKHDFCBANK "])
def test_a_request_to_a_blocked_upi_id_is_refused_in_any_letter_case(funded: World, payee: str) -> None:
    block(payee)
    assert try_request(funded, upi_id="User@okHDFCbank") == "upi_blocked"
    assert try_request(funded, upi_id="user@okhdfc") == "taken"
    assert (try_request(funded, upi_id="other@okhdfcbank") == "taken") == (payee.strip()[0] != "@")
    unblock(payee)
    assert try_request(funded) == "taken"


def test_refusals_of_blocked_users_come_after_the_contracts_refusals(funded: World) -> None:
    app: FlaskClient = create_app().test_client()
    key = {"Authorization": f"Bearer {KEY}"}
    block()
    body = assert_refused(app.post(WITHDRAW, json=GOOD, headers=key), 400, "UPI ID not accepted")
    assert body["code"] == "upi_blocked"
    freeze()
    body = assert_refused(app.post(WITHDRAW, json=GOOD, headers=key), 400, "Wallet frozen")
    assert body["code"] == "wallet_frozen"
    assert_refused(app.post(WITHDRAW, json={**GOOD, "amount": 9001}, headers=key), 400, "Insufficient")
    assert_refused(app.post(WITHDRAW, json={**GOOD, "upi_id": "x"}, headers=key), 400, "Invalid UPI")
    assert funded.balance() == 9000


@pytest.mark.parametrize(
    ("forbid", "allow", "reason"), [(block, unblock, "upi_blocked"), (freeze, unfreeze, "wallet_frozen")]
)
def test_a_pending_withdrawal_to_a_blocked_payee_needs_approval_after_the_block_ends(
    funded: World, forbid, allow, reason: str
) -> None:
    withdrawal_id = funded.request()
    forbid()
    assert funded.finish(withdrawal_id, steps=3) == "pending"
    row = funded.read(withdrawal_id)
    assert (row.awaits_approval, row.status_reason) == (reason, "awaiting_review")
    assert row.admin_notes == "Awaiting admin approval"
    assert funded.story(withdrawal_id) == ["requested", "awaits_approval"]
    assert refused(approve, withdrawal_id) == reason
    allow()
    assert funded.finish(withdrawal_id, steps=2) == "pending", "it needs an approval"
    approve(withdrawal_id)
    assert funded.finish(withdrawal_id) == "completed"
    assert len(funded.simulator.payouts()) == 1


def test_a_withdrawal_held_by_a_block_can_be_rejected_or_cancelled(funded: World) -> None:
    first, second = funded.request(), funded.request()
    block()
    for held in (first, second):
        funded.step(held)
    reject(first)
    withdrawals.cancel(second, reason="a whim", actor="app:test")
    assert (funded.balance(), funded.refunds(first), funded.refunds(second)) == (9000, 1, 1)


def test_a_new_block_after_an_approval_requires_another_approval(funded: World) -> None:
    withdrawal_id = funded.request()
    block()
    funded.step(withdrawal_id)
    unblock()
    approve(withdrawal_id)
    block()
    funded.bring_on(withdrawal_id)
    assert funded.read(withdrawal_id).awaits_approval == "upi_blocked"
    unblock()
    approve(withdrawal_id, RAVI)
    assert funded.finish(withdrawal_id) == "completed"


def test_a_withdrawal_blocked_while_its_payee_is_registered_is_not_sent(funded: World) -> None:
    withdrawal_id = funded.request()
    funded.advance()
    step = steps.claim(withdrawal_id)
    assert isinstance(step, Prepare)
    answer = funded.perform(step)
    block("@okhdfcbank")
    assert steps.record_answer(step, answer) is None
    assert funded.read(withdrawal_id).awaits_approval == "upi_blocked"
    assert funded.attempts(withdrawal_id) == []


def test_a_withdrawal_blocked_between_two_attempts_is_put_on_hold(funded: World) -> None:
    withdrawal_id = funded.request(upi_id="fail.beneficiary_psp_offline@sim")
    while funded.read(withdrawal_id).status_reason != "retry_later":
        funded.step(withdrawal_id)
    attempts = len(funded.attempts(withdrawal_id))
    block("@sim")
    for _ in range(3):
        funded.step(withdrawal_id)
    row = funded.read(withdrawal_id)
    assert (row.status, row.hold, row.status_reason) == ("processing", "upi_blocked", "in_review")
    assert len(funded.attempts(withdrawal_id)) == attempts and funded.refunds(withdrawal_id) == 0
    kinds = funded.sql(
        "SELECT kind FROM exception_records WHERE resolved_at IS NULL AND kind = 'upi_blocked'"
    )
    assert len(kinds) == 1
    proposal = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="it failed", actor=ASHA)
    withdrawals.approve(proposal.id, actor=RAVI)
    assert (funded.read(withdrawal_id).status, funded.refunds(withdrawal_id)) == ("failed", 1)


@pytest.mark.parametrize("fault", ["504.before", "429"])
def test_a_withdrawal_blocked_before_a_resend_is_looked_up_and_not_sent(funded: World, fault: str) -> None:
    """The first send may not have arrived: a resend could pay a blocked payee."""
    funded.simulator.scenario(fault, next=1)
    send = funded.first_send()
    steps.record_answer(send, funded.perform(send))
    block()
    for _ in range(9):
        funded.step(send.withdrawal_id)
    row = funded.read(send.withdrawal_id)
    assert (row.status, row.hold) == ("processing", "upi_blocked")
    assert funded.attempts(send.withdrawal_id)[0].sends == 1 and funded.simulator.payouts() == []
    unblock()
    proposal = withdrawals.propose(send.withdrawal_id, Decision.GO_ON, evidence="explained", actor=ASHA)
    withdrawals.approve(proposal.id, actor=RAVI)
    assert funded.finish(send.withdrawal_id) == "completed"
    assert len(funded.simulator.payouts()) == 1


def test_a_payout_accepted_before_the_block_completes(funded: World) -> None:
    withdrawal_id = funded.request()
    funded.step(withdrawal_id)
    assert funded.read(withdrawal_id).status == "processing"
    block()
    freeze()
    assert funded.finish(withdrawal_id) == "completed"


def test_a_frozen_wallet_accepts_credits_and_refunds(funded: World) -> None:
    withdrawal_id = funded.request(upi_id="fail.bank_account_closed@sim")
    funded.step(withdrawal_id)
    freeze()
    funded.credit(coins=700, reference="more")
    assert funded.finish(withdrawal_id) == "failed"
    assert funded.balance() == 9700
    assert try_request(funded) == "wallet_frozen"
    unfreeze()
    assert try_request(funded) == "taken"


def test_a_request_concurrent_with_a_freeze_is_refused(funded: World) -> None:
    """A request that waits for the lock of a freeze is refused by it."""
    waiting_for_a_lock = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as thread, transaction() as session:
        blocks.freeze(session, "user123", reason="now", actor=ASHA)
        request = thread.submit(try_request, funded)
        while not funded.sql(waiting_for_a_lock):
            assert not request.done()
    assert request.result() == "wallet_frozen"
    assert funded.balance() == 9000


def test_a_block_is_added_and_removed_once_and_stays_on_record(funded: World) -> None:
    block()
    for action, error in ((block, Conflict), (freeze, None), (freeze, Conflict)):
        if error is None:
            action()
        else:
            with pytest.raises(error):
                action()
    unblock()
    with pytest.raises(NotFound):
        unblock()
    with pytest.raises(NotFound):
        freeze("nobody")
    with pytest.raises(BadRequest, match="UPI"):
        block("no upi id")
    with transaction() as session:
        listed = blocks.listing(session, with_removed=True)
    assert [(entry.subject, entry.added_by, entry.removed_because) for entry in listed] == [
        ("user@okhdfcbank", ASHA, "a mistake")
    ]


def approve_second(*command: str) -> str:
    """Propose with this command, fail to approve it as the same person, approve it as another; returns the output."""
    proposed = output_of(*command).rpartition(" ")[2].strip()
    assert proposed in output_of("block", "proposals")
    same_person = payouts("block", "approve", proposed, "--as", "asha")
    assert same_person.exit_code == 1 and "A second person is needed" in same_person.output
    return output_of("block", "approve", proposed, "--as", "ravi")


def test_operators_block_and_freeze_from_the_shell(funded: World) -> None:
    reason = ("--reason", "reported twice", "--as", "asha")
    assert "user@okhdfcbank is blocked" in output_of("block", "add", "User@OkHdfcBank", *reason)
    assert "operator:asha: reported twice" in output_of("block", "list")
    assert payouts("block", "add", "user@okhdfcbank", *reason).exit_code == 1
    assert "user@okhdfcbank is no longer blocked." in approve_second(
        "block", "remove", "user@okhdfcbank", *reason
    )
    assert "No blocks." in output_of("block", "list") and "ended" in output_of("block", "list", "--all")
    assert "Frozen" in output_of("wallet", "freeze", "user123", *reason)
    assert "user123" in output_of("block", "list", "--wallets")
    assert "user123 is no longer frozen." in approve_second("wallet", "unfreeze", "user123", *reason)
    assert payouts("wallet", "freeze", "user123").exit_code == 2, "a reason is needed"
    assert payouts("wallet", "freeze", "nobody", *reason).exit_code == 1
