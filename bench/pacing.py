"""A burst at a pace: how many calls the provider saw in any second, and how many on average.

    python -m bench.pacing [WITHDRAWALS] [PER_SECOND]

It ends with 1 when a second had a call too many, the average is under 95 % of the pace, or a 429 came.

Two workers, a burst of withdrawals by users who were paid before, and the simulator's own list of calls with
its own clock. The rival is the pace itself: the most calls that could have been made.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sandbox.processes import wait_until
from sandbox.stack import Stack
from tests.e2e.system import System

EACH = 10  # withdrawals of one user
COINS = 100
LEAST_SHARE = 0.95  # of the pace, on average


@dataclass(frozen=True)
class Seen:
    """What the provider saw."""

    calls: int
    most_in_a_second: int
    per_second: float
    throttled: int


def seen(calls: Sequence[dict[str, Any]]) -> Seen:
    """From the simulator's list of calls, by its monotonic clock."""
    times = sorted(call["monotonic"] for call in calls)
    most, first = 0, 0
    for last, moment in enumerate(times):
        while times[first] <= moment - 1.0:
            first += 1
        most = max(most, last - first + 1)
    average = (len(times) - 1) / (times[-1] - times[0])
    return Seen(len(times), most, average, sum(call["status"] == 429 for call in calls))


def faults(told: Seen, per_second: float) -> list[str]:
    """What was not as it must be, in plain words."""
    wrong = {
        f"{told.most_in_a_second} calls in one second": told.most_in_a_second > per_second,
        f"on average less than {LEAST_SHARE:.0%} of the pace": told.per_second < LEAST_SHARE * per_second,
        f"{told.throttled} times 429": told.throttled > 0,
    }
    return [words for words, is_so in wrong.items() if is_so]


def burst(system: System, withdrawals: int, per_second: float) -> list[dict[str, Any]]:
    """Ask for so many and let them drain, all at once; the calls that the provider saw of it.

    The workers are frozen while it is asked: on a slow machine it is the asking that would set the pace.
    """
    users = [system.user(EACH * COINS + COINS) for _ in range(withdrawals // EACH)]
    upi_ids = {user_id: f"success-{number}@sim" for number, user_id in enumerate(users)}
    with ThreadPoolExecutor(8) as threads:
        known = list(threads.map(lambda user_id: system.withdraw(user_id, upi_ids[user_id], COINS), users))
    seconds = 60 + 3 * len(users) / per_second
    for withdrawal_id in known:
        system.wait_for(withdrawal_id, seconds=seconds)
    before, creates = len(system.provider.get("calls")["items"]), len(system.provider.calls())
    asked = users * EACH
    with ExitStack() as frozen, ThreadPoolExecutor(8) as threads:
        for name, part in system.stack.parts.items():
            if name.startswith("worker"):
                frozen.enter_context(system.frozen(part))
        list(threads.map(lambda user_id: system.withdraw(user_id, upi_ids[user_id], COINS), asked))
    wait_until(
        lambda: len(system.provider.calls()) >= creates + len(asked), 60 + 1.5 * len(asked) / per_second
    )
    return list(system.provider.get("calls")["items"][before:])


def main() -> int:
    """Run it once and print what was seen. 0: the pace was kept and used; 1: not."""
    withdrawals = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    per_second = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    settings = {"CANCEL_WINDOW_SECONDS": "1", "PAYOUTS_PER_SECOND": str(per_second)}
    with Stack(settings, workers=2, flower=False) as stack:
        told = seen(burst(System(stack), withdrawals, per_second))
    print(f"{withdrawals} withdrawals at {per_second:g} a second, two workers: {told.calls} calls")
    print(f"most in any second   {told.most_in_a_second}")
    print(
        f"on average           {told.per_second:.2f} a second, {told.per_second / per_second:.1%} of the pace"
    )
    print(f"429                  {told.throttled}")
    for words in (wrong := faults(told, per_second)):
        print(f"NOT as it must be: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
