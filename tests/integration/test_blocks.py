"""Who is not paid: refused when it is asked for, held for a person when it waits already, and refunded by nobody alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared import blocks, db, withdrawals
from shared.errors import BadRequest, Conflict, NotFound
from shared.states import Decision
from shared.steps import Prepare
from tests.integration.app import GOOD, WITHDRAW, assert_refused
from tests.integration.test_operating import payouts, said
from tests.integration.test_requesting import ask
from tests.integration.test_review import ASHA, RAVI, approve, refused, reject
from tests.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def rich(world: World) -> World:
    world.credit(coins=9000)
    return world


def block(payee: str = "user@okhdfcbank") -> None:
    with db.transaction() as session:
        blocks.add(session, payee, reason="reported", actor=ASHA)


def unblock(payee: str = "user@okhdfcbank") -> None:
    with db.transaction() as session:
        made = blocks.propose_unblock(session, payee, reason="a mistake", actor=ASHA)
        blocks.approve(session, made.id, actor=RAVI)


def freeze(user_id: str = "user123") -> None:
    with db.transaction() as session:
        blocks.freeze(session, user_id, reason="many phones", actor=ASHA)


def unfreeze(user_id: str = "user123") -> None:
    with db.transaction() as session:
        made = blocks.propose_unfreeze(session, user_id, reason="explained", actor=ASHA)
        blocks.approve(session, made.id, actor=RAVI)


@pytest.mark.parametrize("payee", ["user@okhdfcbank", "USER@OkHdfcBank", "@okhdfcbank", " @OKHDFCBANK "])
def test_a_request_to_one_is_refused_whatever_the_case(rich: World, payee: str) -> None:
    block(payee)
    assert ask(rich, upi_id="User@okHDFCbank") == "upi_blocked"
    assert ask(rich, upi_id="user@okhdfc") == "taken"
    assert (ask(rich, upi_id="other@okhdfcbank") == "taken") == (payee.strip()[0] != "@")
    unblock(payee)
    assert ask(rich) == "taken"


def test_the_refusals_are_plain_and_come_after_the_contracts_own(rich: World) -> None:
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
    assert rich.balance() == 9000


@pytest.mark.parametrize(
    ("stop", "go", "why"), [(block, unblock, "upi_blocked"), (freeze, unfreeze, "wallet_frozen")]
)
def test_one_that_waits_already_is_held_and_approved_only_after_the_block_is_gone(
    rich: World, stop, go, why: str
) -> None:
    withdrawal_id = rich.request()
    stop()
    assert rich.finish(withdrawal_id, steps=3) == "pending"
    row = rich.read(withdrawal_id)
    assert (row.awaits_approval, row.status_reason) == (why, "awaiting_review")
    assert row.admin_notes == "Awaiting admin approval"
    assert rich.story(withdrawal_id) == ["requested", "awaits_approval"]
    assert refused(approve, withdrawal_id) == why
    go()
    assert rich.finish(withdrawal_id, steps=2) == "pending", "a person must say so"
    approve(withdrawal_id)
    assert rich.finish(withdrawal_id) == "completed"
    assert len(rich.simulator.payouts()) == 1


def test_one_that_is_held_can_be_rejected_or_cancelled(rich: World) -> None:
    one, other = rich.request(), rich.request()
    block()
    for held in (one, other):
        rich.step(held)
    reject(one)
    withdrawals.cancel(other, reason="a whim", actor="app:test")
    assert (rich.balance(), rich.refunds(one), rich.refunds(other)) == (9000, 1, 1)


def test_blocked_again_after_its_approval_it_awaits_another(rich: World) -> None:
    withdrawal_id = rich.request()
    block()
    rich.step(withdrawal_id)
    unblock()
    approve(withdrawal_id)
    block()
    rich.bring_on(withdrawal_id)
    assert rich.read(withdrawal_id).awaits_approval == "upi_blocked"
    unblock()
    approve(withdrawal_id, RAVI)
    assert rich.finish(withdrawal_id) == "completed"


def test_blocked_while_the_payee_is_made_known_it_is_not_sent(rich: World) -> None:
    withdrawal_id = rich.request()
    rich.advance()
    step = withdrawals.claim(withdrawal_id)
    assert isinstance(step, Prepare)
    answer = rich.perform(step)
    block("@okhdfcbank")
    assert withdrawals.record_answer(step, answer) is None
    assert rich.read(withdrawal_id).awaits_approval == "upi_blocked"
    assert rich.attempts(withdrawal_id) == []


def test_blocked_between_two_attempts_a_person_is_told_and_nothing_is_refunded_or_sent(rich: World) -> None:
    withdrawal_id = rich.request(upi_id="fail.beneficiary_psp_offline@sim")
    while rich.read(withdrawal_id).status_reason != "retry_later":
        rich.step(withdrawal_id)
    tried = len(rich.attempts(withdrawal_id))
    block("@sim")
    for _ in range(3):
        rich.step(withdrawal_id)
    row = rich.read(withdrawal_id)
    assert (row.status, row.review, row.status_reason) == ("processing", "upi_blocked", "in_review")
    assert len(rich.attempts(withdrawal_id)) == tried and rich.refunds(withdrawal_id) == 0
    kinds = rich.sql("SELECT kind FROM exception_records WHERE resolved_at IS NULL AND kind = 'upi_blocked'")
    assert len(kinds) == 1
    made = withdrawals.propose(withdrawal_id, Decision.REFUND, evidence="it failed", actor=ASHA)
    withdrawals.approve(made.id, actor=RAVI)
    assert (rich.read(withdrawal_id).status, rich.refunds(withdrawal_id)) == ("failed", 1)


@pytest.mark.parametrize("fault", ["504.before", "429"])
def test_blocked_before_it_is_sent_again_it_is_looked_up_and_not_sent(rich: World, fault: str) -> None:
    """Nobody knows whether the first send was taken: the same key would pay somebody who must not be paid."""
    rich.simulator.scenario(fault, next=1)
    send = rich.first_send()
    withdrawals.record_answer(send, rich.perform(send))
    block()
    for _ in range(9):
        rich.step(send.withdrawal_id)
    row = rich.read(send.withdrawal_id)
    assert (row.status, row.review) == ("processing", "upi_blocked")
    assert rich.attempts(send.withdrawal_id)[0].sends == 1 and rich.simulator.payouts() == []
    unblock()
    made = withdrawals.propose(send.withdrawal_id, Decision.GO_ON, evidence="explained", actor=ASHA)
    withdrawals.approve(made.id, actor=RAVI)
    assert rich.finish(send.withdrawal_id) == "completed"
    assert len(rich.simulator.payouts()) == 1


def test_what_was_paid_before_anybody_blocked_it_completes(rich: World) -> None:
    withdrawal_id = rich.request()
    rich.step(withdrawal_id)
    assert rich.read(withdrawal_id).status == "processing"
    block()
    freeze()
    assert rich.finish(withdrawal_id) == "completed"


def test_a_frozen_wallet_takes_credits_and_refunds(rich: World) -> None:
    withdrawal_id = rich.request(upi_id="fail.bank_account_closed@sim")
    rich.step(withdrawal_id)
    freeze()
    rich.credit(coins=700, reference="more")
    assert rich.finish(withdrawal_id) == "failed"
    assert rich.balance() == 9700
    assert ask(rich) == "wallet_frozen"
    unfreeze()
    assert ask(rich) == "taken"


def test_freezing_and_asking_at_once_end_one_way(rich: World) -> None:
    """A freeze waits for who has the wallet, and whoever waits for the freeze is refused by it."""
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as thread, db.transaction() as session:
        blocks.freeze(session, "user123", reason="now", actor=ASHA)
        asked = thread.submit(ask, rich)
        while not rich.sql(waiting):
            assert not asked.done()
    assert asked.result() == "wallet_frozen"
    assert rich.balance() == 9000


def test_blocks_are_made_and_ended_once_and_kept(rich: World) -> None:
    block()
    for again, error in ((block, Conflict), (freeze, None), (freeze, Conflict)):
        if error is None:
            again()
        else:
            with pytest.raises(error):
                again()
    unblock()
    with pytest.raises(NotFound):
        unblock()
    with pytest.raises(NotFound):
        freeze("nobody")
    with pytest.raises(BadRequest, match="UPI"):
        block("no upi id")
    with db.transaction() as session:
        kept = blocks.listing(session, with_removed=True)
    assert [(one.subject, one.added_by, one.removed_because) for one in kept] == [
        ("user@okhdfcbank", ASHA, "a mistake")
    ]


def ended(*words: str) -> str:
    """What a second person is told who approves the end that these words propose, after the first tried."""
    proposed = said(*words).rpartition(" ")[2].strip()
    assert proposed in said("block", "proposals")
    alone = payouts("block", "approve", proposed, "--as", "asha")
    assert alone.exit_code == 1 and "A second person is needed" in alone.output
    return said("block", "approve", proposed, "--as", "ravi")


def test_operators_block_and_freeze_at_a_shell(rich: World) -> None:
    why = ("--reason", "reported twice", "--as", "asha")
    assert "user@okhdfcbank is blocked" in said("block", "add", "User@OkHdfcBank", *why)
    assert "operator:asha: reported twice" in said("block", "list")
    assert payouts("block", "add", "user@okhdfcbank", *why).exit_code == 1
    assert "user@okhdfcbank is not blocked any more." in ended("block", "remove", "user@okhdfcbank", *why)
    assert "Nobody" in said("block", "list") and "removed" in said("block", "list", "--all")
    assert "Frozen" in said("wallet", "freeze", "user123", *why)
    assert "user123" in said("block", "list", "--wallets")
    assert "user123 is not frozen any more." in ended("wallet", "unfreeze", "user123", *why)
    assert payouts("wallet", "freeze", "user123").exit_code == 2, "a reason is needed"
    assert payouts("wallet", "freeze", "nobody", *why).exit_code == 1
