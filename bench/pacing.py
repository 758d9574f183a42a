"""A burst under the rate limit: the provider's calls in any second, and on average.

    python -m bench.pacing [WITHDRAWALS] [PER_SECOND]

It exits with 1 if a second had too many calls, the average is below 95 % of the limit, or a 429 occurred.

Two workers and a burst of withdrawals by users who were paid before. The calls are those in the simulator's
own log, by its own clock. The average is compared with the limit itself: the most calls that could have been
made.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sandbox.keeper import wait_until
from sandbox.stack import Stack
from tests.e2e.system import System

WITHDRAWALS_PER_USER = 10
COINS = 100
MIN_SHARE = 0.95  # of the limit, on average


@dataclass(frozen=True)
class Measurement:
    """The calls in the provider's log."""

    calls: int
    most_in_a_second: int
    per_second: float
    throttled: int


def measure(calls: Sequence[dict[str, Any]]) -> Measurement:
    """Measure the simulator's list of calls by its monotonic clock."""
    times = sorted(call["monotonic"] for call in calls)
    most = 0
    first = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    average = (len(times) - 1) / (times[-1] - times[0])
    return Measurement(len(times), most, average, sum(call["status"] == 429 for call in calls))


def failures(measurement: Measurement, per_second: float) -> list[str]:
    """The requirements that were not met, in plain words."""
    conditions = {
        f"{measurement.most_in_a_second} calls in one second": measurement.most_in_a_second > per_second,
        f"on average less than {MIN_SHARE:.0%} of the limit": measurement.per_second < MIN_SHARE * per_second,
        f"{measurement.throttled} times 429": measurement.throttled > 0,
    }
    return [failure for failure, has_failed in conditions.items() if has_failed]


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


def main() -> int:
    """Run it once and print the measurement. Returns 0 if the limit was kept and used, else 1."""
    withdrawals = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    per_second = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    settings = {"CANCEL_WINDOW_SECONDS": "1", "PAYOUTS_PER_SECOND": str(per_second)}
    with Stack(settings, workers=2, flower=False) as stack:
        measurement = measure(burst(System(stack), withdrawals, per_second))
    share = measurement.per_second / per_second
    print(f"{withdrawals} withdrawals at {per_second:g} per second, two workers: {measurement.calls} calls")
    print(f"most in any second   {measurement.most_in_a_second}")
    print(f"on average           {measurement.per_second:.2f} per second, {share:.1%} of the limit")
    print(f"429                  {measurement.throttled}")
    for failure in (failed := failures(measurement, per_second)):
        print(f"FAILED: {failure}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
