"""The panel in real browsers, against the running system."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from sandbox.stack import ROOT, Stack
from tests.e2e.system import System

PASSWORD = "correct horse battery"
SIZE = {"width": 1180, "height": 780}
Opened = Callable[..., Page]


@pytest.fixture(scope="package")
def system(browser: Browser) -> Iterator[System]:
    """The whole stack, with a second operator."""
    settings = {
        "CANCEL_WINDOW_SECONDS": "2",
        "SWEEP_SECONDS": "0.5",
        "WATCH_SECONDS": "1",
        "REVIEW_ABOVE_COINS": "1000",
    }
    with Stack(settings, provider_speed=5.0, flower=False) as stack:
        token = {"PAYOUTS_OPERATOR_TOKEN": secrets.token_hex(24)}  # a shell of its own
        ravi = stack.env | token | {"SANDBOX_OPERATOR": f"ravi:{PASSWORD}:operator"}
        command = [sys.executable, "-m", "sandbox.admit"]
        subprocess.run(command, cwd=ROOT, env=ravi, check=True, timeout=30)
        yield System(stack)


@pytest.fixture
def opened(browser: Browser, system: System) -> Iterator[Opened]:
    """Open the panel in a new browser; at the end, no page may have reported an error."""
    errors: list[str] = []
    contexts = []

    def open_panel(scheme: str = "light", *, scripts: bool = True) -> Page:
        context = browser.new_context(viewport=SIZE, color_scheme=scheme, java_script_enabled=scripts)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "requestfailed",
            lambda failed: errors.append(failed.url) if "export" not in failed.url else None,
        )
        page.goto(system.info["admin"])
        return page

    yield open_panel
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of screenshots: `SCREENSHOTS=docs/img make test ARGS=tests/panel` retakes those of the guide."""
    given = os.environ.get("SCREENSHOTS")
    return Path(given).absolute() if given else tmp_path_factory.mktemp("shots")
