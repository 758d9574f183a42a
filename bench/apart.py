"""Runs a function in a process of its own, where it may change the environment and import our product.

What it logs is written nowhere.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
# What the product's settings require. No provider is called with these.
SETTINGS = {
    "RAZORPAYX_KEY_ID": "rzp_test_bench",
    "RAZORPAYX_KEY_SECRET": "bench",
    "RAZORPAYX_ACCOUNT_NUMBER": "1",
    "RAZORPAYX_WEBHOOK_SECRET": "bench",
    "ADMIN_SECRET_KEY": "a-key-for-the-benchmark-of-32-characters",
    "ADMIN_COOKIE_SECURE": "off",
    "API_AUTH": "off",
    "PAYOUTS_PER_SECOND": "10000",
}


def run(function: Callable[..., T], environment: Mapping[str, str], *arguments: object) -> T:
    """Call a module's function with these arguments, under these settings; returns what it returns."""
    with ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=({**SETTINGS, **environment},),
    ) as process:
        return process.submit(function, *arguments).result()


def _enter(environment: Mapping[str, str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update(environment)
    from shared.telemetry import log

    log.configure()
