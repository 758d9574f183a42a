"""The demo: five withdrawals, each with another fate, told as they happen.

It does what an app does, over HTTP, and reads the events from the database to tell them.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import psycopg
import requests
from rich.console import Console
from rich.table import Table

from sandbox.processes import PartFailed
from sandbox.services import LOOPBACK, is_free
from sandbox.stack import ROOT, Stack

USERS = ("user123", "test_user", "test_user_123", "test")
START_COINS = 5000
STORY_SECONDS = 150  # the slowest fate takes about 15, on a machine that does nothing else
PORT = 8000  # where the contract's curl line looks

# Short waits, so that nobody has to wait for a story about patience.
SETTINGS = {
    "CANCEL_WINDOW_SECONDS": "3",
    "SWEEP_SECONDS": "1",
    "RESEND_SECONDS": "3,6,9",
    "POLL_SECONDS": "5",
    "RAZORPAYX_READ_SECONDS": "5",
    "LEASE_SECONDS": "20",
}


@dataclass
class Fate:
    """One withdrawal of the story: who asks, where it goes, how it must end."""

    title: str
    user_id: str
    upi_id: str
    coins: int
    ends: list[str]  # the statuses it goes through
    payouts: int  # that may exist at the provider
    cancel: bool = False
    withdrawal_id: str = ""
    seen: list[str] = field(default_factory=list)


def fates() -> list[Fate]:
    """The five, in the order in which they are asked for."""
    paid, back = ["pending", "processing", "completed"], ["pending", "processing", "failed"]
    return [
        Fate("paid", "user123", "user@okhdfcbank", 500, paid, 1),
        Fate("failed, refunded", "test_user", "fail.beneficiary_vpa_invalid@sim", 300, back, 1),
        Fate("lost reply, paid once", "test_user_123", "drop@sim", 1000, paid, 1),
        Fate(
            "cancelled in the window", "test", "mobile@airtel", 200, ["pending", "cancelled"], 0, cancel=True
        ),
        Fate("reversed, refunded", "user123", "reversed@sim", 400, [*paid, "failed"], 1),
    ]


def tell(*, once: bool, settings: dict[str, str]) -> None:
    """Start the stack, tell the story, and with `once` exit: 0 if all went as it says."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Starting PostgreSQL, Redis, a RazorpayX simulator, API, worker, notifier, beat, Flower …")
    begun = time.monotonic()
    try:
        with _stack(settings) as stack:
            console.print(f"Everything answers after {time.monotonic() - begun:.1f} s.\n")
            faults = Story(stack, console).tell()
            console.print(f"The story took {time.monotonic() - begun:.0f} s with the start.\n")
            if once:
                sys.exit(1 if faults else 0)
            _show_where(stack, console)
            console.print("\nCtrl-C ends it all.")
            stack.run_until_signal()
    except PartFailed as error:
        raise click.ClickException(str(error)) from None


def _stack(settings: dict[str, str]) -> Stack:
    given = {**SETTINGS, **settings}
    port = int(given.get("API_PORT", PORT if is_free(PORT) else 0))
    return Stack(given, api_port=port, api_auth="off")


class Story:
    """Tells it, and keeps count of what differed."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.info, self.console, self.stack = stack.info(), console, stack
        self.fates = fates()
        self.faults: list[str] = []

    def tell(self) -> list[str]:
        """The whole story; returns what differed from it."""
        for user_id in USERS:
            body = {"user_id": user_id, "coins": START_COINS, "reference": "demo", "reason": "Welcome"}
            self._post("wallet/credit/", body)
        self.console.print(f"{', '.join(USERS)} have {START_COINS} coins each (1 coin = ₹0.10).\n")
        for fate in self.fates:
            self._ask(fate)
        self._follow()
        self._compare()
        self._check()
        for fault in self.faults:
            self.console.print(f"[red]Differs:[/red] {fault}")
        return self.faults

    def _ask(self, fate: Fate) -> None:
        body = {"user_id": fate.user_id, "amount": fate.coins, "upi_id": fate.upi_id}
        fate.withdrawal_id = self._post("withdraw/", body)["data"]["withdrawal_id"]
        if fate.cancel:
            self._post("withdraw/cancel/", {"withdrawal_id": fate.withdrawal_id, "reason": "Changed my mind"})

    def _follow(self) -> None:
        """Print each event as it happens, until every fate is fulfilled or time is up."""
        begun = None
        for at, withdrawal_id, to, reason, actor in self._events():
            fate = next(fate for fate in self.fates if fate.withdrawal_id == withdrawal_id)
            begun = begun or at
            if not fate.seen or fate.seen[-1] != to:
                fate.seen.append(to)
            seconds = (at - begun).total_seconds()
            self.console.print(f"{seconds:6.2f} s  {fate.title:22} {to:11} {reason} [dim]({actor})[/dim]")
        self.console.print()

    def _events(self) -> Iterator[tuple[datetime, str, str, str, str]]:
        deadline, last = time.monotonic() + STORY_SECONDS, 0
        with psycopg.connect(self.info["database_url"], autocommit=True) as connection:
            while time.monotonic() < deadline and any(fate.seen != fate.ends for fate in self.fates):
                rows = connection.execute(
                    "SELECT id, created_at, withdrawal_id::text, to_status, reason, actor"
                    " FROM withdrawal_events WHERE id > %s ORDER BY id",
                    [last],
                ).fetchall()
                for row in rows:
                    last = row[0]
                    yield row[1:]  # type: ignore[misc]
                time.sleep(0.1)

    def _compare(self) -> None:
        """The table at the end: what was to happen, what did, and what the provider says."""
        table = Table("Withdrawal", "Rupees", "Ended", "Payouts", "UTR, or why not", "Coins now")
        for fate in self.fates:
            item = self._get("withdraw/status/", withdrawal_id=fate.withdrawal_id)["data"]
            wallet = self._get("wallet/", user_id=fate.user_id)["data"]
            payouts = self._payouts(fate)
            why = item["utr"] if item["status"] == "completed" else item["failure_reason"] or ""
            coins_now = str(wallet["available_coins"])
            rupees = f"₹{item['rupees_amount']:.2f}"
            table.add_row(fate.title, rupees, item["status"], str(payouts), why, coins_now)
            if fate.seen != fate.ends:
                self.faults.append(f"{fate.title}: went {fate.seen}, not {fate.ends}")
            if payouts != fate.payouts:
                self.faults.append(f"{fate.title}: {payouts} payouts at the provider, not {fate.payouts}")
        self.console.print(table)

    def _payouts(self, fate: Fate) -> int:
        """How many payouts the provider holds under any reference of this withdrawal."""
        with psycopg.connect(self.info["database_url"]) as connection:
            rows = connection.execute(
                "SELECT id::text FROM payout_attempts WHERE withdrawal_id = %s", [fate.withdrawal_id]
            ).fetchall()
        found = [self._simulator(reference_id=row[0])["items"] for row in rows]
        return sum(len(items) for items in found)

    def _check(self) -> None:
        self.console.print("\n[bold]payouts check[/bold]")
        command = [sys.executable, "-m", "shared.cli", "check"]
        done = subprocess.run(
            command, env=self.stack.env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.console.print(done.stdout + done.stderr)
        if done.returncode != 0:
            self.faults.append("payouts check found something")

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._told(requests.post(f"{self.info['api']}/api/razorpay/{path}", json=body, timeout=10))

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._told(requests.get(f"{self.info['api']}/api/razorpay/{path}", params=query, timeout=10))

    def _simulator(self, **query: str) -> dict[str, Any]:
        return self._told(requests.get(f"{self.info['simulator']}/_sim/payouts", params=query, timeout=10))

    @staticmethod
    def _told(answer: requests.Response) -> dict[str, Any]:
        if not answer.ok:
            raise click.ClickException(f"{answer.url} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()


def _show_where(stack: Stack, console: Console) -> None:
    info = stack.info()
    api = info["api"].replace(LOOPBACK, "localhost")
    console.print(f"API        {api}")
    console.print(f"Panel      {info['admin'].replace(LOOPBACK, 'localhost')}")
    console.print(
        f"Flower     {info['flower']}  (both: user {info['admin_user']}, password {info['admin_password']})"
    )
    for words in stack.relaxed():
        console.print(words)
    console.print(f"Simulator  {info['simulator']}/_sim/payouts")
    console.print(f"Database   {info['database_url']}")
    console.print(f"Logs       {stack.directory}")
    console.print("\nTry it:\n")
    console.print(
        f"curl -X POST {api}/api/razorpay/withdraw/ -H 'Content-Type: application/json' \\\n"
        """  -d '{"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}'"""
    )
