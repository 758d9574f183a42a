"""The installed Chromium, for tests of pages as people see them. Nothing is downloaded."""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# It connects to our servers only and starts no background service.
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test; fail it in CI, where everything must be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI needs it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless browser for all tests of a process, because Playwright cannot start twice in one process.

    Without Chromium the test is skipped.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        skip_or_fail("There is no Chromium, so pages are not tested as people see them (make browser)")
    expect.set_options(timeout=20_000)  # a busy machine needs longer than the default
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET.split())
        yield browser
        browser.close()
