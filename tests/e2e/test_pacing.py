"""A burst on two workers, measured at the provider: no second exceeds the rate limit, and the
limit is used.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bench.rows.pace import measure
from sandbox.keeper import wait_until
from tests.e2e.system import System

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(300),
]  # a start, and waits of FINAL_SECONDS on a busy machine
PER_SECOND = 8  # so low that every machine exceeds it without a limiter
WITHDRAWALS = 40
WITHDRAWALS_PER_USER = 10
COINS = 100
BEAT_SECONDS = 0.005
OVERSLEPT_SECONDS = 0.02  # a slot of the rate limit is 0.13 s
AFTER_SECONDS = 0.1  # delayed calls arrive within this time after a pause
TRIES = 3

Pause = tuple[float, float]


@contextmanager
def heartbeat() -> Iterator[list[Pause]]:
    """The pauses in which this machine ran no process, by the monotonic clock, which all processes share.

    A call that left in time may reach the provider after such a pause, together with later calls. That second
    does not measure our rate.
    """
    pauses: list[Pause] = []
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.is_set():
            before = time.monotonic()
            time.sleep(BEAT_SECONDS)
            if time.monotonic() - before > BEAT_SECONDS + OVERSLEPT_SECONDS:
                pauses.append((before, time.monotonic()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield pauses
    finally:
        stopped.set()
        thread.join()


def burst(system: System, withdrawals: int, per_second: float) -> list[dict[str, Any]]:
    """Request all withdrawals at once, let them drain, and return the provider's calls.

    The workers are frozen during the requests, which would otherwise limit the rate on a slow machine.
    """
    users = [
        system.user(WITHDRAWALS_PER_USER * COINS + COINS) for _ in range(withdrawals // WITHDRAWALS_PER_USER)
    ]
    upi_ids = {user_id: f"success-{number}@sim" for number, user_id in enumerate(users)}
    with ThreadPoolExecutor(8) as threads:
        known = list(threads.map(lambda user_id: system.withdraw(user_id, upi_ids[user_id], COINS), users))
    seconds = 60 + 3 * len(users) / per_second
    for withdrawal_id in known:
        system.wait_for(withdrawal_id, seconds=seconds)
    calls_before = len(system.provider.get("calls")["items"])
    creates_before = len(system.provider.calls())
    requests = users * WITHDRAWALS_PER_USER
    with ExitStack() as frozen, ThreadPoolExecutor(8) as threads:
        for name, part in system.stack.parts.items():
            if name.startswith("worker"):
                frozen.enter_context(system.frozen(part))
        list(threads.map(lambda user_id: system.withdraw(user_id, upi_ids[user_id], COINS), requests))
    wait_until(
        lambda: len(system.provider.calls()) >= creates_before + len(requests),
        60 + 1.5 * len(requests) / per_second,
    )
    return list(system.provider.get("calls")["items"][calls_before:])


def calls_per_second(times: Sequence[float], pauses: Sequence[Pause]) -> dict[float, int]:
    """The calls in each second that starts with a call and contains no pause of the machine."""
    complete = [first for first in times if first + 1 <= times[-1]]
    disturbed = [(begin, end + AFTER_SECONDS) for begin, end in pauses]
    undisturbed = [
        first for first in complete if not any(end > first and begin < first + 1 for begin, end in disturbed)
    ]
    return {first: sum(first <= moment < first + 1 for moment in times) for first in undisturbed}


def are_enough(seconds: dict[float, int]) -> bool:
    """True if two seconds that do not overlap were measured."""
    return bool(seconds) and max(seconds) - min(seconds) >= 1


def measure_without_limit(system: System) -> float:
    """The calls per second that this machine makes now without a rate limit."""
    set_rate_limit(system, 1000)
    measurement = measure(burst(system, WITHDRAWALS, PER_SECOND))
    set_rate_limit(system, PER_SECOND)
    return measurement.per_second


def set_rate_limit(system: System, per_second: int) -> None:
    for name in ("worker", "worker2"):
        system.restart_with(system.stack.parts[name], PAYOUTS_PER_SECOND=str(per_second))


@pytest.mark.failure(16)
def test_a_burst_stays_within_the_rate_limit_and_uses_it(fresh: System) -> None:
    fresh.add("worker2", "worker")
    set_rate_limit(fresh, PER_SECOND)
    attempts: list[str] = []
    for _ in range(TRIES):
        with heartbeat() as pauses:
            calls = burst(fresh, WITHDRAWALS, PER_SECOND)
        measurement = measure(calls)
        assert measurement.throttled == 0
        # 95 % of it on a machine that does nothing else (docs/performance.md); tests run two at a time.
        if measurement.per_second <= 0.2 * PER_SECOND:
            assert measurement.per_second > 0.2 * measure_without_limit(fresh), "the limit is not used"
        seconds = calls_per_second(sorted(call["monotonic"] for call in calls), pauses)
        is_kept = measurement.most_in_a_second <= PER_SECOND
        if is_kept or (are_enough(seconds) and max(seconds.values()) <= PER_SECOND):
            return
        # A broken limiter fails each time; a machine that is too busy for a measurement does not fail three
        # times.
        attempts.append(
            f"{measurement}, {len(pauses)} pauses, most in an undisturbed second {max(seconds.values(), default=0)}"
        )
    raise AssertionError("\n".join(attempts))
