"""The webhook receivers in Python and Node: the same tests for both."""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from sandbox.processes import wait_until
from sandbox.services import free_port
from sandbox.stack import ROOT
from tests.e2e.system import System

PROGRAMS = ROOT / "examples" / "receiver"
START_SECONDS = 15
ARRIVE_SECONDS = 40
OLD, NEW = (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" for _ in range(2))
STATUSES = ("pending", "processing", "completed")


class Receiver:
    """A running receiver and its output."""

    def __init__(self, program: list[str], directory: Path) -> None:
        self.port = free_port()
        self._program = program
        self._directory = directory
        self.url = f"http://127.0.0.1:{self.port}/payouts/"

    def start(self, secrets_: str = f"{OLD},{NEW}") -> None:
        command = [word.replace("PORT", str(self.port)) for word in self._program]
        environment = os.environ | {"PAYOUTS_WEBHOOK_SECRETS": secrets_}
        with (self._directory / "output").open("a") as output:
            self._process = subprocess.Popen(
                command, cwd=self._directory, env=environment, stdout=output, stderr=subprocess.DEVNULL
            )
        wait_until(self._listens, START_SECONDS)

    def _listens(self) -> bool:
        assert self._process.poll() is None, "the receiver ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def events(self) -> list[str]:
        """The events that it passed to the app, in order."""
        return (self._directory / "output").read_text().splitlines()

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        headers = {"Content-Type": "application/json"} | headers
        return requests.post(self.url, data=body, headers=headers, timeout=10).status_code

    def send(self, sequence: int, withdrawal_id: str = "one", secret: str = NEW) -> int:
        """Send a signed event; returns the HTTP status."""
        body = event(sequence, withdrawal_id)
        return self.post(body, signed(body, secret))


def in_python(directory: Path) -> Receiver:
    return Receiver([sys.executable, str(PROGRAMS / "receiver.py"), "--port", "PORT"], directory)


def in_node(node: str, directory: Path) -> Receiver:
    return Receiver([node, str(PROGRAMS / "receiver.mjs"), "PORT"], directory)


@pytest.fixture(params=["python", "node"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    if request.param == "python":
        receiver = in_python(tmp_path)
    else:
        receiver = in_node(request.getfixturevalue("node"), tmp_path)
    receiver.start()
    yield receiver
    receiver.stop()


def event(sequence: int, withdrawal_id: str = "one") -> bytes:
    status = STATUSES[sequence - 1]
    data = {"withdrawal_id": withdrawal_id, "user_id": "user123", "status": status, "sequence": sequence}
    return json.dumps({"type": f"withdrawal.{status}", "data": data | {"upi_id": "é@upi"}}).encode()


def signed(body: bytes, *by: str, at: datetime | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks, from the library."""
    at = at or datetime.now(UTC)
    signatures = [Webhook(secret).sign("msg_1", at, body.decode()) for secret in by]
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def test_duplicate_and_late_events_are_acknowledged_and_ignored(receiver: Receiver) -> None:
    assert [receiver.send(sequence) for sequence in (1, 3, 3, 2, 1)] == [204] * 5
    assert receiver.send(1, "two") == 204
    assert receiver.events() == [
        "withdrawal.pending one 1",
        "withdrawal.completed one 3",
        "withdrawal.pending two 1",
    ]


def test_received_events_are_remembered_after_a_restart(receiver: Receiver) -> None:
    receiver.send(3)
    receiver.stop()
    receiver.start()
    assert receiver.send(2) == 204
    assert receiver.events() == ["withdrawal.completed one 3"]


def test_old_and_new_secrets_are_accepted_during_a_rotation(receiver: Receiver) -> None:
    assert receiver.send(1, secret=OLD) == 204
    assert receiver.send(2, secret=NEW) == 204
    body = event(3)
    unknown = f"whsec_{base64.b64encode(b'x' * 32).decode()}"
    assert receiver.post(body, signed(body, unknown, NEW)) == 204
    assert len(receiver.events()) == 3


def test_an_event_without_a_valid_signature_gets_400_and_changes_nothing(receiver: Receiver) -> None:
    body, other = event(1), event(2)
    good = signed(body, NEW)
    wrong: list[tuple[bytes, dict[str, Any]]] = [
        (body, {}),
        (other, good),
        (body + b" ", good),
        (body, good | {"webhook-id": "msg_2"}),
        (body, good | {"webhook-signature": "v1,"}),
        (body, good | {"webhook-signature": "v1,!!!"}),
        (body, good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")}),
        (body, good | {"webhook-timestamp": "soon"}),
        (body, signed(body, NEW, at=datetime.now(UTC) - timedelta(minutes=6))),
        (body, signed(body, NEW, at=datetime.now(UTC) + timedelta(minutes=6))),
    ]
    assert [receiver.post(*request) for request in wrong] == [400] * len(wrong)
    assert receiver.events() == []
    assert receiver.send(1) == 204


def test_a_body_above_the_size_limit_is_refused(receiver: Receiver) -> None:
    body = b" " * (64 * 1024 + 1)
    assert receiver.post(body, signed(body, NEW)) in (400, 413)


@pytest.mark.parametrize("given", ["", "whsec_"])
def test_a_receiver_without_a_secret_does_not_start(given: str, node: str) -> None:
    environment = os.environ | {"PAYOUTS_WEBHOOK_SECRETS": given}
    for program in ([sys.executable, "receiver.py"], [node, "receiver.mjs"]):
        done = subprocess.run(
            program,
            cwd=PROGRAMS,
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 1 and "PAYOUTS_WEBHOOK_SECRETS" in done.stderr


def payouts(system: System, *arguments: str) -> str:
    """The stdout of a command, run as an operator."""
    command = [sys.executable, "-m", "cli", *arguments]
    done = subprocess.run(command, env=system.stack.env, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.exhaustive
def test_real_webhooks_are_verified_and_stored_also_after_a_secret_rotation(
    system: System, node: str, tmp_path: Path
) -> None:
    receivers = []
    for name, make in (("python", in_python), ("node", partial(in_node, node))):
        (tmp_path / name).mkdir()
        receivers.append(receiver := make(tmp_path / name))
        receiver.start(payouts(system, "endpoints", "add", receiver.url, "--allow-private"))
    try:
        payouts(system, "endpoints", "rotate", receivers[0].url)  # the receiver still has the old secret
        user_id = system.user(2000)
        paid, cancelled = system.withdraw(user_id), system.withdraw(user_id)
        assert system.cancel(cancelled).status_code == 200
        last_events = {f"withdrawal.completed {paid} 3", f"withdrawal.cancelled {cancelled} 2"}
        for receiver in receivers:
            wait_until(lambda: last_events <= set(receiver.events()), ARRIVE_SECONDS)  # noqa: B023
            sequences = [int(line[-1]) for line in receiver.events() if paid in line]
            assert sequences == sorted(set(sequences))
    finally:
        for receiver in receivers:
            receiver.stop()
