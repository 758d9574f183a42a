"""Webhooks to apps end to end: the real notifier, an app's server, and one that hangs."""

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
from tests.support.receiver import Receiver, webhook_receiver

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
PAYOUTS = 12
ARRIVES_SECONDS = 60


class Apps:
    """Endpoints that operators add; removed at the end, because another test uses the system."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._urls = list[str]()

    def payouts(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "cli", *arguments]
        env = self._system.stack.env
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self, url: str) -> str:
        """Register the URL as an endpoint; returns its secret."""
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
    """The number of status changes so far."""
    query = "SELECT count(*) FROM withdrawal_events WHERE from_status IS DISTINCT FROM to_status"
    with psycopg.connect(system.info["database_url"]) as connection:
        row = connection.execute(query).fetchone()
        assert row
        return int(row[0])


def undelivered(system: System) -> int:
    """The number of deliveries that are not delivered yet."""
    with psycopg.connect(system.info["database_url"]) as connection:
        row = connection.execute("SELECT count(*) FROM deliveries WHERE state = 'waiting'").fetchone()
        assert row
        return int(row[0])


def pay_all(system: System) -> list[str]:
    """Pay PAYOUTS withdrawals of a new user; returns their ids."""
    user_id = system.user(100 * PAYOUTS)
    ids = system.withdraw_many(user_id, PAYOUTS, coins=100)
    assert system.wait_for_all(user_id, PAYOUTS) == {"completed": PAYOUTS}
    return ids


def seconds_to_pay(system: System) -> float:
    """The seconds until PAYOUTS withdrawals of a new user are paid."""
    started_at = time.monotonic()
    pay_all(system)
    return time.monotonic() - started_at


def wait_for_messages(app: Receiver, number: int) -> None:
    """Wait until this many different messages have arrived."""
    wait_until(
        lambda: len({message.id for message in app.messages}) >= number,
        ARRIVES_SECONDS,
        lambda: AssertionError(f"{len({message.id for message in app.messages})} of {number} arrived"),
    )


@pytest.mark.failure(28)
def test_a_hanging_app_server_delays_no_payout_and_gets_every_change_later(fresh: System, apps: Apps) -> None:
    """One server accepts connections and never answers, another works. Payouts are as fast as without them."""
    baseline = seconds_to_pay(fresh)
    before = changes(fresh)
    with webhook_receiver() as app, webhook_receiver() as hanging:
        hanging.hold.clear()
        hanging_secret, secret = apps.register(hanging.url), apps.register(app.url)
        assert seconds_to_pay(fresh) < 2 * baseline + 20  # payouts that wait for it would never end
        number = changes(fresh) - before
        assert number == 3 * PAYOUTS
        wait_for_messages(app, number)
        wait_until(lambda: f"{hanging.url}: FAILING since" in apps.payouts("status"), ARRIVES_SECONDS)
        changes_sent = by_change(app.verified(secret))
        last = {body["data"]["withdrawal_id"]: body for body in sorted(changes_sent.values(), key=sequence)}
        assert [body["type"] for body in last.values()] == ["withdrawal.completed"] * PAYOUTS
        assert all(body["data"]["utr"] for body in last.values())
        # Deliveries to the other server are recorded a moment later. An unanswered one does not count.
        wait_until(lambda: undelivered(fresh) == number, ARRIVES_SECONDS)
        hanging.hold.set()
        wait_until(lambda: undelivered(fresh) == 0, ARRIVES_SECONDS)
        assert by_change(hanging.verified(hanging_secret)) == changes_sent
        assert "FAILING" not in apps.payouts("status")


@pytest.mark.failure(28)
def test_a_notifier_killed_during_deliveries_still_sends_each_change(fresh: System, apps: Apps) -> None:
    """While it is dead, payouts continue and no webhook is sent; when it runs again, all are sent."""
    before = changes(fresh)
    with webhook_receiver() as app:
        secret = apps.register(app.url)
        app.hold.clear()
        fresh.withdraw(fresh.user())
        wait_until(lambda: app.under_way > 0, ARRIVES_SECONDS)
        fresh.stack.parts["notifier"].kill()
        app.hold.set()
        unnotified = set(pay_all(fresh))
        notified = {body["data"]["withdrawal_id"] for body in app.verified(secret)}
        assert not unnotified & notified
        fresh.stack.parts["notifier"].restart()
        # The leases of the killed notifier would expire by themselves: do not wait for that here.
        with psycopg.connect(fresh.info["database_url"]) as connection:
            connection.execute(
                "UPDATE deliveries SET due_at = now(), leased_until = NULL WHERE state = 'waiting'"
            )
        number = changes(fresh) - before
        wait_for_messages(app, number)
        changed = {(body["data"]["withdrawal_id"], body["data"]["sequence"]) for body in app.verified(secret)}
    assert len(changed) == number == len({message.id for message in app.messages})


def by_change(bodies: Iterable[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The body of each change, once: on a busy machine, a late response causes a second delivery."""
    return {(body["data"]["withdrawal_id"], sequence(body)): body for body in bodies}


def sequence(body: dict[str, Any]) -> int:
    return int(body["data"]["sequence"])
