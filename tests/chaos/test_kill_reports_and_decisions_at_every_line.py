"""The process that applies a webhook, a contradictory report or a decision is killed before every line of it.

The result is either as before or complete, and work continues from there.
"""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shared import proposals, withdrawals
from shared.db.transactions import transaction
from shared.people import exception_records
from shared.proposals import kinds
from shared.providers.answers import Refused
from shared.states import Decision
from shared.withdrawals import blocks, inbox
from tests.chaos.killing import Killer, in_child, moments
from tests.chaos.test_kill_at_every_line import bring_on, new_withdrawal
from tests.support import steps
from tests.support.steps import record_answer
from tests.support.world import World, event_body

pytestmark = [
    pytest.mark.usefixtures("people"),
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

ASHA = "operator:asha"
RAVI = "operator:ravi"
HINTS = ("shared/withdrawals/inbox.py", "shared/withdrawals/hints.py", "shared/withdrawals/rechecks.py")
CONTRADICTED = (
    "shared/withdrawals/apply_report.py",
    "shared/withdrawals/effects.py",
    "shared/withdrawals/transitions.py",
    "shared/withdrawals/blocks.py",
    "shared/people/exception_records.py",
)
DECISIONS = (
    "shared/withdrawals/resolve.py",
    "shared/withdrawals/decisions.py",
    "shared/withdrawals/corrections.py",
    "shared/withdrawals/transitions.py",
    "shared/people/maker_checker.py",
    "shared/coins/wallet.py",
)
PROPOSALS = ("shared/proposals/", "shared/people/maker_checker.py", "shared/people/operators.py")


@pytest.mark.failure(3)
@pytest.mark.parametrize(("ends", "status"), [("failed", "failed"), ("processed", "completed")])
def test_a_webhook_killed_before_every_line_ends_as_at_the_provider(
    world: World, tmp_path: Path, ends: str, status: str
) -> None:
    """Two webhooks are stored and cause queries, and each answer counts once, whichever line the kill hits."""
    world.credit(coins=1_000_000)

    def sent() -> list[UUID]:
        batch = [new_withdrawal(world) for _ in range(2)]
        bring_on(*batch)
        for withdrawal_id in batch:
            world.set_status(world.attempts(withdrawal_id)[0].payout_id, ends)
        return batch

    def receive(batch: list[UUID]) -> None:
        for withdrawal_id in batch:
            attempt = world.attempts(withdrawal_id)[0]
            payout = {
                "id": attempt.payout_id,
                "amount": 1000,
                "reference_id": str(attempt.id),
                "status": ends,
            }
            inbox.receive(str(withdrawal_id), event_body(f"payout.{ends}", payout))
        inbox.apply([str(withdrawal_id) for withdrawal_id in batch])
        bring_on(*batch)

    first = sent()
    killed = {}
    for moment in moments(lambda: receive(first), tmp_path, *HINTS, at_least=40):
        batch = sent()
        in_child(lambda keys=batch: receive(keys), Killer(*moment))
        killed |= dict.fromkeys(batch, moment)
    for withdrawal_id, moment in killed.items():
        # The sweep finds a stored webhook; the provider resends one that was not stored.
        steps.apply(str(withdrawal_id))
        world.finish(withdrawal_id)
        row = world.read(withdrawal_id)
        assert row.status == status, f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == (status == "failed"), f"{moment}"
    for row in world.sql(
        "UPDATE payout_attempts SET recheck_at = now() WHERE unconfirmed RETURNING withdrawal_id"
    ):
        world.bring_on(row.withdrawal_id)
    assert world.sql("SELECT FROM payout_attempts WHERE unconfirmed") == [], "our own call confirms it"


def refunded_then_paid(world: World) -> tuple[UUID, dict[str, Any]]:
    """Refused and refunded, and then accepted and paid by the provider all the same."""
    send = world.first_send(coins=100)
    record_answer(send, Refused("input_validation_failed", "no", 400))
    payout = world.arrive_late(send.withdrawal_id)
    world.simulator.scenario("success", default=True)
    return send.withdrawal_id, payout


@pytest.mark.failure(3)
def test_a_contradiction_killed_before_every_line_is_recorded_completely_or_not_at_all(
    world: World, tmp_path: Path
) -> None:
    world.credit(coins=1_000_000)
    first = refunded_then_paid(world)[1]
    lines = moments(lambda: world.receive_report(first), tmp_path, *CONTRADICTED, at_least=40)
    held = 0
    for moment in lines:
        with transaction() as session:
            if blocks.wallet_block(session, "user123"):
                proposal = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
                blocks.approve(session, proposal.id, actor=RAVI)
        withdrawal_id, payout = refunded_then_paid(world)
        in_child(lambda report=payout: world.receive_report(report), Killer(*moment))
        is_held = world.read(withdrawal_id).hold == "processed_after_refused"
        with transaction() as session:
            is_frozen = blocks.is_frozen(session, "user123")
            assert is_frozen == (blocks.wallet_block(session, "user123") is not None) == is_held, f"{moment}"
        held += is_held
        world.receive_report(payout)
        assert world.read(withdrawal_id).hold == "processed_after_refused", f"{moment}"
        with transaction() as session:
            records = [r for r in exception_records.listing(session) if r.withdrawal_id == withdrawal_id]
            assert len(records) == 1 and blocks.is_frozen(session, "user123"), f"{moment}"
    assert held < len(lines), "killed before the commit"
    assert world.balance() == 1_000_000


@pytest.mark.failure(3)
def test_a_decision_killed_before_every_line_moves_coins_once_or_not_at_all(
    world: World, tmp_path: Path
) -> None:
    world.credit(coins=1_000_000)

    def late() -> UUID:
        withdrawal_id, payout = refunded_then_paid(world)
        world.receive_report(payout)
        with transaction() as session:
            proposal = blocks.propose_unfreeze(session, "user123", reason="seen", actor=ASHA)
            blocks.approve(session, proposal.id, actor=RAVI)
        return withdrawal_id

    def take_back(withdrawal_id: UUID) -> None:
        proposal = withdrawals.propose(withdrawal_id, Decision.TAKE_BACK, evidence="seen", actor=ASHA)
        withdrawals.approve(proposal.id, actor=RAVI)

    first = late()
    killed = {}
    for moment in moments(lambda: take_back(first), tmp_path, *DECISIONS, at_least=80):
        withdrawal_id = late()
        in_child(lambda key=withdrawal_id: take_back(key), Killer(*moment))
        killed[withdrawal_id] = moment
    taken = {row.withdrawal_id for row in world.sql("SELECT withdrawal_id FROM adjustments")} - {first}
    assert len(taken) < len(killed), "killed before the commit"
    for withdrawal_id, moment in killed.items():
        assert (world.read(withdrawal_id).hold is None) == (withdrawal_id in taken), f"{moment}"
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


def test_a_confirmation_killed_before_every_line_adds_an_operator_completely_or_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two admins add an operator: the row, its invitation and the audit log entries, or none of them."""
    monkeypatch.setenv("ADMIN_URL", "https://payouts.example/admin/")
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    world.forget_settings()

    def add(name: str) -> None:
        wanted = {"role": "operator", "email": f"{name}@example.com"}
        proposals.propose(proposals.KINDS[kinds.ADD], name, wanted, reason="x", actor=ASHA)

    def confirm(name: str) -> None:
        [proposal] = world.sql("SELECT * FROM admin_proposals WHERE subject = :n", n=name)
        proposals.confirm(proposal.id, shown=proposal.fingerprint, actor=RAVI)

    add("first")
    names = []
    for moment in moments(lambda: confirm("first"), tmp_path, *PROPOSALS, at_least=25):
        names.append(f"kiran{len(names)}")
        add(names[-1])
        in_child(lambda name=names[-1]: confirm(name), Killer(*moment))
        [proposal] = world.sql("SELECT outcome FROM admin_proposals WHERE subject = :n", n=names[-1])
        exists = world.sql("SELECT FROM operators WHERE name = :n", n=names[-1]) != []
        invited = world.sql("SELECT FROM operator_invitations WHERE operator = :n", n=names[-1]) != []
        assert (proposal.outcome == "confirmed") == exists == invited, f"{moment}"
        if not exists:
            confirm(names[-1])
    assert len(world.sql("SELECT FROM operators WHERE name LIKE 'kiran%'")) == len(names)
