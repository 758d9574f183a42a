"""The RazorpayX simulator as the tests see it: a process, and its control endpoints over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from sandbox.processes import READY_SECONDS, wait_until

KEY_ID = "rzp_test_simulator"
KEY_SECRET = "simulator-secret-0123456789"
ACCOUNT = "4564560000000001"
WEBHOOK_SECRET = "hook-secret-now-0123456789"
OLD_SECRET = "hook-secret-old-0123456789"
FAST = 50.0  # a payout is processed in about 30 ms


class Simulator:
    """The simulator's control: the calls it received, the payouts it holds, and its behaviour."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()

    @classmethod
    @contextmanager
    def running(cls, directory: Path) -> Iterator["Simulator"]:
        """Run a simulator, without webhooks, until the block ends."""
        ready = directory / "ready.json"
        environment = {
            **os.environ,
            "SIM_KEY_ID": KEY_ID,
            "SIM_KEY_SECRET": KEY_SECRET,
            "SIM_ACCOUNT_NUMBER": ACCOUNT,
            "SIM_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "SIM_WEBHOOK_PREVIOUS_SECRET": OLD_SECRET,
            "SIM_SPEED": str(FAST),
        }
        command = [sys.executable, "-m", "sandbox.razorpayx", "--port", "0", "--ready-file", str(ready)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until(ready.exists, READY_SECONDS)
            yield cls(json.loads(ready.read_text())["url"])
        finally:
            process.terminate()
            process.wait(10)

    def reset(self) -> None:
        """Reset everything to its state at the start, including the speed."""
        self.post("reset", {})

    def scenario(self, name: str, **where: Any) -> None:
        """Choose a scenario: `next=N`, `vpa=…`, `reference_id=…` or `default=True`."""
        self.post("scenario", {"scenario": name, **where})

    def settings(self, **switches: Any) -> None:
        self.post("settings", switches)

    def payouts(self, reference_id: str | None = None) -> list[dict[str, Any]]:
        """Every payout at the provider."""
        query = {"reference_id": reference_id} if reference_id else {}
        return self.get("payouts", **query)["items"]

    def live_payouts(self) -> list[dict[str, Any]]:
        """The payouts that have not failed; a withdrawal may have one."""
        return [
            p for p in self.payouts() if p["status"] not in ("failed", "reversed", "rejected", "cancelled")
        ]

    def calls(self, method: str = "POST", path: str = "/v1/payouts") -> list[dict[str, Any]]:
        return [c for c in self.get("calls")["items"] if c["method"] == method and c["path"] == path]

    def post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(f"{self.url}/_sim/{what}", json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def get(self, what: str, **query: Any) -> dict[str, Any]:
        answer = self._http.get(f"{self.url}/_sim/{what}", params=query, timeout=10)
        assert answer.ok, answer.text
        return answer.json()
