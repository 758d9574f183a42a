"""The simulator's clock and timers: one heap and one wake-up for any number of payouts."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable

# Timers fired before other work gets the loop again, so that responses stay quick while 50,000 timers are
# due.
BATCH = 200
log = logging.getLogger(__name__)


class Timer:
    """A callback in the heap. A cancelled timer stays there without a callback."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Prevent the timer from firing."""
        self.callback = None


class Clock:
    """A Unix clock that starts at the real time, runs `speed` times as fast, and can be moved forward."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._sim_base = time.time()
        self._real_base = time.monotonic()
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._wakeup: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Simulated Unix time."""
        return self._sim_base + (time.monotonic() - self._real_base) * self.speed

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` after that many simulated seconds."""
        timer = Timer(callback)
        due = self.now() + seconds
        heapq.heappush(self._heap, (due, next(self._order), timer))
        if self._heap[0][2] is timer:
            self._arm()
        return timer

    def set_speed(self, speed: float) -> None:
        """Change the speed from now on."""
        self._jump_to(self.now())
        self.speed = speed
        self._arm()

    async def advance(self, seconds: float) -> None:
        """Move forward, firing every timer on the way, so that chains of timers run in order."""
        target = self.now() + seconds
        fired = 0
        while self._heap and self._heap[0][0] <= target:
            self._jump_to(max(self._heap[0][0], self.now()))
            self._pop_and_fire()
            fired += 1
            if fired % BATCH == 0:
                await asyncio.sleep(0)
        self._jump_to(max(target, self.now()))
        self._arm()

    def reset(self, speed: float) -> None:
        """Remove every timer and return to the real time."""
        self._heap.clear()
        self._jump_to(time.time())
        self.speed = speed
        self._arm()

    def _jump_to(self, sim_time: float) -> None:
        self._sim_base = sim_time
        self._real_base = time.monotonic()

    def _arm(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        if self._heap:
            wait = max(0.0, (self._heap[0][0] - self.now()) / self.speed)
            self._wakeup = asyncio.get_running_loop().call_later(wait, self._fire_due)

    def _fire_due(self) -> None:
        self._wakeup = None
        for _ in range(BATCH):
            if not self._heap or self._heap[0][0] > self.now():
                break
            self._pop_and_fire()
        self._arm()

    def _pop_and_fire(self) -> None:
        callback = heapq.heappop(self._heap)[2].callback
        if callback is None:
            return
        try:
            callback()
        except Exception:
            # One failing callback must not stop the clock for all payouts.
            log.exception("timer_failed")
