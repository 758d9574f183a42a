"""Messages that leave from a thread of their own: requests do not wait for the broker, and a burst sends few.

One message of a task stands for everything that is due when a worker takes it. So a nudge needs no message of
its own if one of its task is still to leave. A process that ends loses what it had to send in the future; the
sweep finds those rows.
"""

import atexit
import heapq
import math
import os
import threading
import time

import structlog

from shared.queues import messages
from shared.telemetry import metrics

# Between two messages of the same task. One that is due after a quieter time leaves at once.
GAP_SECONDS = 0.1
# Nudges for later are kept by time, so that those of one moment are one.
STEP_SECONDS = 0.01

log = structlog.get_logger()


class _Sender(threading.Thread):
    """Sends each task's message when it is due, at most one in GAP_SECONDS."""

    def __init__(self) -> None:
        super().__init__(name="nudges", daemon=True)
        self._due: dict[str, list[float]] = {}  # by task: a heap of times on the monotonic clock
        self._known: set[tuple[str, float]] = set()
        self._free_at: dict[str, float] = {}  # by task: from when on another message may leave
        self._changed = threading.Condition()
        self._sending = threading.Lock()

    def add(self, task: str, seconds: float) -> None:
        """Send this task's message in so many seconds, or up to GAP_SECONDS later with others."""
        now = time.monotonic()
        with self._changed:
            times = self._due.setdefault(task, [])
            if seconds <= 0:
                due_at = max(now, self._free_at.get(task, now))
                # One that is to leave by then leaves after this moment, so it stands for this nudge too.
                is_covered = bool(times) and times[0] <= due_at
            else:
                due_at = math.ceil((now + seconds) / STEP_SECONDS) * STEP_SECONDS
                is_covered = (task, due_at) in self._known
            if not is_covered:
                self._known.add((task, due_at))
                heapq.heappush(times, due_at)
                if times[0] == due_at:  # else the thread wakes up before
                    self._changed.notify()

    def run(self) -> None:
        """Send in a loop, forever."""
        while True:
            with self._changed:
                while (task := self._take(time.monotonic())) is None:
                    self._changed.wait(self._seconds_left())
                self._sending.acquire()  # before others see that it is no longer to be sent
            try:
                _send(task)
            finally:
                self._sending.release()

    def flush(self) -> None:
        """Send what is due now, from the calling thread, and wait for the message that is leaving."""
        while True:
            with self._changed:
                self._free_at.clear()
                task = self._take(time.monotonic() + GAP_SECONDS)
            if task is None:
                break
            _send(task)
        with self._sending:
            pass

    def _take(self, now: float) -> str | None:
        """Remove what is due of one task, and return the task; None if nothing is."""
        for task, times in self._due.items():
            if times and max(times[0], self._free_at.get(task, 0.0)) <= now:
                while times and times[0] <= now:
                    self._known.discard((task, heapq.heappop(times)))
                self._free_at[task] = now + GAP_SECONDS
                return task
        return None

    def _seconds_left(self) -> float | None:
        """Return the seconds until the next message is due; None if there is none."""
        next_at = min(
            (max(times[0], self._free_at.get(task, 0.0)) for task, times in self._due.items() if times),
            default=None,
        )
        return None if next_at is None else max(0.0, next_at - time.monotonic())


_sender: _Sender | None = None
_starting = threading.Lock()


def nudge_soon(task: str, *, in_seconds: float = 0.0) -> None:
    """Send this task's message in so many seconds, from another thread. Never raises, never waits for it."""
    try:
        sender = _sender
        if sender is None or not sender.is_alive():
            sender = _start()
        sender.add(task, in_seconds)
    except RuntimeError as error:  # the system has no thread left, or the process ends: a sweep finds the row
        metrics.NUDGES_LOST.labels(task).inc()
        log.warning("[PAYOUT] nudge lost", task=task, error=type(error).__name__)


@atexit.register
def flush() -> None:
    """Send what is due now, from the calling thread. Runs when the process ends."""
    if _sender is not None:
        _sender.flush()


def _start() -> _Sender:
    global _sender  # noqa: PLW0603  one for each process
    with _starting:
        if _sender is None or not _sender.is_alive():
            sender = _Sender()
            sender.start()
            _sender = sender
        return _sender


def _forget() -> None:
    """Forget the parent's thread in a forked child. What it has to send, the parent sends."""
    global _sender, _starting  # noqa: PLW0603
    _sender = None
    _starting = threading.Lock()  # another of the parent's threads may have held it


os.register_at_fork(after_in_child=_forget)


def _send(task: str) -> None:
    try:
        messages.nudge_once(task)
    except Exception as error:  # the thread must go on; a sweep finds the rows
        metrics.NUDGES_LOST.labels(task).inc()
        log.warning("[PAYOUT] nudge lost", task=task, error=type(error).__name__)
