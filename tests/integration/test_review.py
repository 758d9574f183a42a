"""What awaits a person is not sent, by nobody and at no time, until one has said yes to just that."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import DBAPIError

from api.app import create_app
from shared import blocks, db, queues, watching, withdrawals
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.states import Decision
from shared.withdrawals import reviewing
from tests.integration.app import CANCEL, GOOD, STATUS, WITHDRAW
from tests.integration.test_operating import payouts, said
from tests.world import KEY, World

pytestmark = pytest.mark.usefixtures("people")

ASHA, RAVI = "operator:asha", "operator:ravi"


@pytest.fixture
def reviewed(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Withdrawals of more than 300 coins await approval."""
    monkeypatch.setenv("REVIEW_ABOVE_COINS", "300")
    world.forget_settings()
    world.credit(coins=5000)
    return world


def facts(withdrawal_id: UUID) -> str:
    with db.transaction() as session:
        return reviewing.facts(session, withdrawals.find(session, withdrawal_id))


def approve(withdrawal_id: UUID, actor: str = ASHA, shown: str | None = None) -> None:
    shown = facts(withdrawal_id) if shown is None else shown
    withdrawals.approve_review(withdrawal_id, shown=shown, reason="looks right", actor=actor)


def reject(withdrawal_id: UUID, actor: str = ASHA, **about: str) -> None:
    about = {"shown": facts(withdrawal_id), "reason": "not theirs", **about}
    withdrawals.reject_review(withdrawal_id, actor=actor, **about)


def refused(verb: Callable[..., None], *words: object, **about: str) -> str:
    """The code of the refusal."""
    with pytest.raises(BadRequest) as told:
        verb(*words, **about)
    return told.value.code


def test_what_is_above_waits_and_what_is_not_is_paid(reviewed: World) -> None:
    small, large = reviewed.request(coins=300), reviewed.request(coins=301)
    assert reviewed.finish(small) == "completed"
    assert reviewed.finish(large, steps=5) == "pending"
    row = reviewed.read(large)
    assert (row.status_reason, row.admin_notes) == ("awaiting_review", "Awaiting admin approval")
    assert row.awaits_approval == "amount" and row.due_at and row.expected_by
    assert reviewed.attempts(large) == [] and len(reviewed.simulator.payouts()) == 1
    assert reviewed.story(large) == ["requested"], "looking at it leaves no trace"


def test_all_of_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit()
    withdrawal_id = world.request(coins=100)
    assert world.step(withdrawal_id) == "pending"
    assert world.read(withdrawal_id).awaits_approval == "every"


def test_a_message_for_one_does_nothing_before_its_time(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    before = reviewed.read(withdrawal_id).version
    for _ in range(3):
        reviewed.bring_on(withdrawal_id)
    assert reviewed.read(withdrawal_id).version == before
    assert withdrawals.claim(withdrawal_id) is None


def test_an_approved_one_is_paid_once(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.advance()
    approve(withdrawal_id)
    row = reviewed.read(withdrawal_id)
    assert (row.awaits_approval, row.status_reason) == (None, "cancel_window")
    reviewed.bring_on(withdrawal_id)
    assert reviewed.finish(withdrawal_id) == "completed"
    assert reviewed.story(withdrawal_id)[:2] == ["requested", "approved"]
    assert len(reviewed.simulator.payouts()) == 1


def test_an_approval_leaves_the_user_their_cancel_window(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    approve(withdrawal_id)
    assert withdrawals.claim(withdrawal_id) is None, "ten seconds are not over"
    withdrawals.cancel(withdrawal_id, reason="a whim", actor="app:test")
    assert reviewed.balance() == 5000


def test_a_rejected_one_gives_the_coins_back_and_says_why(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reject(withdrawal_id, words="We could not tell who you are.")
    row = reviewed.read(withdrawal_id)
    assert (row.status, row.failure_reason) == ("failed", "We could not tell who you are.")
    assert (row.status_reason, row.admin_notes) == (
        "rejected_in_review", "Rejected: We could not tell who you are."
    )  # fmt: skip
    assert (reviewed.balance(), reviewed.refunds(withdrawal_id)) == (5000, 1)
    assert reviewed.finish(withdrawal_id, steps=2) == "failed"


def test_the_user_cancels_one_that_waits(reviewed: World) -> None:
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
    shown = {one: facts(one) for one in (approved, rejected)}
    approve(approved)
    reject(rejected)
    for one, verb in ((approved, approve), (approved, reject), (rejected, approve), (rejected, reject)):
        assert refused(verb, one, actor=RAVI, shown=shown[one]) == "not_awaiting_approval"
    assert (reviewed.refunds(approved), reviewed.refunds(rejected)) == (0, 1)


@pytest.mark.failure(22)
def test_an_approval_is_never_the_requesters_own(reviewed: World) -> None:
    with db.transaction() as session:
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
def test_an_approval_of_what_another_page_showed_is_refused(reviewed: World) -> None:
    one, other = reviewed.request(coins=400), reviewed.request(coins=500, upi_id="thief@okaxis")
    assert refused(approve, other, shown=facts(one)) == "stale_review"
    assert refused(reject, other, shown="") == "stale_review"
    assert reviewed.read(other).awaits_approval == "amount"


def test_every_decision_needs_a_reason_and_something_to_decide(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    shown = facts(withdrawal_id)
    for verb in (withdrawals.approve_review, withdrawals.reject_review):
        with pytest.raises(BadRequest, match="reason"):
            verb(withdrawal_id, shown=shown, reason=" ", actor=ASHA)
        with pytest.raises(NotFound):
            verb(new_id(), shown=shown, reason="yes", actor=ASHA)
    with pytest.raises(BadRequest, match="Words"):
        reject(withdrawal_id, words=" ")


def test_settings_that_change_later_change_nothing_of_what_waits_or_was_asked_for(
    reviewed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, free = reviewed.request(coins=500), reviewed.request(coins=200)
    monkeypatch.setenv("REVIEW_ABOVE_COINS", "")
    reviewed.forget_settings()
    assert reviewed.finish(waits, steps=3) == "pending"
    monkeypatch.setenv("REVIEW_ALL", "on")
    reviewed.forget_settings()
    assert reviewed.finish(free) == "completed"
    approve(waits)
    assert reviewed.finish(waits) == "completed"


def test_one_that_nobody_looks_at_becomes_an_exception_record(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.sql("UPDATE withdrawals SET expected_by = expected_by - interval '25 hours'")
    reviewed.step(withdrawal_id)
    assert watching.warn_of_overdue() == 1
    kinds = "SELECT kind FROM exception_records WHERE resolved_at IS NULL"
    assert [row.kind for row in reviewed.sql(kinds)] == ["overdue"]
    approve(withdrawal_id)
    watching.warn_of_overdue()
    assert reviewed.sql(kinds) == []


def test_two_people_who_let_it_go_on_do_not_approve_it(reviewed: World) -> None:
    withdrawal_id = reviewed.request()
    reviewed.sql("UPDATE withdrawals SET review = 'two_payouts'")
    made = withdrawals.propose(withdrawal_id, Decision.GO_ON, evidence="seen", actor=ASHA)
    withdrawals.approve(made.id, actor=RAVI)
    reviewed.bring_on(withdrawal_id)
    assert (reviewed.read(withdrawal_id).status_reason, reviewed.attempts(withdrawal_id)) == (
        "awaiting_review", []
    )  # fmt: skip


def test_approve_reject_cancel_and_a_worker_at_once_end_one_way(reviewed: World) -> None:
    """Never paid and refunded, never paid without approval; and whoever lost is told so."""
    reviewed.credit(coins=100_000, reference="more")
    reviewed.paid(coins=100)
    ends = []
    with ThreadPoolExecutor(4) as threads:
        for _ in range(40):
            withdrawal_id = reviewed.request(coins=500)
            reviewed.advance()
            shown, start = facts(withdrawal_id), threading.Barrier(4)

            def tried(verb: Callable[[], object], start: threading.Barrier = start) -> bool:
                start.wait()
                try:
                    verb()
                except (BadRequest, Conflict):
                    return False
                return True

            def cancel(key: UUID = withdrawal_id) -> None:
                withdrawals.cancel(key, reason="race", actor="app:test")

            verbs = [
                lambda key=withdrawal_id, seen=shown: approve(key, shown=seen),
                lambda key=withdrawal_id, seen=shown: reject(key, RAVI, shown=seen),
                cancel,
                lambda key=withdrawal_id: reviewed.bring_on(key),
            ]
            approved, rejected, cancelled, _ = threads.map(tried, verbs)
            status = reviewed.finish(withdrawal_id)
            assert not (approved and rejected) and not (rejected and cancelled)
            assert status == ("failed" if rejected else "cancelled" if cancelled else "completed")
            assert (status == "completed") <= approved
            assert reviewed.refunds(withdrawal_id) == (status != "completed")
            ends.append(status)
    assert len(reviewed.simulator.payouts()) == 1 + ends.count("completed")


def test_the_sweep_passes_by_what_awaits_and_looks_at_it_each_hour(reviewed: World) -> None:
    reviewed.request()
    reviewed.advance(1800)
    withdrawals.sweep()
    assert queues.depth(queues.PAYOUTS) == 0
    reviewed.advance(1900)
    withdrawals.sweep()
    assert queues.depth(queues.PAYOUTS) == 1


# --- the API, and the shell


@pytest.fixture
def app(reviewed: World) -> FlaskClient:
    return create_app().test_client()


def test_the_app_is_told_that_an_admin_reviews_it(app: FlaskClient) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    made = app.post(WITHDRAW, json=GOOD, headers=key).get_json()
    assert "reviewed by an admin" in made["message"] and made["data"]["status"] == "pending"
    withdrawal_id = made["data"]["withdrawal_id"]
    told = app.get(f"{STATUS}?withdrawal_id={withdrawal_id}", headers=key).get_json()["data"]
    assert (told["status_reason"], told["admin_notes"]) == ("awaiting_review", "Awaiting admin approval")
    assert told["status_message"] and told["expected_by"]
    small = app.post(WITHDRAW, json={**GOOD, "amount": 100}, headers=key).get_json()
    assert "automatically" in small["message"]
    assert app.post(CANCEL, json={"withdrawal_id": withdrawal_id}, headers=key).status_code == 200


def test_operators_approve_and_reject_at_a_shell(reviewed: World) -> None:
    one, other = reviewed.request(coins=400), reviewed.request(coins=500, upi_id="ravi@okaxis")
    listed = said("review", "list").splitlines()
    assert [line.split()[0] for line in listed] == [str(one), str(other)]
    assert "₹50.00 (500 coins) of user123 to ravi@okaxis" in listed[1]
    shown = [line.split()[-1] for line in listed]
    decide = ("--reason", "seen the papers", "--as", "asha")
    assert "stale" not in said("review", "approve", one, "--facts", shown[0], *decide)
    assert "500 coins are back" in said("review", "reject", other, "--facts", shown[1], *decide)
    assert "Nothing awaits" in said("review", "list")
    again = payouts("review", "approve", one, "--facts", shown[0], *decide)
    assert again.exit_code == 1 and "awaits no approval" in again.output
    assert "asha approved it" in said("explain", one) and "seen the papers" in said("explain", other)
    assert payouts("review", "approve", one, "--facts", shown[0]).exit_code == 2, "a reason is needed"
