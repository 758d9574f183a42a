"""A worker, the API and a review are killed (SIGKILL) before every line of the money path, one after the other.

Another process then continues. At every line: one payout, completed, no refund; or one refund; or one withdrawal
for one `Idempotency-Key`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared import withdrawals
from shared.access.idempotency import MAX_RUNNING_SECONDS
from shared.db.transactions import transaction
from shared.models import Withdrawal
from shared.providers.clients import client
from shared.queues import messages
from shared.withdrawals import review
from tests.chaos.killing import Killer, in_child, kill_at, moments
from tests.support.api import GOOD, WITHDRAW
from tests.support.world import KEY, World
from worker import tasks

pytestmark = pytest.mark.usefixtures("people")

MONEY_PATH = (
    "shared/withdrawals/",
    "shared/db/",
    "shared/net/sockets.py",
    "shared/providers/",
    "worker/tasks.py",
)
REFUND_PATH = (*MONEY_PATH, "shared/coins/wallet.py")
APPROVAL_PATH = ("shared/withdrawals/",)
REJECTION_PATH = (*APPROVAL_PATH, "shared/coins/wallet.py")
REQUEST_PATH = (
    "api/",
    "shared/withdrawals/",
    "shared/access/idempotency.py",
    "shared/db/",
    "shared/queues/",
)


def new_withdrawal(world: World, upi_id: str = "user@okhdfcbank") -> UUID:
    withdrawal_id = world.request(coins=100, upi_id=upi_id)
    make_due(world, withdrawal_id)
    return withdrawal_id


def make_due(world: World, withdrawal_id: UUID) -> None:
    world.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)


def bring_on(*withdrawal_ids: UUID) -> None:
    """Process one message, as a worker does that has just started."""
    client.cache_clear()  # a child must not use the connections of its parent
    tasks.submit_withdrawal.run(*map(str, withdrawal_ids))


def batched(keys: list[UUID], size: int) -> list[list[UUID]]:
    return [keys[first : first + size] for first in range(0, len(keys), size)]


def finish_all(world: World, withdrawal_ids: Iterable[UUID]) -> None:
    """Work on all of them until each is final."""
    left = list(withdrawal_ids)
    for _ in range(12):
        world.advance()
        for batch in batched(left, messages.MAX_BATCH):
            bring_on(*batch)
        left = [key for key in left if world.read(key).status == "processing" or world.read(key).due_at]
        if not left:
            return


@pytest.mark.failure(3)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_killed_before_every_line_pays_once(world: World, tmp_path: Path) -> None:
    world.credit(coins=1_000_000)
    world.paid()  # registers the payee, as after a user's first withdrawal
    first = new_withdrawal(world)
    killed = {}
    survived = 0
    for moment in moments(lambda: bring_on(first), tmp_path, *MONEY_PATH):
        keys, alive = kill_at(moment, lambda: new_withdrawal(world), bring_on)
        survived += alive
        killed |= dict.fromkeys(keys, moment)
    # A run that does not wait for the database or the rate limit leaves out a few lines.
    assert survived < max(3, len(killed) / 20)
    finish_all(world, killed)
    for withdrawal_id, moment in killed.items():
        assert world.read(withdrawal_id).status == "completed", f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 0
        payouts = [p for a in world.attempts(withdrawal_id) for p in world.simulator.payouts(str(a.id))]
        assert len(payouts) == 1, f"{moment}: {world.story(withdrawal_id)}"


@pytest.mark.failure(3)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_killed_before_every_line_of_a_batch_pays_each_once(world: World, tmp_path: Path) -> None:
    """A payout to a known payee, one to a new payee, and a refund."""
    world.credit(coins=10_000_000)
    world.paid()
    killed = {}
    survived = 0
    first = new_batch(world)
    lines = moments(lambda: bring_on(*first), tmp_path, *REFUND_PATH)
    for moment in lines:
        batches, alive = kill_at(moment, lambda: new_batch(world), lambda keys: bring_on(*keys))
        survived += alive
        killed |= {withdrawal_id: moment for batch in batches for withdrawal_id in batch}
    assert survived < max(3, len(lines) / 20)
    finish_all(world, killed)
    for number, (withdrawal_id, moment) in enumerate(killed.items()):
        expected = ("failed", 1) if number % 3 == 2 else ("completed", 0)
        end = (world.read(withdrawal_id).status, world.refunds(withdrawal_id))
        assert end == expected, f"{moment}: {world.story(withdrawal_id)}"
        payouts = [p for a in world.attempts(withdrawal_id) for p in world.simulator.payouts(str(a.id))]
        assert len(payouts) == 1, f"{moment}: {world.story(withdrawal_id)}"


def new_batch(world: World) -> list[UUID]:
    """Withdrawals whose next steps are a payout to a known payee, one to a new payee, and a refund."""
    new_payee = f"new{uuid4().hex}@okaxis"
    return [new_withdrawal(world), new_withdrawal(world, new_payee), failed_at_the_provider(world)]


@pytest.mark.failure(3)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_killed_before_every_line_of_a_refund_refunds_once(world: World, tmp_path: Path) -> None:
    """The second message of a worker, which finds the failure and refunds the coins."""
    world.credit(coins=1_000_000)
    first = failed_at_the_provider(world)
    lines = moments(lambda: bring_on(first), tmp_path, *REFUND_PATH)
    start = world.balance()
    killed = {}
    survived = 0
    for moment in lines:
        keys, alive = kill_at(moment, lambda: failed_at_the_provider(world), bring_on)
        survived += alive
        killed |= dict.fromkeys(keys, moment)
    assert survived < max(3, len(killed) / 20)
    finish_all(world, killed)
    for withdrawal_id, moment in killed.items():
        assert world.read(withdrawal_id).status == "failed", f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 1
    assert world.balance() == start


def failed_at_the_provider(world: World) -> UUID:
    """A withdrawal whose payout was accepted and then failed, which we do not know yet."""
    withdrawal_id = new_withdrawal(world, "fail.bank_account_closed@sim")
    world.bring_on(withdrawal_id)
    make_due(world, withdrawal_id)
    return withdrawal_id


@pytest.mark.parametrize(
    ("verb", "path"),
    [(withdrawals.approve_review, APPROVAL_PATH), (withdrawals.reject_review, REJECTION_PATH)],
)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_review_killed_before_every_line_is_decided_completely_or_not_at_all(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[..., Withdrawal],
    path: tuple[str, ...],
) -> None:
    """Each awaits approval as before, or is decided completely; an undecided one can still be decided."""
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit(coins=1_000_000)

    def decide(withdrawal_id: UUID) -> None:
        with transaction() as session:
            shown = review.facts_hash(session, withdrawals.find(session, withdrawal_id))
        verb(withdrawal_id, shown=shown, reason="seen", actor="operator:asha")

    first = world.request(coins=100)
    killed = {}
    for moment in moments(lambda: decide(first), tmp_path, *path, at_least=50):
        withdrawal_id = world.request(coins=100)
        in_child(lambda key=withdrawal_id: decide(key), Killer(*moment))
        killed[withdrawal_id] = moment
    decided = {row.withdrawal_id for row in world.sql("SELECT withdrawal_id FROM reviews")} - {first}
    assert 0 < len(decided) < len(killed), "killed before and after the commit"
    failed = 0
    for withdrawal_id, moment in killed.items():
        row = world.read(withdrawal_id)
        refunds = world.refunds(withdrawal_id)
        assert refunds == (row.status == "failed"), f"{moment}: {world.story(withdrawal_id)}"
        if withdrawal_id in decided:
            assert row.status == "failed" or row.awaits_approval is None, f"{moment}: {row.status}"
        else:
            assert (row.status, row.awaits_approval) == ("pending", "every"), f"{moment}: {row.status}"
            decide(withdrawal_id)
        failed += world.read(withdrawal_id).status == "failed"
    assert failed == (len(killed) if verb is withdrawals.reject_review else 0)
    assert world.balance() == 1_000_000 - 100 * (1 + len(killed) if not failed else 0)


@pytest.mark.failure(7)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_api_killed_before_every_line_creates_one_withdrawal_per_key(world: World, tmp_path: Path) -> None:
    """Killed before or after the commit: the app resends the request and gets one withdrawal."""
    world.credit(coins=1_000_000)
    client = create_app().test_client()
    keys = []
    for moment in moments(lambda: request(client, "first"), tmp_path, *REQUEST_PATH):
        keys.append(f"key-{len(keys)}")
        in_child(lambda: request(client, keys[-1]), Killer(*moment))
    created = len(world.sql("SELECT FROM withdrawals WHERE idempotency_key <> 'first'"))
    assert 0 < created < len(keys), "killed before and after the commit"
    # A request that was never answered counts as running for a while.
    later = "UPDATE idempotent_requests SET started_at = started_at - make_interval(secs => :s)"
    world.sql(later, s=MAX_RUNNING_SECONDS + 1)
    returned = {request(client, key).get_json()["data"]["withdrawal_id"] for key in keys}
    rows = {str(row.id) for row in world.sql("SELECT id FROM withdrawals WHERE idempotency_key <> 'first'")}
    assert returned == rows and len(rows) == len(keys)
    assert world.balance() == 1_000_000 - 500 * (len(keys) + 1)


def request(client: FlaskClient, key: str) -> TestResponse:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
    answer = client.post(WITHDRAW, json=GOOD, headers=headers)
    assert answer.status_code == 201, answer.get_json()
    return answer
