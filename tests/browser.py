"""The system's own Chromium, for tests of pages as people see them. Nothing is downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# It meets no server but ours, and starts nothing beside the page.
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"


def absent(what: str) -> NoReturn:
    """Skip; in CI, where everything must be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; CI needs it")
    pytest.skip(what)


@contextmanager
def chromium(what_for: str) -> Iterator[Browser]:
    """A browser without a window; without Chromium the test is skipped, and says what for."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        absent(f"There is no Chromium, so {what_for} is not tested (make browser)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET.split())
        yield browser
        browser.close()
