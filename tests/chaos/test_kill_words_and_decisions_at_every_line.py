"""Whoever takes a webhook, hears of a payment after a refund, or decides, is killed before every single line of it.

What is left is either as before or done with everything that belongs to it, and goes on from there.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shared import blocks, db, exception_records, inbox, proposals, withdrawals
from shared.proposals import kinds
from shared.razorpayx.answers import Refused
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from shared.states import Decision
from shared.withdrawals import record_answer
from tests.chaos.killing import Killer, in_child, moments
from tests.chaos.test_kill_at_every_line import new_withdrawal
from tests.world import World, event_body
from worker.tasks import bring_on

pytestmark = [
    pytest.mark.usefixtures("people"),
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

ASHA, RAVI = "operator:asha", "operator:ravi"
HINTS = ("shared/inbox.py", "shared/withdrawals/hinting.py", "shared/withdrawals/rechecking.py")
CONTRADICTED = (
    "shared/withdrawals/reporting.py",
    "shared/withdrawals/effects.py",
    "shared/withdrawals/journey.py",
    "shared/blocks.py",
    "shared/exception_records.py",
)
DECISIONS = (
    "shared/withdrawals/resolving.py",
    "shared/withdrawals/deciding.py",
    "shared/withdrawals/correcting.py",
    "shared/withdrawals/journey.py",
    "shared/wallet.py",
)


@pytest.mark.failure(3)
@pytest.mark.parametrize(("ends", "status"), [("failed", "failed"), ("processed", "completed")])
def test_killed_before_every_line_of_a_webhook_ends_as_it_ended_there(
    world: World, tmp_path: Path, ends: str, status: str
) -> None:
    """It is kept, it makes us ask, and what is answered counts: once, whichever line somebody dies in."""
    world.credit(coins=1_000_000)

    def told_of() -> UUID:
        withdrawal_id = new_withdrawal(world)
        world.bring_on(withdrawal_id)
        payout_id = world.attempts(withdrawal_id)[0].payout_id
        world.becomes(payout_id, ends)
        return withdrawal_id

    def hear(withdrawal_id: UUID) -> None:
        attempt = world.attempts(withdrawal_id)[0]
        payout = {"id": attempt.payout_id, "amount": 1000, "reference_id": str(attempt.id), "status": ends}
        inbox.receive(str(withdrawal_id), event_body(f"payout.{ends}", payout))
        inbox.apply(str(withdrawal_id))
        bring_on(withdrawal_id, RazorpayX(settings()))

    first, killed = told_of(), {}
    for moment in moments(lambda: hear(first), tmp_path, *HINTS, at_least=40):
        withdrawal_id = told_of()
        in_child(lambda key=withdrawal_id: hear(key), Killer(*moment))
        killed[withdrawal_id] = moment
    for withdrawal_id, moment in killed.items():
        inbox.apply(str(withdrawal_id))  # the sweep finds what was kept; RazorpayX sends again what was not
        world.finish(withdrawal_id)
        row = world.read(withdrawal_id)
        assert row.status == status, f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == (status == "failed"), f"{moment}"
    for row in world.sql(
        "UPDATE payout_attempts SET recheck_at = now() WHERE unconfirmed RETURNING withdrawal_id"
    ):
        world.bring_on(row.withdrawal_id)
    assert world.sql("SELECT FROM payout_attempts WHERE unconfirmed") == [], "a call of ours confirms it"


def given_back(world: World) -> tuple[UUID, dict[str, Any]]:
    """Refused, its coins back, and then taken and paid by RazorpayX all the same."""
    send = world.first_send(coins=100)
    record_answer(send, Refused("input_validation_failed", "no", 400))
    payout = world.arrives_after_all(send.withdrawal_id)
    world.simulator.scenario("success", default=True)
    return send.withdrawal_id, payout


@pytest.mark.failure(3)
def test_killed_before_every_line_of_a_contradiction_calls_people_and_freezes_or_is_told_again(
    world: World, tmp_path: Path
) -> None:
    world.credit(coins=1_000_000)
    first = given_back(world)[1]
    lines = moments(lambda: world.hears(first), tmp_path, *CONTRADICTED, at_least=40)
    held = 0
    for moment in lines:
        with db.transaction() as session:
            if blocks.of_wallet(session, "user123"):
                made = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
                blocks.approve(session, made.id, actor=RAVI)
        withdrawal_id, payout = given_back(world)
        in_child(lambda told=payout: world.hears(told), Killer(*moment))
        is_told = world.read(withdrawal_id).review == "processed_after_refused"
        with db.transaction() as session:
            is_frozen = blocks.is_frozen(session, "user123")
            assert is_frozen == (blocks.of_wallet(session, "user123") is not None) == is_told, f"{moment}"
        held += is_told
        world.hears(payout)
        assert world.read(withdrawal_id).review == "processed_after_refused", f"{moment}"
        with db.transaction() as session:
            of_it = [r for r in exception_records.listing(session) if r.withdrawal_id == withdrawal_id]
            assert len(of_it) == 1 and blocks.is_frozen(session, "user123"), f"{moment}"
    assert held < len(lines), "killed before the commit"
    assert world.balance() == 1_000_000


@pytest.mark.failure(3)
def test_killed_before_every_line_of_a_decision_moves_its_coins_once_or_not_at_all(
    world: World, tmp_path: Path
) -> None:
    world.credit(coins=1_000_000)

    def late() -> UUID:
        withdrawal_id, payout = given_back(world)
        world.hears(payout)
        with db.transaction() as session:
            made = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
            blocks.approve(session, made.id, actor=RAVI)
        return withdrawal_id

    def take_back(withdrawal_id: UUID) -> None:
        made = withdrawals.propose(withdrawal_id, Decision.TAKE_BACK, evidence="seen", actor=ASHA)
        withdrawals.approve(made.id, actor=RAVI)

    first, killed = late(), {}
    for moment in moments(lambda: take_back(first), tmp_path, *DECISIONS, at_least=80):
        withdrawal_id = late()
        in_child(lambda key=withdrawal_id: take_back(key), Killer(*moment))
        killed[withdrawal_id] = moment
    taken = {row.withdrawal_id for row in world.sql("SELECT withdrawal_id FROM adjustments")} - {first}
    assert 0 <= len(taken) < len(killed), "killed before the commit"
    for withdrawal_id, moment in killed.items():
        assert (world.read(withdrawal_id).review is None) == (withdrawal_id in taken), f"{moment}"
        waiting = world.sql(
            "SELECT id FROM resolutions WHERE withdrawal_id = :id AND decided_at IS NULL", id=withdrawal_id
        )
        if withdrawal_id in taken:
            assert waiting == [], f"{moment}"
        elif waiting:
            withdrawals.approve(waiting[0].id, actor=RAVI)
        else:
            take_back(withdrawal_id)
    assert world.balance() == 1_000_000 - 100 * (1 + len(killed))


def test_killed_before_every_line_of_a_proposal_gives_power_wholly_or_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new operator by two admins: the row, its invitation and the lines of the audit log, or none of them."""
    monkeypatch.setenv("ADMIN_URL", "https://payouts.example/admin/")
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    world.forget_settings()

    def add(name: str) -> None:
        wanted = {"role": "operator", "email": f"{name}@example.com"}
        proposals.propose(proposals.KINDS[kinds.ADD], name, wanted, reason="x", actor=ASHA)

    def confirm(name: str) -> None:
        [made] = world.sql("SELECT * FROM admin_proposals WHERE subject = :n", n=name)
        proposals.confirm(made.id, shown=made.fingerprint, actor=RAVI)

    add("first")
    names = []
    for moment in moments(
        lambda: confirm("first"), tmp_path, "shared/proposals/", "shared/operators.py", at_least=25
    ):
        names.append(f"kiran{len(names)}")
        add(names[-1])
        in_child(lambda name=names[-1]: confirm(name), Killer(*moment))
        [made] = world.sql("SELECT outcome FROM admin_proposals WHERE subject = :n", n=names[-1])
        is_there = world.sql("SELECT FROM operators WHERE name = :n", n=names[-1]) != []
        invited = world.sql("SELECT FROM operator_invitations WHERE operator = :n", n=names[-1]) != []
        assert (made.outcome == "confirmed") == is_there == invited, f"{moment}"
        if not is_there:
            confirm(names[-1])
    assert len(world.sql("SELECT FROM operators WHERE name LIKE 'kiran%'")) == len(names)
