"""A burst on two workers, seen from the provider's side: never a call too many in any second, and no idling."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from bench.pacing import burst, seen
from tests.e2e.system import System

pytestmark = pytest.mark.timeout(300)  # a start, and waits of FINAL_SECONDS on a busy machine
PER_SECOND, WITHDRAWALS = 8, 40  # so slow that any machine would be faster without it, and a fault shows
BEAT_SECONDS, OVERSLEPT_SECONDS = 0.005, 0.02  # a turn is 0.13 s
AFTER_SECONDS = 0.1  # what was kept waiting arrives
TRIES = 3

Pause = tuple[float, float]


@contextmanager
def heartbeat() -> Iterator[list[Pause]]:
    """When this machine let nobody run for a while, by the monotonic clock, which all its processes share.

    A call that has left in its turn may be seen by the provider only after such a moment, in one second with those
    that left later. That second is no measure of our pace.
    """
    pauses: list[Pause] = []
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            before = time.monotonic()
            time.sleep(BEAT_SECONDS)
            if time.monotonic() - before > BEAT_SECONDS + OVERSLEPT_SECONDS:
                pauses.append((before, time.monotonic()))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield pauses
    finally:
        over.set()
        thread.join()


def judged(times: Sequence[float], pauses: Sequence[Pause]) -> dict[float, int]:
    """Of every second that begins with a call and in which the machine did not pause: how many calls it saw."""
    whole = [first for first in times if first + 1 <= times[-1]]
    near = [(begin, end + AFTER_SECONDS) for begin, end in pauses]
    quiet = [first for first in whole if not any(end > first and begin < first + 1 for begin, end in near)]
    return {first: sum(first <= one < first + 1 for one in times) for first in quiet}


def is_enough(seconds: dict[float, int]) -> bool:
    """Whether two seconds were judged of which neither has a part of the other."""
    return bool(seconds) and max(seconds) - min(seconds) >= 1


def without_a_pace(system: System) -> float:
    """How many calls a second this machine brings about now, when nothing holds them back."""
    set_pace(system, 1000)
    told = seen(burst(system, WITHDRAWALS, PER_SECOND))
    set_pace(system, PER_SECOND)
    return told.per_second


def set_pace(system: System, per_second: int) -> None:
    for name in ("worker", "worker2"):
        system.restart_with(system.stack.parts[name], PAYOUTS_PER_SECOND=str(per_second))


@pytest.mark.failure(16)
def test_a_burst_keeps_the_pace_and_uses_it(fresh: System) -> None:
    fresh.add("worker2", "worker")
    set_pace(fresh, PER_SECOND)
    tried: list[str] = []
    for _ in range(TRIES):
        with heartbeat() as pauses:
            calls = burst(fresh, WITHDRAWALS, PER_SECOND)
        told = seen(calls)
        assert told.throttled == 0
        # 95 % of it on a machine that does nothing else (docs/performance.md); tests run two at a time.
        if told.per_second <= 0.2 * PER_SECOND:
            assert told.per_second > 0.2 * without_a_pace(fresh), "it idles"
        seconds = judged(sorted(call["monotonic"] for call in calls), pauses)
        kept = told.most_in_a_second <= PER_SECOND
        if kept or (is_enough(seconds) and max(seconds.values()) <= PER_SECOND):
            return
        # A pace that is not kept fails each time; a machine that is too busy to tell, not three times.
        tried.append(
            f"{told}, {len(pauses)} pauses, most in a quiet second {max(seconds.values(), default=0)}"
        )
    raise AssertionError("\n".join(tried))
