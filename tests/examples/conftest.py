"""The examples against the real system, as the developer of an app runs them."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.services import free_port
from sandbox.stack import ROOT, Stack
from tests.e2e.system import System
from tests.examples.wire import Wire, wire_to
from tests.support.browser import skip_or_fail

REACT = ROOT / "examples" / "react"
NODE_MAJOR = 20
WINDOW_SECONDS = "3"
TOKENS = {
    "USER_TOKEN_SECRET": "only-for-tests-0123456789-0123456789",
    "USER_TOKEN_AUDIENCE": "coin-payouts",
    "USER_TOKEN_ISSUER": "https://app.example",
}


@pytest.fixture(scope="package")
def node() -> str:
    """The path of Node, if it has at least the version that the examples need."""
    path = shutil.which("node")
    if path is None or shutil.which("npm") is None:
        skip_or_fail("There is no Node with npm, so the examples in JavaScript are not tested")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MAJOR:
        skip_or_fail(f"Node is {version.strip()}, and the examples need {NODE_MAJOR}")
    return path


@pytest.fixture(scope="package")
def built(node: str) -> Path:
    """The React form, installed and built, by one test process at a time."""
    with (REACT / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "examples"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return REACT


@pytest.fixture(scope="package")
def page_port() -> int:
    """The port of the page; the API needs its origin at the start."""
    return free_port()


@pytest.fixture(scope="package")
def system(page_port: int) -> Iterator[System]:
    """The whole stack, with user tokens and the origin of the page; each test uses its own users."""
    settings = TOKENS | {
        "CANCEL_WINDOW_SECONDS": WINDOW_SECONDS,
        "CORS_ORIGINS": f"http://localhost:{page_port}",
        "SWEEP_SECONDS": "0.5",
    }
    with Stack(settings, provider_speed=5.0, flower=False) as stack:
        system = System(stack)
        yield system
        system.check()


@contextmanager
def worker_paused(system: System) -> Iterator[None]:
    """Suspend the worker, so that withdrawals can still be cancelled, however slow the machine is."""
    group = system.stack.parts["worker"].pid
    assert group is not None
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.fixture
def wire(system: System) -> Iterator[Wire]:
    """A proxy between the client and the API."""
    with wire_to(system.info["api"]) as wire:
        yield wire
