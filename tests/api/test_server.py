"""The API as its own process: its log, and which resources slow clients can occupy."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

from sandbox.processes import wait_until
from sandbox.services import free_port
from tests.support.api import CANCEL, CREDIT, GOOD, STATUS, WITHDRAW
from tests.support.idle_clients import WEBHOOK, Strangers
from tests.support.world import KEY, World, sign


@contextmanager
def api(log: Path, **settings: str) -> Iterator[str]:
    """Run `payouts api` with these settings; yields its address. Its log is in the file."""
    port = free_port()
    env = os.environ | {"API_PORT": str(port)} | settings
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "cli", "api"], env=env, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(address), 20, lambda: AssertionError(log.read_text()))
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/healthz", timeout=2).ok
    except requests.RequestException:
        return False


def test_no_secret_and_no_upi_id_reaches_the_log(world: World, tmp_path: Path) -> None:
    body = {**GOOD, "upi_id": "secretname@okaxis", "user_id": "asha"}
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "trace-me"}
    wrong_key = {"Authorization": "Bearer guessed-key-0123456789"}
    with api(tmp_path / "log") as address:

        def send(path: str, body: object, headers: dict[str, str] = headers) -> requests.Response:
            return requests.post(address + path, json=body, headers=headers, timeout=10)

        credited = {
            "user_id": "asha",
            "coins": 900,
            "reference": "r",
            "phone": "+919876543210",
            "email": "a@b.in",
        }
        assert send(CREDIT, credited).status_code == 201
        created = send(WITHDRAW, body)
        assert created.status_code == 201
        assert send(WITHDRAW, body).status_code == 400  # the coins are debited
        assert send(WITHDRAW, {**body, "upi_id": "secretname#okaxis"}).status_code == 400
        assert send(WITHDRAW, body, wrong_key).status_code == 401
        assert send(WITHDRAW + "?key=secret-in-the-address", body, wrong_key).status_code == 401
        withdrawal_id = created.json()["data"]["withdrawal_id"]
        status = requests.get(f"{address}{STATUS}?withdrawal_id={withdrawal_id}", headers=headers, timeout=10)
        assert status.status_code == 200
        assert send(CANCEL, {"withdrawal_id": withdrawal_id, "reason": "secret reason"}).status_code == 200
        forged = requests.post(address + WEBHOOK, data=b'{"vpa": "secretname@okaxis"}', timeout=10)
        assert forged.status_code == 400
    log = (tmp_path / "log").read_text()
    for word in ("secret", "guessed-key", KEY, "9876543210", "a@b.in"):
        assert word not in log, word
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    tags = {event["event"].split()[0] for event in events if event.get("request_id") == "trace-me"}
    assert {"[WITHDRAW]", "[CANCEL]", "[DETAILS]", "[WALLET]"} <= tags
    assert any(event["event"] == "[API] refused" and event["address"] == "127.0.0.1" for event in events)


def test_slow_bodies_without_a_valid_key_do_not_occupy_every_thread(world: World, tmp_path: Path) -> None:
    """More bodies than are accepted at once, to the webhook endpoint and to one that needs a key."""
    with api(tmp_path / "log", API_THREADS="4", API_BODIES="8") as address, ExitStack() as slow:
        host, port = address.removeprefix("http://").split(":")
        for path in [WEBHOOK, WITHDRAW] * 6:
            caller = slow.enter_context(socket.create_connection((host, int(port))))
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n"
            caller.sendall(head.encode() + b"{")
        wait_until(lambda: _answers(address), 10, lambda: AssertionError("every thread is occupied"))
        assert _answers(address), "the API stopped answering"
        body = b"{}"

        def webhook() -> requests.Response:
            headers = {"X-Razorpay-Signature": sign(body)}
            return requests.post(address + WEBHOOK, data=body, headers=headers, timeout=10)

        # On a busy machine the slow clients may not all have a slot yet.
        wait_until(lambda: webhook().status_code == 503, 10)
        answer = webhook()
        assert answer.status_code == 503 and answer.json()["code"] == "too_many_webhooks"
        assert int(answer.headers["Retry-After"]) > 0


BOUNDS = {"API_THREADS": "2", "API_HEAD_SECONDS": "2", "API_REQUEST_SECONDS": "4"}
QUICKLY_SECONDS = 2


def test_slow_clients_block_nobody_and_are_disconnected(world: World, tmp_path: Path) -> None:
    """Clients that send nothing, partial headers or a slow body, or do not read the response: far more of each
    than the process has threads."""
    with api(tmp_path / "log", **BOUNDS) as address:
        url = urlsplit(address)
        host_and_port = url.hostname or "", url.port or 0
        clients = {"silent": 1100, "half": 1100, "slow": 100, "with a key": 10, "takes nothing": 10}
        strangers = Strangers(*host_and_port, reconnect=False, **clients)
        with strangers.connected():
            wait_until(lambda: strangers.open.total() >= 2000 or strangers.ended.total(), 20)
            requests_sent = 0
            deadline = time.monotonic() + 60
            while requests_sent < 3 or strangers.ended != clients:
                requests_sent += 1
                _answers_quickly(address, requests_sent)
                assert time.monotonic() < deadline, f"still connected: {strangers.open}"
        assert strangers.open.total() == 0


def _answers_quickly(address: str, number: int) -> None:
    assert requests.get(f"{address}/healthz", timeout=QUICKLY_SECONDS).ok
    body = json.dumps({"event": "order.paid", "number": number}).encode()
    headers = {"X-Razorpay-Signature": sign(body)}
    assert requests.post(address + WEBHOOK, data=body, headers=headers, timeout=QUICKLY_SECONDS).ok


def test_slow_forms_without_a_session_do_not_occupy_every_thread(world: World, tmp_path: Path) -> None:
    """The panel reads forms of unknown callers only at sign-in, and few at once."""
    panel = {"ADMIN_SECRET_KEY": "a-key-of-the-tests-of-32-characters", "ADMIN_COOKIE_SECURE": "off"}
    with api(tmp_path / "log", API_THREADS="4", API_BODIES="8", **panel) as address, ExitStack() as slow:
        requests.get(f"{address}/admin/sign-in/", timeout=20)  # the panel is created
        host, port = address.removeprefix("http://").split(":")
        for path in [
            "/admin/sign-in/",
            "/admin/withdrawals/",
            "/admin/bulk/",
            "/admin/account/password/",
        ] * 3:
            caller = slow.enter_context(socket.create_connection((host, int(port))))
            kind = "application/x-www-form-urlencoded"
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 100000\r\n\r\n"
            caller.sendall(head.encode() + b"username=")
        wait_until(lambda: _answers(address), 10, lambda: AssertionError("every thread is occupied"))
        assert _answers(address), "the API stopped answering"
