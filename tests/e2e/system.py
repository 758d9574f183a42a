"""The running system from outside: apps over HTTP, the provider's own list, operators at a shell."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import psutil
import psycopg
import redis
import requests

from sandbox.keeper import family_of
from sandbox.processes import Part, wait_until
from sandbox.readiness import is_consuming
from sandbox.stack import ROOT, Stack
from tests.support.simulator import Simulator

FINAL = ("completed", "failed", "cancelled")
ANSWER_SECONDS = 15  # the API waits up to 3 s for a database that is down, twice
FINAL_SECONDS = 90  # a lease and three resends on a busy machine
_numbers = count(1)


class App:
    """An app with its API key."""

    def __init__(self, api: str, key: str) -> None:
        self.url = f"{api}/api/razorpay/"
        self.headers = {"Authorization": f"Bearer {key}"}

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=self.headers, timeout=ANSWER_SECONDS)

    def get(self, path: str, **query: Any) -> requests.Response:
        return requests.get(self.url + path, params=query, headers=self.headers, timeout=ANSWER_SECONDS)

    def get_data(self, path: str, **query: Any) -> Any:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def user(self, coins: int = 2000) -> str:
        """Create a user with these coins; returns the id."""
        user_id = f"user{next(_numbers)}"
        body = {"user_id": user_id, "coins": coins, "reference": "start", "reason": "Welcome"}
        answer = self.post("wallet/credit/", body)
        assert answer.status_code == 201, answer.text
        return user_id

    def request(self, user_id: str, upi_id: str = "success@sim", coins: int = 500) -> requests.Response:
        return self.post("withdraw/", {"user_id": user_id, "amount": coins, "upi_id": upi_id})

    def withdraw(self, user_id: str, upi_id: str = "success@sim", coins: int = 500) -> str:
        """Request a withdrawal that must be accepted; returns its id."""
        answer = self.request(user_id, upi_id, coins)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["withdrawal_id"])

    def withdraw_many(self, user_id: str, number: int, coins: int = 500) -> list[str]:
        """Request this many concurrently, each to another UPI id; returns the ids."""
        with ThreadPoolExecutor(8) as threads:
            futures = [
                threads.submit(self.withdraw, user_id, f"success-{n}@sim", coins) for n in range(number)
            ]
        return [future.result() for future in futures]

    def cancel(self, withdrawal_id: str) -> requests.Response:
        return self.post("withdraw/cancel/", {"withdrawal_id": withdrawal_id})

    def status(self, withdrawal_id: str) -> dict[str, Any]:
        return dict(self.get_data("withdraw/status/", withdrawal_id=withdrawal_id))

    def history(self, user_id: str) -> list[dict[str, Any]]:
        """All withdrawals of the user, at most 100."""
        return list(self.get_data("withdraw/history/", user_id=user_id, limit=100))

    def balance(self, user_id: str) -> int:
        return int(self.get_data("wallet/", user_id=user_id)["available_coins"])

    def refunds(self, user_id: str) -> int:
        lines = self.get_data("wallet/transactions/", user_id=user_id, limit=100)
        return sum(line["kind"] == "refund" for line in lines)

    def wait_for(self, withdrawal_id: str, *statuses: str, seconds: float = FINAL_SECONDS) -> str:
        """Wait until the withdrawal has one of these statuses (by default: until it is final)."""
        wait_until(
            lambda: self.status(withdrawal_id)["status"] in (statuses or FINAL),
            seconds,
            lambda: AssertionError(f"no {statuses or FINAL}: {self.status(withdrawal_id)}"),
        )
        return str(self.status(withdrawal_id)["status"])

    def wait_for_all(self, user_id: str, number: int) -> Counter[str]:
        """Wait until this many withdrawals of the user are final; returns their number by status."""
        wait_until(
            lambda: self._final(user_id) == number,
            FINAL_SECONDS,
            lambda: AssertionError(f"{self._final(user_id)} of {number} are final"),
        )
        return Counter(item["status"] for item in self.history(user_id))

    def _final(self, user_id: str) -> int:
        return sum(item["status"] in FINAL for item in self.history(user_id))


class System(App):
    """A stack with its provider and operators."""

    def __init__(self, stack: Stack) -> None:
        info = stack.info()
        super().__init__(info["api"], info["api_key"])
        self.stack = stack
        self.info = info
        self.provider = Simulator(info["simulator"])
        self._own = dict(stack.parts)

    @property
    def worker(self) -> Part:
        return self.stack.parts["worker"]

    def add(self, name: str, command: str, **settings: str) -> Part:
        """Start one more process of `payouts COMMAND`; the stack stops it with the others."""
        argv = [sys.executable, "-m", "cli", command]
        env = {**self.stack.env, **settings}
        part = Part(name, argv, env, self.stack.directory / f"{name}.log", cwd=ROOT)
        if command == "worker":
            part.ready = lambda: is_consuming(part, self.info["redis_url"])
        self.stack.parts[name] = part
        part.start()
        return part

    def restart_with(self, part: Part, **settings: str) -> None:
        """Restart the part with these settings besides the stack's; `renew` undoes them."""
        part.env = {**self.stack.env, **settings}
        part.restart()

    def renew(self) -> None:
        """Restore the state after the start, except for the database: the same parts, an empty broker, a reset
        provider.
        """
        for name in self.stack.parts.keys() - self._own.keys():
            self.stack.parts.pop(name).stop()
        for part in self._own.values():
            if part.env not in (None, self.stack.env):
                part.env = self.stack.env
                part.stop()
            part.start()
            part.wait_ready()
        with redis.Redis.from_url(self.info["redis_url"]) as broker:
            broker.flushall()
        self.provider.post("reset", {})

    @contextmanager
    def frozen(self, part: Part) -> Iterator[None]:
        """Suspend the part in this block: all requests made meanwhile are still pending at its end, however slow
        the machine is."""
        family = family_of(part.pid or 0)
        assert family, f"{part.name} does not run"
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(family):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def without_webhooks(self) -> Iterator[None]:
        """Turn off the provider's webhooks in this block; it never sends those events later."""
        self.provider.settings(webhooks_enabled=False)
        try:
            yield
        finally:
            self.provider.settings(webhooks_enabled=True)

    def keys(self) -> dict[str, str]:
        """Idempotency key -> withdrawal id, as the system stored them before it called."""
        with psycopg.connect(self.info["database_url"]) as connection:
            rows = connection.execute("SELECT id::text, withdrawal_id::text FROM payout_attempts").fetchall()
        return dict(rows)

    def payouts_of(self, withdrawal_id: str) -> list[dict[str, Any]]:
        """The payouts of the withdrawal in the provider's list."""
        keys = self.keys()
        return [p for p in self.provider.payouts() if keys.get(p["idempotency_key"]) == withdrawal_id]

    def sends_of(self, withdrawal_id: str) -> list[str]:
        """The key of every create that reached the provider for the withdrawal, in order."""
        keys = self.keys()
        sent = [call["idempotency_key"] for call in self.provider.calls()]
        return [key for key in sent if keys.get(key) == withdrawal_id]

    def lost_answers(self, withdrawal_id: str) -> int:
        """The number of its sends that timed out after RAZORPAYX_READ_SECONDS, by its events.

        A busy machine may cause a timeout that no test asked for. Then one more send for each is right.
        """
        query = (
            "SELECT count(*) FROM withdrawal_events WHERE withdrawal_id = %s AND actor = 'reply'"
            " AND reason IN ('unanswered', 'too_late') AND data->>'description' LIKE '%%Timeout:%%'"
        )
        with psycopg.connect(self.info["database_url"]) as connection:
            row = connection.execute(query, [withdrawal_id]).fetchone()
        assert row
        return int(row[0])

    def open_call(self) -> bool:
        """True while a create is at the provider without a response."""
        return any(call["outcome"] == "running" for call in self.provider.calls())

    def assert_paid_once(self, withdrawal_ids: Iterable[str]) -> None:
        """Assert one processed payout at the provider for each of these, and none under an unknown key."""
        keys = self.keys()
        payouts = self.provider.payouts()
        owners = Counter(keys.get(payout["idempotency_key"], "unknown") for payout in payouts)
        assert owners["unknown"] == 0, "a payout was sent under a key that was not stored first"
        ids = list(withdrawal_ids)
        assert {id_: owners[id_] for id_ in ids} == dict.fromkeys(ids, 1)
        statuses = [p["status"] for p in payouts if keys[p["idempotency_key"]] in set(ids)]
        assert set(statuses) == {"processed"}

    def check(self) -> str:
        """Assert that `payouts check` finds every promise kept; returns its output."""
        command = [sys.executable, "-m", "cli", "check"]
        done = subprocess.run(
            command, env=self.stack.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert self._one_live_payout_each()
        return done.stdout

    def _one_live_payout_each(self) -> bool:
        """Promise 2, checked at the provider and not in our own database."""
        keys = self.keys()
        live = Counter(keys.get(payout["idempotency_key"]) for payout in self.provider.live_payouts())
        assert set(live.values()) <= {1}, f"more than one live payout: {live.most_common(3)}"
        return True
