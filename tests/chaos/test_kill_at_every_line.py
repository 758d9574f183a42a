"""The worker is killed (SIGKILL) before every single line of the money path, one after the other; so are the API
and whoever decides in review.

A second one then finds what is left. Whatever the line is: one payout, completed, no refund; or one refund; or one
withdrawal for one `Idempotency-Key`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared import db, withdrawals
from shared.idempotency import RUNNING_SECONDS
from shared.models import Withdrawal
from shared.razorpayx.client import RazorpayX
from shared.settings import settings
from shared.withdrawals import reviewing
from tests.chaos.killing import Killer, in_child, moments
from tests.integration.app import GOOD, WITHDRAW
from tests.world import KEY, World
from worker.tasks import bring_on

pytestmark = pytest.mark.usefixtures("people")

MONEY_PATH = (
    "shared/withdrawals/",
    "shared/wallet.py",
    "shared/db.py",
    "shared/razorpayx/",
    "worker/tasks.py",
)
REVIEW_PATH = ("shared/withdrawals/", "shared/wallet.py")
REQUEST_PATH = ("api/", "shared/withdrawals/", "shared/idempotency.py", "shared/db.py", "shared/queues.py")


def new_withdrawal(world: World, upi_id: str = "user@okhdfcbank") -> UUID:
    withdrawal_id = world.request(coins=100, upi_id=upi_id)
    make_due(world, withdrawal_id)
    return withdrawal_id


def make_due(world: World, withdrawal_id: UUID) -> None:
    world.sql("UPDATE withdrawals SET due_at = now() WHERE id = :id", id=withdrawal_id)


def finish_all(world: World, withdrawal_ids: Iterable[UUID]) -> None:
    """Bring all of them on until each is final."""
    left = list(withdrawal_ids)
    for _ in range(12):
        world.advance()
        for withdrawal_id in left:
            world.bring_on(withdrawal_id)
        left = [one for one in left if world.read(one).status == "processing" or world.read(one).due_at]
        if not left:
            return


@pytest.mark.failure(3)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_pays_once(world: World, tmp_path: Path) -> None:
    world.credit(coins=1_000_000)
    world.paid()  # the payee is known, as for all but a user's first withdrawal
    first = new_withdrawal(world)
    killed, lived = {}, 0
    for moment in moments(lambda: bring_on(first, RazorpayX(settings())), tmp_path, *MONEY_PATH):
        withdrawal_id = new_withdrawal(world)
        # How long the database and the turn are waited for differs by a few lines from run to run.
        lived += in_child(lambda key=withdrawal_id: bring_on(key, RazorpayX(settings())), Killer(*moment))
        killed[withdrawal_id] = moment
    assert lived < len(killed) / 20
    finish_all(world, killed)
    for withdrawal_id, moment in killed.items():
        assert world.read(withdrawal_id).status == "completed", f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 0
        payouts = [p for a in world.attempts(withdrawal_id) for p in world.simulator.payouts(str(a.id))]
        assert len(payouts) == 1, f"{moment}: {world.story(withdrawal_id)}"


@pytest.mark.failure(3)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_of_a_refund_refunds_once(world: World, tmp_path: Path) -> None:
    """The second run of a worker, in which the failure is told and the coins go back."""
    world.credit(coins=1_000_000)
    first = sent_in_vain(world)
    lines = moments(lambda: bring_on(first, RazorpayX(settings())), tmp_path, *MONEY_PATH)
    start, killed, lived = world.balance(), {}, 0
    for moment in lines:
        withdrawal_id = sent_in_vain(world)
        lived += in_child(lambda key=withdrawal_id: bring_on(key, RazorpayX(settings())), Killer(*moment))
        killed[withdrawal_id] = moment
    assert lived < len(killed) / 20
    finish_all(world, killed)
    for withdrawal_id, moment in killed.items():
        assert world.read(withdrawal_id).status == "failed", f"{moment}: {world.story(withdrawal_id)}"
        assert world.refunds(withdrawal_id) == 1
    assert world.balance() == start


def sent_in_vain(world: World) -> UUID:
    """A withdrawal whose payout was accepted and then failed, which nobody has learnt yet."""
    withdrawal_id = new_withdrawal(world, "fail.bank_account_closed@sim")
    world.bring_on(withdrawal_id)
    make_due(world, withdrawal_id)
    return withdrawal_id


@pytest.mark.parametrize("verb", [withdrawals.approve_review, withdrawals.reject_review])
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_of_a_review_decides_it_or_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[..., Withdrawal]
) -> None:
    """Each awaits approval as before, or is decided with everything that belongs to it; and can be decided."""
    monkeypatch.setenv("REVIEW_ALL", "on")
    world.forget_settings()
    world.credit(coins=1_000_000)

    def decide(withdrawal_id: UUID) -> None:
        with db.transaction() as session:
            shown = reviewing.facts(session, withdrawals.find(session, withdrawal_id))
        verb(withdrawal_id, shown=shown, reason="seen", actor="operator:asha")

    first, killed = world.request(coins=100), {}
    for moment in moments(lambda: decide(first), tmp_path, *REVIEW_PATH, at_least=50):
        withdrawal_id = world.request(coins=100)
        in_child(lambda key=withdrawal_id: decide(key), Killer(*moment))
        killed[withdrawal_id] = moment
    decided = {row.withdrawal_id for row in world.sql("SELECT withdrawal_id FROM reviews")} - {first}
    assert 0 < len(decided) < len(killed), "killed before and after the commit"
    failed = 0
    for withdrawal_id, moment in killed.items():
        row, refunds = world.read(withdrawal_id), world.refunds(withdrawal_id)
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
def test_an_api_killed_before_every_line_makes_one_withdrawal_for_one_key(
    world: World, tmp_path: Path
) -> None:
    """Before the commit, and between the commit and the answer: the app sends the same again, and has one."""
    world.credit(coins=1_000_000)
    client = create_app().test_client()
    keys = []
    for moment in moments(lambda: ask(client, "first"), tmp_path, *REQUEST_PATH):
        keys.append(f"key-{len(keys)}")
        in_child(lambda: ask(client, keys[-1]), Killer(*moment))
    made = len(world.sql("SELECT FROM withdrawals WHERE idempotency_key <> 'first'"))
    assert 0 < made < len(keys), "killed before and after the commit"
    # What was begun and never answered counts as running for a while.
    later = "UPDATE idempotent_requests SET started_at = started_at - make_interval(secs => :s)"
    world.sql(later, s=RUNNING_SECONDS + 1)
    told = {ask(client, key).get_json()["data"]["withdrawal_id"] for key in keys}
    rows = {str(row.id) for row in world.sql("SELECT id FROM withdrawals WHERE idempotency_key <> 'first'")}
    assert told == rows and len(rows) == len(keys)
    assert world.balance() == 1_000_000 - 500 * (len(keys) + 1)


def ask(client: FlaskClient, key: str) -> TestResponse:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
    answer = client.post(WITHDRAW, json=GOOD, headers=headers)
    assert answer.status_code == 201, answer.get_json()
    return answer
