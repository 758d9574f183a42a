"""`payouts sandbox`: its ready file is right, and no process is left when it ends."""

import hashlib
import hmac
import json
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
import requests

from sandbox.processes import wait_until
from tests.e2e.command import Command, is_running, running
from tests.e2e.system import App
from tests.support import simulator as simulator_settings
from tests.support.simulator import Simulator

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
START_SECONDS = 120
# DESIGN §7
FIELDS = {"api", "admin", "flower", "simulator", "database_url", "redis_url", "api_key", "webhook_secret",
          "admin_user", "admin_password", "pids"}  # fmt: skip
PARTS = {"postgres", "redis", "simulator", "api", "worker", "worker2", "notifier", "beat", "flower"}
WINDOW = "1.5"


class Sandbox:
    """A running sandbox and its ready file."""

    def __init__(self, command: Command, ready_file: Path) -> None:
        self.command = command
        self.ready_file = ready_file
        command.wait_for(ready_file, START_SECONDS)
        self.ready: dict[str, Any] = json.loads(ready_file.read_text())
        self.parts = {name: psutil.Process(pid) for name, pid in self.ready["pids"].items()}
        self.app = App(self.ready["api"], self.ready["api_key"])

    def end(self) -> None:
        """Assert that SIGTERM ends it with exit code 0 and ends all recorded processes."""
        assert self.command.end(signal.SIGTERM) == 0, self.command.text()
        assert [name for name, part in self.parts.items() if is_running(part)] == []


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    directory = tmp_path_factory.mktemp("sandbox")
    path = directory / "ready.json"
    size = ("--workers", "2", "--api-workers", "2")
    settings = ("--set", f"CANCEL_WINDOW_SECONDS={WINDOW}", "--set", "SIM_SPEED=20")
    with running(
        "sandbox", "--ready-file", str(path), *size, *settings, output=directory / "said"
    ) as command:
        running_sandbox = Sandbox(command, path)
        yield running_sandbox
        running_sandbox.end()


def test_the_ready_file_has_every_field_and_is_for_its_owner_only(sandbox: Sandbox) -> None:
    ready = sandbox.ready
    assert set(ready) == FIELDS
    assert set(ready["pids"]) == PARTS
    assert all(map(is_running, sandbox.parts.values()))
    assert all(isinstance(ready[name], str) and ready[name] for name in FIELDS - {"pids"})
    assert ready["admin"] == ready["api"] + "/admin/"
    assert stat.S_IMODE(sandbox.ready_file.stat().st_mode) == 0o600


def test_every_address_of_the_ready_file_accepts_its_credentials(sandbox: Sandbox) -> None:
    ready = sandbox.ready
    assert requests.get(ready["api"] + "/readyz", timeout=10).json()["status"] == "ready"
    password = (ready["admin_user"], ready["admin_password"])
    assert requests.get(ready["flower"], auth=password, timeout=10).status_code == 200
    assert requests.get(ready["flower"], timeout=10).status_code == 401
    assert requests.get(ready["simulator"] + "/_sim/health", timeout=10).json()["status"] == "ok"
    with psycopg.connect(ready["database_url"]) as connection:
        assert connection.execute("SELECT count(*) FROM withdrawals").fetchone() is not None
    with redis.Redis.from_url(ready["redis_url"]) as broker:
        assert broker.ping()


def test_the_webhook_secret_of_the_ready_file_signs_valid_webhooks(sandbox: Sandbox) -> None:
    body = b'{"event": "payout.downtime.started", "payload": {}}'
    url = sandbox.app.url + "webhook/"
    right = hmac.new(sandbox.ready["webhook_secret"].encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-razorpay-event-id": "by-hand", "Content-Type": "application/json"}
    signed = requests.post(url, data=body, headers=headers | {"X-Razorpay-Signature": right}, timeout=10)
    forged = requests.post(url, data=body, headers=headers | {"X-Razorpay-Signature": "0" * 64}, timeout=10)
    assert signed.status_code == 200
    assert forged.status_code in (400, 401, 403)


def test_every_call_of_the_contract_works_with_the_key(sandbox: Sandbox) -> None:
    app = sandbox.app
    user_id = app.user(2000)
    paid, cancelled_id = app.withdraw(user_id, "user@okhdfcbank"), app.withdraw(user_id, "mobile@airtel", 300)
    cancelled = app.cancel(cancelled_id)
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["data"]["refunded_coins"] == 300
    assert app.wait_for(paid) == "completed"
    assert [(item["id"], item["status"]) for item in app.history(user_id)] == [
        (cancelled_id, "cancelled"),
        (paid, "completed"),
    ]
    assert app.balance(user_id) == 1500
    payouts = Simulator(sandbox.ready["simulator"]).payouts()
    assert [payout["amount"] for payout in payouts if payout["vpa"] == "user@okhdfcbank"] == [5000]


def test_the_sandbox_refuses_requests_without_its_key(sandbox: Sandbox) -> None:
    user_id = sandbox.app.user()
    for app in (App(sandbox.ready["api"], "x" * 48), App(sandbox.ready["api"], "")):
        assert app.request(user_id).status_code == 401
        assert app.get("wallet/", user_id=user_id).status_code == 401
    assert sandbox.app.balance(user_id) == 2000


def test_the_sandbox_starts_the_requested_number_of_processes(sandbox: Sandbox) -> None:
    serving = [p for p in psutil.Process(sandbox.ready["pids"]["api"]).children() if _is_api_worker(p)]
    assert len(serving) == 2
    workers = [psutil.Process(sandbox.ready["pids"][name]).cmdline() for name in ("worker", "worker2")]
    assert all("worker" in command for command in workers)


def _is_api_worker(process: psutil.Process) -> bool:
    return "resource_tracker" not in " ".join(process.cmdline())


def test_settings_given_to_the_sandbox_reach_every_process(sandbox: Sandbox) -> None:
    for name in PARTS - {"postgres", "redis"}:
        environment = psutil.Process(sandbox.ready["pids"][name]).environ()
        assert environment["CANCEL_WINDOW_SECONDS"] == WINDOW, name


@pytest.fixture
def another_provider(tmp_path: Path) -> Iterator[Simulator]:
    """A provider that the sandbox did not start and that sends no webhooks."""
    directory = tmp_path / "provider"
    directory.mkdir()
    with Simulator.running(directory) as provider:
        yield provider


def test_another_provider_pays_and_sigterm_leaves_no_process(
    another_provider: Simulator, tmp_path: Path
) -> None:
    secrets = {
        "RAZORPAYX_KEY_ID": simulator_settings.KEY_ID,
        "RAZORPAYX_KEY_SECRET": simulator_settings.KEY_SECRET,
        "RAZORPAYX_ACCOUNT_NUMBER": simulator_settings.ACCOUNT,
        "RAZORPAYX_WEBHOOK_SECRET": simulator_settings.WEBHOOK_SECRET,
    }
    path = tmp_path / "ready.json"
    arguments = ["--ready-file", str(path), "--provider-url", another_provider.url]
    for setting in ("CANCEL_WINDOW_SECONDS=0", "POLL_SECONDS=0.5", "SWEEP_SECONDS=0.5"):
        arguments += ["--set", setting]
    with running("sandbox", *arguments, output=tmp_path / "said", env=secrets) as command:
        sandbox = Sandbox(command, path)
        assert set(sandbox.ready) == FIELDS
        assert sandbox.ready["simulator"] is None
        assert "simulator" not in sandbox.ready["pids"]
        withdrawal_id = sandbox.app.withdraw(sandbox.app.user())
        assert sandbox.app.wait_for(withdrawal_id) == "completed"
        assert [payout["status"] for payout in another_provider.payouts()] == ["processed"]
        sandbox.end()


def test_another_provider_without_its_secrets_is_one_clear_error(tmp_path: Path) -> None:
    given = ["--provider-url", "https://provider.test", "--set", "RAZORPAYX_KEY_SECRET=given"]
    output = tmp_path / "said"
    with running("sandbox", *given, output=output) as command:
        assert command.wait(START_SECONDS) == 1
        error = command.text().strip()
    assert len(error.splitlines()) == 1
    for name in ("RAZORPAYX_KEY_ID", "RAZORPAYX_ACCOUNT_NUMBER", "RAZORPAYX_WEBHOOK_SECRET"):
        assert name in error
    assert "RAZORPAYX_KEY_SECRET" not in error


def test_a_port_that_another_server_holds_is_refused_and_never_shared(tmp_path: Path) -> None:
    """With SO_REUSEPORT, as API servers use it between their own processes, others can share a port. Two systems
    on one port would each get half of the other's requests."""
    path = tmp_path / "ready.json"
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        given = ["--ready-file", str(path), "--set", f"API_PORT={port}"]
        with running("sandbox", *given, output=tmp_path / "said") as command:
            wait_until(lambda: path.exists() or "in use" in command.text(), START_SECONDS)
            assert not path.exists(), "two servers share one port"
            assert command.wait(START_SECONDS) == 1
