"""Review: a withdrawal that awaits approval is never sent until a person approves exactly that withdrawal."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import DBAPIError

from api.app import create_app
from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.monitoring import watchdog
from shared.queues import redis_broker
from shared.queues.names import PAYOUTS
from shared.states import Decision
from shared.withdrawals import blocks, review
from tests.cli.test_operations import output_of, payouts
from tests.support import steps
from tests.support.api import CANCEL, GOOD, STATUS, WITHDRAW
from tests.support.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")

ASHA = "operator:asha"
RAVI = "operator:ravi"


@pytest.fixture
def reviewed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Withdrawals of more than 300 coins await approval."""
    monkeypatch.setenv("REVIEW_ABOVE_COINS", "300")
    world.forget_settings()
    world.credit(coins=5000)
    return world


def facts(withdrawal_id: UUID) -> str:
    with transaction() as session:
        return review.facts_hash(session, withdrawals.find(session, withdrawal_id))


def approve(withdrawal_id: UUID, actor: str = ASHA, shown: str | None = None) -> None:
    shown = facts(withdrawal_id) if shown is None else shown
    withdrawals.approve_review(withdrawal_id, shown=shown, reason="looks right", actor=actor)


def reject(withdrawal_id: UUID, actor: str = ASHA, **fields: str) -> None:
    fields = {"shown": facts(withdrawal_id), "reason": "not theirs", **fields}
    withdrawals.reject_review(withdrawal_id, actor=actor, **fields)


def refused(verb: Callable[..., None], *args: object, **fields: str) -> str:
    """The code of the refusal."""
    with pytest.raises(BadRequest) as raised:
        verb(*args, **fields)
    return raised.value.code


def test_withdrawals_above_the_limit_await_review_and_others_are_paid(reviewed: World) -> None:
    small, large = reviewed.request(coins=300), reviewed.request(coins=301)
    assert reviewed.finish(small) == "completed"
    assert reviewed.finish(large, steps=5) == "pending"
    row = reviewed.read(large)
    assert (row.status_reason, row.admin_notes) == ("awaiting_review", "Awaiting admin approval")
    assert row.awaits_approval == "amount" and row.due_at and row.expected_by
    assert reviewed.attempts(large) == [] and len(reviewed.simulator.payouts()) == 1
    assert reviewed.story(large) == ["requested"], "checking it writes no event"


def test_review_all_holds_every_withdrawal_for_review(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit()
    withdrawal_id = world.request(coins=100)
    assert world.step(withdrawal_id) == "pending"
    assert world.read(withdrawal_id).awaits_approval == "every"


def test_a_message_for_a_withdrawal_in_review_does_nothing(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    before = reviewed.read(withdrawal_id).version
    for _ in range(3):
        reviewed.bring_on(withdrawal_id)
    assert reviewed.read(withdrawal_id).version == before
    assert steps.claim(withdrawal_id) is None


def test_an_approved_withdrawal_is_paid_once(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.advance()
    approve(withdrawal_id)
    row = reviewed.read(withdrawal_id)
    assert (row.awaits_approval, row.status_reason) == (None, "cancel_window")
    reviewed.bring_on(withdrawal_id)
    assert reviewed.finish(withdrawal_id) == "completed"
    assert reviewed.story(withdrawal_id)[:2] == ["requested", "approved"]
    assert len(reviewed.simulator.payouts()) == 1


def test_an_approval_does_not_shorten_the_cancel_window(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    approve(withdrawal_id)
    assert steps.claim(withdrawal_id) is None, "the cancel window is still open"
    withdrawals.cancel(withdrawal_id, reason="a whim", actor="app:test")
    assert reviewed.balance() == 5000


def test_a_rejected_withdrawal_is_refunded_and_says_why(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reject(withdrawal_id, user_message="We could not tell who you are.")
    row = reviewed.read(withdrawal_id)
    assert (row.status, row.failure_reason) == ("failed", "We could not tell who you are.")
    assert (row.status_reason, row.admin_notes) == (
        "rejected_in_review", "Rejected: We could not tell who you are."
    )  # fmt: skip
    assert (reviewed.balance(), reviewed.refunds(withdrawal_id)) == (5000, 1)
    assert reviewed.finish(withdrawal_id, steps=2) == "failed"


def test_a_user_can_cancel_a_withdrawal_in_review(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.advance(100_000)
    reviewed.bring_on(withdrawal_id)
    shown = facts(withdrawal_id)
    withdrawals.cancel(withdrawal_id, reason="too slow", actor="app:test")
    assert reviewed.balance() == 5000
    assert refused(approve, withdrawal_id, shown=shown) == "not_awaiting_approval"
    assert refused(reject, withdrawal_id, shown=shown) == "not_awaiting_approval"


def test_a_second_decision_is_refused(reviewed: World) -> None:
    approved, rejected = reviewed.request(), reviewed.request()
    shown = {key: facts(key) for key in (approved, rejected)}
    approve(approved)
    reject(rejected)
    for key, verb in ((approved, approve), (approved, reject), (rejected, approve), (rejected, reject)):
        assert refused(verb, key, actor=RAVI, shown=shown[key]) == "not_awaiting_approval"
    assert (reviewed.refunds(approved), reviewed.refunds(rejected)) == (0, 1)


@pytest.mark.failure(22)
def test_an_approval_is_never_the_requesters_own(reviewed: World) -> None:
    with transaction() as session:
        session.get_one(blocks.Wallet, "user123").email = "Asha@Example.com"
    withdrawal_id = withdrawals.request(
        user_id="user123", coins=500, upi_id="user@okhdfcbank", actor="operator:meera"
    ).id
    reviewed.operators("meera", "user123")
    reviewed.operators("vera", email="Asha@example.com")
    for actor, code in {
        "operator:meera": "own_request",
        "operator:USER123": "own_wallet",
        "operator:vera": "own_wallet",
        "user:user123": "unknown_operator",
    }.items():
        assert refused(approve, withdrawal_id, actor) == code, actor
    with pytest.raises(DBAPIError, match="not_their_own"):
        reviewed.sql(
            "INSERT INTO reviews (withdrawal_id, why, facts, coins_amount, upi_id, requested_by, outcome, reason,"
            " decided_by) SELECT id, 'amount', '', 500, '', 'operator:asha', 'approved', 'x', 'operator:asha'"
            " FROM withdrawals"
        )
    assert reviewed.read(withdrawal_id).awaits_approval == "amount"


@pytest.mark.failure(22)
def test_an_approval_with_the_facts_of_another_withdrawal_is_refused(reviewed: World) -> None:
    first, second = reviewed.request(coins=400), reviewed.request(coins=500, upi_id="thief@okaxis")
    assert refused(approve, second, shown=facts(first)) == "stale_review"
    assert refused(reject, second, shown="") == "stale_review"
    assert reviewed.read(second).awaits_approval == "amount"


def test_every_review_decision_needs_a_reason_and_an_existing_withdrawal(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    shown = facts(withdrawal_id)
    for verb in (withdrawals.approve_review, withdrawals.reject_review):
        with pytest.raises(BadRequest, match="reason"):
            verb(withdrawal_id, shown=shown, reason=" ", actor=ASHA)
        with pytest.raises(NotFound):
            verb(new_id(), shown=shown, reason="yes", actor=ASHA)
    with pytest.raises(BadRequest, match="message"):
        reject(withdrawal_id, user_message=" ")


def test_changed_review_settings_apply_only_to_new_withdrawals(
    reviewed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_review, unreviewed = reviewed.request(coins=500), reviewed.request(coins=200)
    monkeypatch.setenv("REVIEW_ABOVE_COINS", "")
    reviewed.forget_settings()
    assert reviewed.finish(in_review, steps=3) == "pending"
    monkeypatch.setenv("REVIEW_ALL", "on")
    reviewed.forget_settings()
    assert reviewed.finish(unreviewed) == "completed"
    approve(in_review)
    assert reviewed.finish(in_review) == "completed"


def test_an_overdue_review_becomes_an_exception_record(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.sql("UPDATE withdrawals SET expected_by = expected_by - interval '25 hours'")
    reviewed.step(withdrawal_id)
    assert watchdog.warn_of_overdue() == 1
    kinds = "SELECT kind FROM exception_records WHERE resolved_at IS NULL"
    assert [row.kind for row in reviewed.sql(kinds)] == ["overdue"]
    approve(withdrawal_id)
    watchdog.warn_of_overdue()
    assert reviewed.sql(kinds) == []


def test_a_decision_to_continue_does_not_replace_the_approval(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.sql("UPDATE withdrawals SET hold = 'two_payouts'")
    proposal = withdrawals.propose(withdrawal_id, Decision.GO_ON, evidence="seen", actor=ASHA)
    withdrawals.approve(proposal.id, actor=RAVI)
    reviewed.bring_on(withdrawal_id)
    assert (reviewed.read(withdrawal_id).status_reason, reviewed.attempts(withdrawal_id)) == (
        "awaiting_review", []
    )  # fmt: skip


def test_concurrent_approve_reject_cancel_and_claim_have_one_result(reviewed: World) -> None:
    """Never paid and refunded, never paid without approval; the losing calls raise an error."""
    reviewed.credit(coins=100_000, reference="more")
    reviewed.paid(coins=100)
    statuses = []
    with ThreadPoolExecutor(4) as threads:
        for _ in range(40):
            withdrawal_id = reviewed.request(coins=500)
            reviewed.advance()
            shown = facts(withdrawal_id)
            start = threading.Barrier(4)

            def attempt(action: Callable[[], object], start: threading.Barrier = start) -> bool:
                start.wait()
                try:
                    action()
                except (BadRequest, Conflict):
                    return False
                return True

            def cancel(key: UUID = withdrawal_id) -> None:
                withdrawals.cancel(key, reason="race", actor="app:test")

            actions = [
                lambda key=withdrawal_id, seen=shown: approve(key, shown=seen),
                lambda key=withdrawal_id, seen=shown: reject(key, RAVI, shown=seen),
                cancel,
                lambda key=withdrawal_id: reviewed.bring_on(key),
            ]
            approved, rejected, cancelled, _ = threads.map(attempt, actions)
            status = reviewed.finish(withdrawal_id)
            assert not (approved and rejected) and not (rejected and cancelled)
            assert status == ("failed" if rejected else "cancelled" if cancelled else "completed")
            assert (status == "completed") <= approved
            assert reviewed.refunds(withdrawal_id) == (status != "completed")
            statuses.append(status)
    assert len(reviewed.simulator.payouts()) == 1 + statuses.count("completed")


def test_the_sweep_queues_withdrawals_in_review_once_an_hour(reviewed: World) -> None:
    reviewed.request()
    reviewed.advance(1800)
    withdrawals.sweep()
    assert redis_broker.depth(PAYOUTS) == 0
    reviewed.advance(1900)
    withdrawals.sweep()
    assert redis_broker.depth(PAYOUTS) == 1


# --- the API, and the shell


@pytest.fixture
def app(reviewed: World) -> FlaskClient:
    return create_app().test_client()


def test_the_response_says_that_an_admin_reviews_the_withdrawal(app: FlaskClient) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    response = app.post(WITHDRAW, json=GOOD, headers=key).get_json()
    assert "reviewed by an admin" in response["message"] and response["data"]["status"] == "pending"
    withdrawal_id = response["data"]["withdrawal_id"]
    item = app.get(f"{STATUS}?withdrawal_id={withdrawal_id}", headers=key).get_json()["data"]
    assert (item["status_reason"], item["admin_notes"]) == ("awaiting_review", "Awaiting admin approval")
    assert item["status_message"] and item["expected_by"]
    small = app.post(WITHDRAW, json={**GOOD, "amount": 100}, headers=key).get_json()
    assert "automatically" in small["message"]
    assert app.post(CANCEL, json={"withdrawal_id": withdrawal_id}, headers=key).status_code == 200


def test_operators_approve_and_reject_from_the_shell(reviewed: World) -> None:
    first, second = reviewed.request(coins=400), reviewed.request(coins=500, upi_id="ravi@okaxis")
    listed = output_of("review", "list").splitlines()
    assert [line.split()[0] for line in listed] == [str(first), str(second)]
    assert "₹50.00 (500 coins) from user123 to ravi@okaxis" in listed[1]
    shown = [line.split()[-1] for line in listed]
    options = ("--reason", "seen the papers", "--as", "asha")
    assert "stale" not in output_of("review", "approve", first, "--facts", shown[0], *options)
    assert "500 coins are refunded" in output_of("review", "reject", second, "--facts", shown[1], *options)
    assert "Nothing awaits" in output_of("review", "list")
    repeated = payouts("review", "approve", first, "--facts", shown[0], *options)
    assert repeated.exit_code == 1 and "No longer needs approval" in repeated.output
    assert "asha approved it" in output_of("explain", first) and "seen the papers" in output_of(
        "explain", second
    )
    assert payouts("review", "approve", first, "--facts", shown[0]).exit_code == 2, "a reason is needed"
