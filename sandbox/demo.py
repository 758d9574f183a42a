"""The demo: five withdrawals with different results, printed as they happen.

It calls the API over HTTP as an app does, and reads the events from the database.
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
TIMEOUT_SECONDS = 150  # the slowest case takes about 15 s on an idle machine
PORT = 8000  # used in the curl example of the API documentation

# Short waits, so that the demo is quick.
SETTINGS = {
    "CANCEL_WINDOW_SECONDS": "3",
    "SWEEP_SECONDS": "1",
    "RESEND_SECONDS": "3,6,9",
    "POLL_SECONDS": "5",
    "RAZORPAYX_READ_SECONDS": "5",
    "LEASE_SECONDS": "20",
}


@dataclass
class Case:
    """One withdrawal of the demo: its user, its payee, and the expected result."""

    title: str
    user_id: str
    upi_id: str
    coins: int
    expected: list[str]  # statuses in order
    payouts: int  # expected at the provider
    cancel: bool = False
    withdrawal_id: str = ""
    statuses: list[str] = field(default_factory=list)  # seen so far


def cases() -> list[Case]:
    """The five cases, in the order of their requests."""
    paid = ["pending", "processing", "completed"]
    failed = ["pending", "processing", "failed"]
    return [
        Case("paid", "user123", "user@okhdfcbank", 500, paid, 1),
        Case("failed, refunded", "test_user", "fail.beneficiary_vpa_invalid@sim", 300, failed, 1),
        Case("lost reply, paid once", "test_user_123", "drop@sim", 1000, paid, 1),
        Case(
            "cancelled in the window", "test", "mobile@airtel", 200, ["pending", "cancelled"], 0, cancel=True
        ),
        Case("reversed, refunded", "user123", "reversed@sim", 400, [*paid, "failed"], 1),
    ]


def run(*, once: bool, settings: dict[str, str]) -> None:
    """Start the stack and run the demo. With `once`, exit with 0 if every result is as expected, else 1."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Starting PostgreSQL, Redis, a RazorpayX simulator, API, worker, notifier, beat, Flower …")
    started_at = time.monotonic()
    try:
        with _stack(settings) as stack:
            console.print(f"Everything is ready after {time.monotonic() - started_at:.1f} s.\n")
            differences = Demo(stack, console).run()
            console.print(f"The demo took {time.monotonic() - started_at:.0f} s, including the start.\n")
            if once:
                sys.exit(1 if differences else 0)
            _show_urls(stack, console)
            console.print("\nPress Ctrl-C to stop everything.")
            stack.run_until_signal()
    except PartFailed as error:
        raise click.ClickException(str(error)) from None


def _stack(settings: dict[str, str]) -> Stack:
    all_settings = {**SETTINGS, **settings}
    port = int(all_settings.get("API_PORT", PORT if is_free(PORT) else 0))
    return Stack(all_settings, api_port=port, api_auth="off")


class Demo:
    """Runs the cases and collects differences from the expected results."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack = stack
        self.info = stack.info()
        self.console = console
        self.cases = cases()
        self.differences: list[str] = []

    def run(self) -> list[str]:
        """Run all cases and return the differences."""
        for user_id in USERS:
            body = {"user_id": user_id, "coins": START_COINS, "reference": "demo", "reason": "Welcome"}
            self._post("wallet/credit/", body)
        self.console.print(f"{', '.join(USERS)} have {START_COINS:,} coins each (1 coin = ₹0.10).\n")
        for case in self.cases:
            self._request(case)
        self._follow()
        self._compare()
        self._check()
        for difference in self.differences:
            self.console.print(f"[red]Differs:[/red] {difference}")
        return self.differences

    def _request(self, case: Case) -> None:
        body = {"user_id": case.user_id, "amount": case.coins, "upi_id": case.upi_id}
        case.withdrawal_id = self._post("withdraw/", body)["data"]["withdrawal_id"]
        if case.cancel:
            self._post("withdraw/cancel/", {"withdrawal_id": case.withdrawal_id, "reason": "Changed my mind"})

    def _follow(self) -> None:
        """Print each event as it happens, until every case is done or time is up."""
        first_at = None
        for at, withdrawal_id, to, reason, actor in self._events():
            case = next(case for case in self.cases if case.withdrawal_id == withdrawal_id)
            first_at = first_at or at
            if not case.statuses or case.statuses[-1] != to:
                case.statuses.append(to)
            seconds = (at - first_at).total_seconds()
            self.console.print(f"{seconds:6.2f} s  {case.title:22} {to:11} {reason} [dim]({actor})[/dim]")
        self.console.print()

    def _events(self) -> Iterator[tuple[datetime, str, str, str, str]]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        last_id = 0
        with psycopg.connect(self.info["database_url"], autocommit=True) as connection:
            while time.monotonic() < deadline and any(case.statuses != case.expected for case in self.cases):
                rows = connection.execute(
                    "SELECT id, created_at, withdrawal_id::text, to_status, reason, actor"
                    " FROM withdrawal_events WHERE id > %s ORDER BY id",
                    [last_id],
                ).fetchall()
                for row in rows:
                    last_id = row[0]
                    yield row[1:]  # type: ignore[misc]
                time.sleep(0.1)

    def _compare(self) -> None:
        """Print the results and compare them with the expected ones."""
        table = Table("Withdrawal", "Rupees", "Status", "Payouts", "UTR or failure reason", "Coins now")
        for case in self.cases:
            item = self._get("withdraw/status/", withdrawal_id=case.withdrawal_id)["data"]
            wallet = self._get("wallet/", user_id=case.user_id)["data"]
            payouts = self._payouts(case)
            detail = item["utr"] if item["status"] == "completed" else item["failure_reason"] or ""
            coins_now = f"{wallet['available_coins']:,}"
            rupees = f"₹{item['rupees_amount']:.2f}"
            table.add_row(case.title, rupees, item["status"], str(payouts), detail, coins_now)
            if case.statuses != case.expected:
                self.differences.append(f"{case.title}: statuses {case.statuses}, expected {case.expected}")
            if payouts != case.payouts:
                self.differences.append(f"{case.title}: {payouts} payouts, expected {case.payouts}")
        self.console.print(table)

    def _payouts(self, case: Case) -> int:
        """The number of payouts at the provider with any reference of this withdrawal."""
        with psycopg.connect(self.info["database_url"]) as connection:
            rows = connection.execute(
                "SELECT id::text FROM payout_attempts WHERE withdrawal_id = %s", [case.withdrawal_id]
            ).fetchall()
        lists = [self._simulator(reference_id=row[0])["items"] for row in rows]
        return sum(len(items) for items in lists)

    def _check(self) -> None:
        self.console.print("\n[bold]payouts check[/bold]")
        command = [sys.executable, "-m", "cli", "check"]
        done = subprocess.run(
            command, env=self.stack.env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.console.print(done.stdout + done.stderr)
        if done.returncode != 0:
            self.differences.append("payouts check failed")

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._parsed(requests.post(f"{self.info['api']}/api/razorpay/{path}", json=body, timeout=10))

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._parsed(requests.get(f"{self.info['api']}/api/razorpay/{path}", params=query, timeout=10))

    def _simulator(self, **query: str) -> dict[str, Any]:
        return self._parsed(requests.get(f"{self.info['simulator']}/_sim/payouts", params=query, timeout=10))

    @staticmethod
    def _parsed(answer: requests.Response) -> dict[str, Any]:
        if not answer.ok:
            raise click.ClickException(f"{answer.url} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()


def _show_urls(stack: Stack, console: Console) -> None:
    info = stack.info()
    api = info["api"].replace(LOOPBACK, "localhost")
    console.print(f"API        {api}")
    console.print(f"Panel      {info['admin'].replace(LOOPBACK, 'localhost')}")
    console.print(
        f"Flower     {info['flower']}  (both: user {info['admin_user']}, password {info['admin_password']})"
    )
    for warning in stack.relaxed_rules():
        console.print(warning)
    console.print(f"Simulator  {info['simulator']}/_sim/payouts")
    console.print(f"Database   {info['database_url']}")
    console.print(f"Logs       {stack.directory}")
    console.print("\nTry it:\n")
    console.print(
        f"curl -X POST {api}/api/razorpay/withdraw/ -H 'Content-Type: application/json' \\\n"
        """  -d '{"user_id": "user123", "amount": 500, "upi_id": "user@okhdfcbank"}'"""
    )
