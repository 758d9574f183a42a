"""Webhooks to the app, whole: the real notifier, an app's own server, and one that is dead."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest

from sandbox.processes import wait_until
from sandbox.stack import ROOT
from tests.e2e.system import System
from tests.receiver import Receiver, receiving

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
PAYOUTS = 12
ARRIVES_SECONDS = 60


class Apps:
    """Endpoints as an operator adds them; removed at the end, for the system goes on to another test."""

    def __init__(self, system: System) -> None:
        self._system, self._urls = system, list[str]()

    def payouts(self, *words: str) -> str:
        command = [sys.executable, "-m", "shared.cli", *words]
        env = self._system.stack.env
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listen(self, url: str) -> str:
        """From now on it is told; its secret."""
        self._urls.append(url)
        return self.payouts("endpoints", "add", url, "--allow-private").strip()

    def remove_all(self) -> None:
        for url in self._urls:
            self.payouts("endpoints", "remove", url)


@pytest.fixture
def apps(fresh: System) -> Iterator[Apps]:
    apps = Apps(fresh)
    yield apps
    apps.remove_all()


def changes(system: System) -> int:
    """How many changes of status there were."""
    query = "SELECT count(*) FROM withdrawal_events WHERE from_status IS DISTINCT FROM to_status"
    with psycopg.connect(system.info["database_url"]) as connection:
        row = connection.execute(query).fetchone()
        assert row
        return int(row[0])


def waiting(system: System) -> int:
    """How many deliveries are still on their way."""
    with psycopg.connect(system.info["database_url"]) as connection:
        row = connection.execute("SELECT count(*) FROM deliveries WHERE state = 'waiting'").fetchone()
        assert row
        return int(row[0])


def paid(system: System) -> list[str]:
    """So many withdrawals of a new user, when they are paid."""
    user_id = system.user(100 * PAYOUTS)
    ids = system.withdraw_many(user_id, PAYOUTS, coins=100)
    assert system.wait_for_all(user_id, PAYOUTS) == {"completed": PAYOUTS}
    return ids


def paid_in(system: System) -> float:
    """Seconds until so many withdrawals of a new user are paid."""
    begun = time.monotonic()
    paid(system)
    return time.monotonic() - begun


def wait_for_messages(app: Receiver, number: int) -> None:
    """Until so many different ones have come."""
    wait_until(
        lambda: len({message.id for message in app.messages}) >= number,
        ARRIVES_SECONDS,
        lambda: AssertionError(f"{len({message.id for message in app.messages})} of {number} came"),
    )


@pytest.mark.failure(28)
def test_a_dead_app_server_holds_no_payout_and_is_told_all_when_it_is_back(fresh: System, apps: Apps) -> None:
    """One server takes every connection and never answers, another works. Payouts go on as without either."""
    alone = paid_in(fresh)
    before = changes(fresh)
    with receiving() as app, receiving() as dead:
        dead.hold.clear()
        dead_secret, secret = apps.listen(dead.url), apps.listen(app.url)
        assert paid_in(fresh) < 2 * alone + 20  # waiting for the dead one, it would be for ever
        number = changes(fresh) - before
        assert number == 3 * PAYOUTS
        wait_for_messages(app, number)
        wait_until(lambda: f"{dead.url}: FAILING since" in apps.payouts("status"), ARRIVES_SECONDS)
        told = by_change(app.told(secret))
        last = {body["data"]["withdrawal_id"]: body for body in sorted(told.values(), key=sequence)}
        assert [body["type"] for body in last.values()] == ["withdrawal.completed"] * PAYOUTS
        assert all(body["data"]["utr"] for body in last.values())
        # What arrived at the other is written down a moment later. Nothing that was not answered counts as told.
        wait_until(lambda: waiting(fresh) == number, ARRIVES_SECONDS)
        dead.hold.set()
        wait_until(lambda: waiting(fresh) == 0, ARRIVES_SECONDS)
        assert by_change(dead.told(dead_secret)) == told
        assert "FAILING" not in apps.payouts("status")


@pytest.mark.failure(28)
def test_a_notifier_killed_with_deliveries_under_way_tells_each_change(fresh: System, apps: Apps) -> None:
    """While it is dead all is paid and nobody else tells apps; with it again, all is told."""
    before = changes(fresh)
    with receiving() as app:
        secret = apps.listen(app.url)
        app.hold.clear()
        fresh.withdraw(fresh.user())
        wait_until(lambda: app.under_way > 0, ARRIVES_SECONDS)
        fresh.stack.parts["notifier"].kill()
        app.hold.set()
        mute = set(paid(fresh))
        told = {body["data"]["withdrawal_id"] for body in app.told(secret)}
        assert not mute & told
        fresh.stack.parts["notifier"].restart()
        # What the dead one held comes again when its lease is over; no need to wait for that here.
        with psycopg.connect(fresh.info["database_url"]) as connection:
            connection.execute(
                "UPDATE deliveries SET due_at = now(), leased_until = NULL WHERE state = 'waiting'"
            )
        number = changes(fresh) - before
        wait_for_messages(app, number)
        changed = {(body["data"]["withdrawal_id"], body["data"]["sequence"]) for body in app.told(secret)}
    assert len(changed) == number == len({message.id for message in app.messages})


def by_change(bodies: Iterable[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """What was told of each change: once, though an answer that came too late on a busy machine is asked for again."""
    return {(body["data"]["withdrawal_id"], sequence(body)): body for body in bodies}


def sequence(body: dict[str, Any]) -> int:
    return int(body["data"]["sequence"])
