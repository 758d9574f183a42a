"""A day of payouts at the provider and in our system, and the result of a run over it."""

import csv
import io
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import requests
from click.testing import Result

from shared.clock import INDIA
from shared.db.transactions import transaction
from shared.people import exception_records
from shared.providers.clients import client
from shared.reconciliation import days
from tests.support import simulator
from tests.support.shell import invoke
from tests.support.world import World


class Provider:
    """The provider, with payouts that are not ours and with faults in its data."""

    def __init__(self, world: World) -> None:
        self.simulator = world.simulator
        self.http = requests.Session()
        self.http.auth = (simulator.KEY_ID, simulator.KEY_SECRET)

    def listed(self, name: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        while True:
            query = {"account_number": simulator.ACCOUNT, "count": 100, "skip": len(items)}
            page = self.http.get(f"{self.simulator.url}/v1/{name}", params=query, timeout=10).json()["items"]
            if not page:
                return items
            items += page

    def pay(self, amount: int, reference_id: str) -> str:
        """A payout that bypasses our system."""
        body = {
            "account_number": simulator.ACCOUNT,
            "fund_account_id": self._payee(),
            "amount": amount,
            "currency": "INR",
            "mode": "UPI",
            "purpose": "payout",
            "reference_id": reference_id,
        }
        headers = {"X-Payout-Idempotency": str(uuid.uuid4())}
        answer = self.http.post(f"{self.simulator.url}/v1/payouts", json=body, headers=headers, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["id"]

    def _payee(self) -> str:
        oldest_first = reversed(self.listed("payouts"))
        return next(p["fund_account_id"] for p in oldest_first if p["status"] == "processed")

    def alter(self, payout_id: str, **values: Any) -> None:
        self.simulator.post(f"payouts/{payout_id}/alter", values)

    def set_status(self, payout_id: str, status: str) -> None:
        self.simulator.post(f"payouts/{payout_id}/status", {"status": status})

    def line(self, payout_id: str, side: str = "debit") -> dict[str, Any]:
        return next(
            line
            for line in self.listed("transactions")
            if line[side] and payout_id in (line["source"]["id"], line["source"].get("payout_id"))
        )

    def alter_line(self, line: dict[str, Any], **values: Any) -> None:
        self.simulator.post(f"transactions/{line['id']}", values)

    def add_line(self, **values: Any) -> str:
        return self.simulator.post("transactions", values)["id"]


@dataclass
class Day:
    """A day with many kinds of payouts, and the discrepancies planted in it."""

    world: World
    provider: Provider
    paid: list[UUID] = field(default_factory=list)
    failed: list[UUID] = field(default_factory=list)
    reversed: list[UUID] = field(default_factory=list)
    planted: list[tuple[str, str]] = field(default_factory=list)

    def attempt(self, withdrawal_id: UUID) -> Any:
        return self.world.attempts(withdrawal_id)[-1]

    def payout(self, withdrawal_id: UUID) -> str:
        return str(self.attempt(withdrawal_id).payout_id)

    def period(self) -> tuple[datetime, datetime]:
        """From yesterday until tomorrow, by the simulator's clock, which is ahead of ours."""
        now = datetime.fromtimestamp(int(self.world.simulator.get("health")["now"]), INDIA)
        return now - timedelta(days=1), now + timedelta(days=1)

    def run(self) -> Any:
        return days.run(client(), *self.period())

    def open(self) -> Counter[tuple[str, str]]:
        with transaction() as session:
            return Counter((record.kind, record.subject) for record in exception_records.listing(session))

    def rows(self) -> list[Any]:
        return self.world.sql("SELECT * FROM exception_records ORDER BY id")


def make_busy_day(day: Day, *, paid: int = 38) -> None:
    """Many kinds of payouts, made through our own functions; then the simulator gets time to finish them."""
    world = day.world
    day.paid = [world.paid(coins=100 + 10 * number) for number in range(paid)]
    day.paid += [world.paid(upi_id=f"{name}@sim") for name in ("drop", "504.json", "500.after", "garbage")]
    closed = [f"fail.bank_account_closed-{number}@sim" for number in range(6)]
    day.failed = [world.paid(upi_id=upi_id) for upi_id in closed]
    day.reversed = [world.paid(upi_id=f"reversed-{number}@sim") for number in range(3)]
    for upi_id in (
        "rejected@sim",
        "cancelled@sim",
        "failed.reversed@sim",
        "queued.failed@sim",
        "pending@sim",
    ):
        world.paid(upi_id=upi_id)
    for upi_id in ("refuse.invalid_vpa@sim", "429@sim", "queued@sim", "slow@sim"):
        world.paid(upi_id=upi_id)
    world.credit(reference="open")
    for upi_id in ("never@sim", "never-2@sim", "fail.beneficiary_psp_offline@sim"):
        assert world.finish(world.request(coins=200, upi_id=upi_id), steps=1) == "processing"
    world.simulator.post("advance", {"seconds": 3600})


def make_small_day(day: Day) -> None:
    """A small day: two paid, one refused by the bank, one in progress."""
    world = day.world
    day.paid = [world.paid(), world.paid(coins=300)]
    day.failed = [world.paid(upi_id="fail.bank_account_closed@sim")]
    world.credit(reference="open")
    world.finish(world.request(coins=200, upi_id="never@sim"), steps=1)
    world.simulator.post("advance", {"seconds": 600})


def sent(world: World, upi_id: str = "user@okhdfcbank") -> UUID:
    """A withdrawal that the provider accepted, with no report since."""
    world.credit(reference=str(uuid.uuid4()))
    withdrawal_id = world.request(upi_id=upi_id)
    world.step(withdrawal_id)
    world.simulator.post("advance", {"seconds": 600})
    return withdrawal_id


def reconcile(day: Day, output: Path, *arguments: str) -> Result:
    begins, ends = (moment.strftime("%Y-%m-%dT%H:%M:%S") for moment in day.period())
    return invoke("reconcile", "--from", begins, "--to", ends, "--output", output, *arguments)


def csv_rows(output: Path) -> list[dict[str, str]]:
    (path,) = output.glob("*.csv")
    return list(csv.DictReader(io.StringIO(path.read_text())))


def summary(output: Path) -> str:
    (path,) = output.glob("*.txt")
    return path.read_text()


def kinds(day: Day) -> list[str]:
    return sorted(kind for kind, _ in day.open().elements())


def balances(world: World) -> dict[str, int]:
    rows = world.sql("SELECT user_id, balance_coins FROM wallets")
    return {row.user_id: row.balance_coins for row in rows}
