"""The running system as people meet it: apps over HTTP, the provider's own list, operators at a shell."""

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
from sandbox.readiness import waits_for_messages
from sandbox.stack import ROOT, Stack
from tests.simulator import Simulator

FINAL = ("completed", "failed", "cancelled")
ANSWER_SECONDS = 15  # a database that is away is waited for up to 3 s, twice
FINAL_SECONDS = 90  # a lease, three resends, and a machine that does much else
_numbers = count(1)


class App:
    """A client with a key."""

    def __init__(self, api: str, key: str) -> None:
        self.url, self.headers = f"{api}/api/razorpay/", {"Authorization": f"Bearer {key}"}

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=self.headers, timeout=ANSWER_SECONDS)

    def get(self, path: str, **query: Any) -> requests.Response:
        return requests.get(self.url + path, params=query, headers=self.headers, timeout=ANSWER_SECONDS)

    def told(self, path: str, **query: Any) -> Any:
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def user(self, coins: int = 2000) -> str:
        """A new user with so many coins."""
        user_id = f"user{next(_numbers)}"
        body = {"user_id": user_id, "coins": coins, "reference": "start", "reason": "Welcome"}
        answer = self.post("wallet/credit/", body)
        assert answer.status_code == 201, answer.text
        return user_id

    def request(self, user_id: str, upi_id: str = "success@sim", coins: int = 500) -> requests.Response:
        return self.post("withdraw/", {"user_id": user_id, "amount": coins, "upi_id": upi_id})

    def withdraw(self, user_id: str, upi_id: str = "success@sim", coins: int = 500) -> str:
        """Ask for a withdrawal that must be taken; its id."""
        answer = self.request(user_id, upi_id, coins)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["withdrawal_id"])

    def withdraw_many(self, user_id: str, number: int, coins: int = 500) -> list[str]:
        """So many at once, each to another UPI id."""
        with ThreadPoolExecutor(8) as threads:
            made = [threads.submit(self.withdraw, user_id, f"success-{n}@sim", coins) for n in range(number)]
        return [one.result() for one in made]

    def cancel(self, withdrawal_id: str) -> requests.Response:
        return self.post("withdraw/cancel/", {"withdrawal_id": withdrawal_id})

    def status(self, withdrawal_id: str) -> dict[str, Any]:
        return dict(self.told("withdraw/status/", withdrawal_id=withdrawal_id))

    def history(self, user_id: str) -> list[dict[str, Any]]:
        """All of a user's withdrawals (of a hundred at most)."""
        return list(self.told("withdraw/history/", user_id=user_id, limit=100))

    def balance(self, user_id: str) -> int:
        return int(self.told("wallet/", user_id=user_id)["available_coins"])

    def refunds(self, user_id: str) -> int:
        lines = self.told("wallet/transactions/", user_id=user_id, limit=100)
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
        """Wait until the user's withdrawals, so many, are final; how many ended how."""
        wait_until(
            lambda: self._final(user_id) == number,
            FINAL_SECONDS,
            lambda: AssertionError(f"{self._final(user_id)} of {number} are final"),
        )
        return Counter(item["status"] for item in self.history(user_id))

    def _final(self, user_id: str) -> int:
        return sum(item["status"] in FINAL for item in self.history(user_id))


class System(App):
    """A stack and everybody around it."""

    def __init__(self, stack: Stack) -> None:
        info = stack.info()
        super().__init__(info["api"], info["api_key"])
        self.stack, self.info = stack, info
        self.provider = Simulator(info["simulator"])
        self._own = dict(stack.parts)

    @property
    def worker(self) -> Part:
        return self.stack.parts["worker"]

    def add(self, name: str, word: str, **settings: str) -> Part:
        """One more process of the kind that `payouts WORD` is; the stack stops it with the others."""
        argv = [sys.executable, "-m", "shared.cli", word]
        env = {**self.stack.env, **settings}
        part = Part(name, argv, env, self.stack.directory / f"{name}.log", cwd=ROOT)
        if word == "worker":
            part.ready = lambda: waits_for_messages(part, self.info["redis_url"])
        self.stack.parts[name] = part
        part.start()
        return part

    def restart_with(self, part: Part, **settings: str) -> None:
        """The part anew, with these settings besides the stack's; `renew` takes them back."""
        part.env = {**self.stack.env, **settings}
        part.restart()

    def renew(self) -> None:
        """As it was at the start, but for the books: the same parts, an empty broker, a provider that forgot."""
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
        """The part does nothing in here, and goes on where it was: so what is asked meanwhile is all still to do,
        however slow the machine is at asking."""
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
        """The provider's webhooks are switched off; what it would have said then is never said."""
        self.provider.settings(webhooks_enabled=False)
        try:
            yield
        finally:
            self.provider.settings(webhooks_enabled=True)

    def keys(self) -> dict[str, str]:
        """Idempotency key -> withdrawal, as the system wrote it down before it called."""
        with psycopg.connect(self.info["database_url"]) as connection:
            rows = connection.execute("SELECT id::text, withdrawal_id::text FROM payout_attempts").fetchall()
        return dict(rows)

    def payouts_of(self, withdrawal_id: str) -> list[dict[str, Any]]:
        """Every payout of the provider's list that belongs to the withdrawal."""
        keys = self.keys()
        return [p for p in self.provider.payouts() if keys.get(p["idempotency_key"]) == withdrawal_id]

    def sends_of(self, withdrawal_id: str) -> list[str]:
        """The key of every create that reached the provider for the withdrawal, in order."""
        keys = self.keys()
        sent = [call["idempotency_key"] for call in self.provider.calls()]
        return [key for key in sent if keys.get(key) == withdrawal_id]

    def lost_answers(self, withdrawal_id: str) -> int:
        """How many of its sends came to no answer within RAZORPAYX_READ_SECONDS, as the wire said.

        A busy machine may lose one that no test asked to be lost. Then it is right to send again, once for each.
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
        """Whether a create is at the provider now, and has no answer."""
        return any(call["outcome"] == "running" for call in self.provider.calls())

    def assert_paid_once(self, withdrawal_ids: Iterable[str]) -> None:
        """The provider's list has one payout, processed, for each of these, and none that nobody knows."""
        keys = self.keys()
        payouts = self.provider.payouts()
        owners = Counter(keys.get(payout["idempotency_key"], "nobody") for payout in payouts)
        assert owners["nobody"] == 0, "a payout was sent under a key that was not written down first"
        wanted = list(withdrawal_ids)
        assert {one: owners[one] for one in wanted} == dict.fromkeys(wanted, 1)
        theirs = [p["status"] for p in payouts if keys[p["idempotency_key"]] in set(wanted)]
        assert set(theirs) == {"processed"}

    def check(self) -> str:
        """`payouts check`: every promise holds. What it printed."""
        command = [sys.executable, "-m", "shared.cli", "check"]
        done = subprocess.run(
            command, env=self.stack.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert self._one_live_payout_each()
        return done.stdout

    def _one_live_payout_each(self) -> bool:
        """Promise 2, asked of the provider and not of our own books."""
        keys = self.keys()
        live = Counter(keys.get(payout["idempotency_key"]) for payout in self.provider.live_payouts())
        assert set(live.values()) <= {1}, f"more than one live payout: {live.most_common(3)}"
        return True
