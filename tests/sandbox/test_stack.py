"""The whole system starts, reports its URLs, restarts failed parts, and leaves no process behind."""

import http.client
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandbox import stack as stack_module
from sandbox.processes import Part, PartFailed, wait_until
from sandbox.readiness import status
from sandbox.services import free_port
from sandbox.stack import Stack
from tests.sandbox.programs import readable, running

pytestmark = pytest.mark.exhaustive

KEYS = ["api", "admin", "flower", "simulator", "database_url", "redis_url", "api_key", "webhook_secret",
        "admin_user", "admin_password", "pids"]  # fmt: skip
RUN = """
import sys
from sandbox.stack import Stack
with Stack(directory=sys.argv[1], flower=False) as stack:  # to save time
    stack.write_ready_file(sys.argv[2])
    print("ready", flush=True)
    stack.run_until_signal()
"""
DIES = [sys.executable, "-c", "raise SystemExit('no luck')"]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack({"SWEEP_SECONDS": "7"}, workers=2) as running_stack:
        yield running_stack


def test_every_part_responds_at_its_printed_url(stack: Stack) -> None:
    info = stack.info()
    assert list(info) == KEYS
    assert status(info["api"] + "/readyz") == http.client.OK
    assert status(info["flower"]) == http.client.UNAUTHORIZED
    assert info["admin"] == info["api"] + "/admin/"
    assert set(info["pids"]) == {
        "postgres", "redis", "simulator", "api", "worker", "worker2", "notifier", "beat", "flower"
    }  # fmt: skip
    assert all(psutil.pid_exists(pid) for pid in info["pids"].values())


def test_settings_reach_every_process(stack: Stack) -> None:
    ours = set(stack.info()["pids"]) - {"postgres", "redis"}
    for name in ours:
        assert psutil.Process(stack.parts[name].pid).environ()["SWEEP_SECONDS"] == "7", name


def test_the_simulator_sends_its_webhooks_to_this_api(stack: Stack) -> None:
    env = psutil.Process(stack.parts["simulator"].pid).environ()
    assert env["SIM_WEBHOOK_URL"] == stack.info()["api"] + "/api/razorpay/webhook/"
    assert env["SIM_WEBHOOK_SECRET"] == stack.info()["webhook_secret"]


def test_only_the_owner_can_read_the_ready_file(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    stack.write_ready_file(path)
    assert json.loads(path.read_text()) == stack.info()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["worker", "notifier", "api", "simulator", "beat", "flower", "redis", "postgres"]
)
def test_a_killed_part_restarts_on_its_port(stack: Stack, name: str) -> None:
    before = stack.info()
    part = stack.parts[name]
    part.kill()
    assert not part.alive
    part.restart()
    after = stack.info()
    assert after["pids"].pop(name) != before["pids"].pop(name)
    assert after == before
    # The API is not ready while its pool holds a broken connection.
    wait_until(stack.parts["api"].is_answering, 15)


def test_a_running_stack_recovers_and_stops_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    with running(RUN, tmp_path / "stack", path) as program:
        assert program.line() == "ready"
        pids = json.loads(path.read_text())["pids"]
        os.kill(pids["beat"], signal.SIGKILL)
        wait_until(lambda: json.loads(path.read_text())["pids"]["beat"] != pids["beat"], 60)
        family = descendants(program.process.pid)
        code, errors = program.end(signal.SIGTERM)
        assert code == 0
        assert "beat: ended with exit code -9" in errors
        assert "beat restarts in 1 s" in errors
        program.assert_nothing_left(family)


def test_nothing_outlives_a_stack_that_is_killed(tmp_path: Path) -> None:
    with running(RUN, tmp_path / "stack", tmp_path / "ready.json") as program:
        assert program.line() == "ready"
        family = descendants(program.process.pid)
        program.end(signal.SIGKILL)
        program.assert_nothing_left(family)


@pytest.mark.parametrize("until", ["postgres/data", "migrate.log", "api.log"])
def test_nothing_outlives_a_start_that_is_interrupted(tmp_path: Path, until: str) -> None:
    with running(RUN, tmp_path, tmp_path / "ready.json") as program:
        wait_until((tmp_path / until).exists, 60)
        code, errors = program.end(signal.SIGTERM)
        assert code == 128 + signal.SIGTERM, errors
        program.assert_nothing_left()
    assert not (tmp_path / "ready.json").exists()


def test_a_part_that_fails_at_start_is_reported_and_the_rest_stopped(tmp_path: Path) -> None:
    stack = Stack({"COIN_VALUE_PAISE": "nothing"}, directory=tmp_path)
    with pytest.raises(PartFailed, match=r"(?s)migrate: ended with exit code 1.*COIN_VALUE_PAISE"):
        stack.start()
    assert stack.parts
    assert not any(part.alive for part in stack.parts.values())


def test_an_occupied_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the other process would share it (SO_REUSEPORT): the API itself does not."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(stack_module, "free_port", lambda: next(ports, None) or free_port())
        with Stack(flower=False) as stack:
            assert status(stack.info()["api"] + "/readyz") == http.client.OK
            assert stack.info()["flower"] is None
        assert next(ports, None) is None


def test_a_given_port_that_is_taken_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = Stack(api_port=taken.getsockname()[1], flower=False, directory=tmp_path)
        with pytest.raises(PartFailed, match=r"(?s)api: .*address already in use"):
            stack.start()
        assert not stack.parts


def test_another_provider_needs_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAZORPAYX_KEY_ID", "RAZORPAYX_ACCOUNT_NUMBER", "RAZORPAYX_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAZORPAYX_KEY_SECRET", "given")
    missing = "set RAZORPAYX_KEY_ID, RAZORPAYX_ACCOUNT_NUMBER, RAZORPAYX_WEBHOOK_SECRET: https://x.test"
    with pytest.raises(PartFailed, match=missing):
        Stack(provider_url="https://x.test").start()


def test_a_part_that_keeps_dying_is_always_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It recovers when its dependencies are back; the waits between restarts grow."""
    monkeypatch.setattr(stack_module, "RESTART_SECONDS", 0.001)
    monkeypatch.setattr(stack_module, "MAX_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(stack_module, "WATCH_SECONDS", 0.01)
    stack = Stack(directory=tmp_path)
    log = tmp_path / "hapless.log"
    part = stack.parts["hapless"] = Part("hapless", DIES, log=log, ready=lambda: False)

    def stop_after_eight_deaths(_: float) -> None:
        if readable(log).count("no luck") >= 8:
            raise KeyboardInterrupt

    part.start()
    with monkeypatch.context() as until:  # not longer: stopping a part sleeps too, in subprocess
        until.setattr(stack_module.time, "sleep", stop_after_eight_deaths)
        stack.run_until_signal()
    stack.stop()
    errors = capsys.readouterr().err
    assert "hapless restarts in 0.001 s" in errors and "hapless restarts in 0.004 s" in errors
    assert "hapless restarts in 0.01 s" in errors
    assert errors.count("hapless restarts") >= 7


def descendants(pid: int) -> list[psutil.Process]:
    """All descendants of the program, including PostgreSQL's backends, whose environment cannot be read."""
    return psutil.Process(pid).children(recursive=True)
