"""A real simulator process per test module, and a real receiver for its webhooks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from sandbox.processes import READY_SECONDS
from tests.support.paths import ROOT

KEY_ID = "rzp_test_sim"
KEY_SECRET = "a-test-secret"
ACCOUNT = "4564560000000001"
SECRET = "hook-secret-now"
OLD_SECRET = "hook-secret-before"
SPEED = 20


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Poll until the condition returns a true value, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"no {what} within {seconds} s")


@dataclass
class Received:
    """One webhook as it arrived."""

    at: float
    event_id: str
    signature: str
    body: bytes
    event: str
    payout_id: str | None
    answered: int


@dataclass
class Receiver:
    """Answers 200 by default and stores every webhook."""

    url: str = ""
    items: list[Received] = field(default_factory=list)
    answer: Callable[[Received], int] = lambda _: 200
    delay_seconds: float = 0.0

    def of(self, payout_id: str, event: str | None = None) -> list[Received]:
        return [
            item for item in list(self.items) if item.payout_id == payout_id and event in (None, item.event)
        ]

    def clear(self) -> None:
        self.items.clear()
        self.answer = lambda _: 200
        self.delay_seconds = 0.0

    def take(self, headers: Any, body: bytes) -> int:
        data = json.loads(body)
        (kind,) = data["contains"]
        entity = data["payload"][kind]["entity"]
        source = entity["source"] if kind == "transaction" else entity
        item = Received(
            time.monotonic(),
            headers["x-razorpay-event-id"],
            headers["X-Razorpay-Signature"],
            body,
            data["event"],
            source.get("payout_id") or source["id"],
            0,
        )
        item.answered = self.answer(item)
        self.items.append(item)
        time.sleep(self.delay_seconds)
        return item.answered


@pytest.fixture(scope="module")
def _receiver_process() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.take(self.headers, body)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if 300 <= status < 400:
                    self.send_header("Location", self.path)
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """The simulator may close the connection: print nothing."""

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield receiver
    server.shutdown()
    server.server_close()


def environment(**extra: str) -> dict[str, str]:
    """The current environment without SIM_ variables, plus these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIM_")}
    return {
        **clean,
        "SIM_KEY_ID": KEY_ID,
        "SIM_KEY_SECRET": KEY_SECRET,
        "SIM_ACCOUNT_NUMBER": ACCOUNT,
        **extra,
    }


def start(directory: Path, **extra: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a simulator and wait for its ready file."""
    ready = directory / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.razorpayx", "--port", "0", "--ready-file", str(ready)],
        cwd=ROOT,
        env=environment(**extra),
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: ready.exists() or process.poll() is not None, "the ready file", READY_SECONDS)
    assert process.poll() is None, "the simulator did not start"
    simulator = json.loads(ready.read_text())
    assert simulator["pid"] == process.pid
    return process, simulator["url"]


def refused(answer: requests.Response, field: str | None = None, status: int = 400) -> dict[str, Any]:
    """Assert a complete error envelope as documented, and return the error."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "description", "source", "step", "reason", "metadata", "field"}
    assert error["code"] == "BAD_REQUEST_ERROR"
    assert field is None or error["field"] == field, error
    return error


class Client:
    """A plain HTTP client of the simulator, without the application's code."""

    def __init__(self, url: str, pid: int | None = None) -> None:
        self.url = url
        self._pid = pid
        self.http = requests.Session()
        self.http.auth = (KEY_ID, KEY_SECRET)

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.http.get(self.url + path, params=query, timeout=10)

    def post(self, path: str, body: Any = None, **kwargs: Any) -> requests.Response:
        return self.http.post(self.url + path, json={} if body is None else body, timeout=10, **kwargs)

    def patch(self, path: str, body: Any) -> requests.Response:
        return self.http.patch(self.url + path, json=body, timeout=10)

    def control(self, path: str, **body: Any) -> Any:
        answer = self.post(f"/_sim/{path}", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def look(self, path: str, **query: Any) -> Any:
        answer = self.get(f"/_sim/{path}", **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cpu_seconds(self) -> float:
        """The simulator's CPU time so far, which unlike elapsed time does not depend on other load."""
        assert self._pid is not None
        times = psutil.Process(self._pid).cpu_times()
        return times.user + times.system

    def contact(self, **fields: Any) -> str:
        return self.post("/v1/contacts", {"name": "Asha Rao", "type": "customer", **fields}).json()["id"]

    def fund_account(self, vpa: str, contact_id: str | None = None) -> str:
        body = {"contact_id": contact_id or self.contact(), "account_type": "vpa", "vpa": {"address": vpa}}
        answer = self.post("/v1/fund_accounts", body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["id"]

    def order(self, vpa: str = "asha.rao@okbank", **fields: Any) -> dict[str, Any]:
        """A payout's body; `None` removes a field."""
        body = {
            "account_number": ACCOUNT,
            "fund_account_id": None,
            "amount": 25000,
            "currency": "INR",
            "mode": "UPI",
            "purpose": "payout",
            "reference_id": uuid.uuid4().hex,
            **fields,
        }
        if "fund_account_id" not in fields and "fund_account" not in fields:
            body["fund_account_id"] = self.fund_account(vpa)
        return {name: value for name, value in body.items() if value is not None}

    def send(self, body: Any, key: str | None = None, timeout: float = 10) -> requests.Response:
        """POST /v1/payouts, the same bytes for the same body."""
        headers = {"Content-Type": "application/json", "X-Payout-Idempotency": key or str(uuid.uuid4())}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(f"{self.url}/v1/payouts", data=raw, headers=headers, timeout=timeout)

    def pay(self, vpa: str = "asha.rao@okbank", key: str | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.send(self.order(vpa, **fields), key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def payout(self, payout_id: str) -> dict[str, Any]:
        return self.get(f"/v1/payouts/{payout_id}").json()

    def reaches(self, payout_id: str, status: str) -> dict[str, Any]:
        return wait_until(lambda: (p := self.payout(payout_id))["status"] == status and p, f"status {status}")

    def made_by(self, key: str) -> list[dict[str, Any]]:
        return self.look("payouts", idempotency_key=key)["items"]

    def balance(self) -> int:
        return self.look("health")["balance_paise"]


@pytest.fixture(scope="module")
def _sim_process(
    tmp_path_factory: pytest.TempPathFactory, _receiver_process: Receiver
) -> Iterator[tuple[str, int]]:
    process, url = start(
        tmp_path_factory.mktemp("sim"),
        SIM_SPEED=str(SPEED),
        SIM_WEBHOOK_URL=_receiver_process.url,
        SIM_WEBHOOK_SECRET=SECRET,
        SIM_WEBHOOK_PREVIOUS_SECRET=OLD_SECRET,
    )
    yield url, process.pid
    process.terminate()
    assert process.wait(20) == 0


@pytest.fixture
def receiver(_receiver_process: Receiver) -> Receiver:
    return _receiver_process


@pytest.fixture
def sim(_sim_process: tuple[str, int], receiver: Receiver) -> Client:
    client = Client(*_sim_process)
    client.control("reset")
    receiver.clear()
    return client
