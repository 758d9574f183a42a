"""The examples against the real system, as an app's developer runs them."""

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
from tests.browser import absent
from tests.e2e.system import System
from tests.examples.wire import Wire, wire_to

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
    """Node, of the version that the examples need or newer."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        absent("There is no Node with npm, so the examples in JavaScript are not tested")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.removeprefix("v").split(".")[0]) < NODE_MAJOR:
        absent(f"Node is {told.strip()}, and the examples need {NODE_MAJOR}")
    return found


@pytest.fixture(scope="package")
def built(node: str) -> Path:
    """The React form, installed and built; by one process of the tests at a time."""
    with (REACT / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "examples"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return REACT


@pytest.fixture(scope="package")
def page_port() -> int:
    """Where the page is served: the API must know it as an origin before it starts."""
    return free_port()


@pytest.fixture(scope="package")
def system(page_port: int) -> Iterator[System]:
    """The whole stack, with users' tokens and the page's origin; each test uses users of its own."""
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
def nobody_pays(system: System) -> Iterator[None]:
    """The worker stands still: what can be cancelled stays so, however slowly a busy machine comes to it."""
    group = system.stack.parts["worker"].pid
    assert group is not None
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.fixture
def wire(system: System) -> Iterator[Wire]:
    """What lies between the client and the API."""
    with wire_to(system.info["api"]) as wire:
        yield wire
