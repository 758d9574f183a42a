"""The system's own Chromium, for tests of pages as people see them. Nothing is downloaded."""

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# It meets no server but ours, and starts nothing beside the page.
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"


def absent(what: str) -> NoReturn:
    """Skip; in CI, where everything must be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; CI needs it")
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser without a window, one for all tests of a process: Playwright cannot start twice in one.

    Without Chromium the test is skipped, and says so.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        absent("There is no Chromium, so pages are not tested as people see them (make browser)")
    expect.set_options(timeout=20_000)  # a busy machine is no fault of a page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET.split())
        yield browser
        browser.close()
