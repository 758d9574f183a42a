"""Messages that leave from a thread of their own: requests do not wait for the broker, and a burst sends few.

A process that ends loses what it still had to send in the future; the sweep finds those rows.
"""

import atexit
import heapq
import os
import threading
import time

from shared.queues import messages

# Between two messages for the same task. One sweep finds everything that is due.
GAP_SECONDS = 0.1


class _Thread(threading.Thread):
    """Sends each task's message when it is due, at most one per GAP_SECONDS."""

    def __init__(self) -> None:
        super().__init__(name="nudges", daemon=True)
        self.pid = os.getpid()
        self._due: list[tuple[float, str]] = []  # a heap of times on the monotonic clock
        self._known: set[tuple[float, str]] = set()
        self._sent_at: dict[str, float] = {}
        self._changed = threading.Condition()

    def add(self, task: str, due_at: float) -> None:
        """Send this task's message at `due_at`, or a moment later with others."""
        entry = (-(-due_at // GAP_SECONDS) * GAP_SECONDS, task)
        with self._changed:
            if due_at <= time.monotonic():
                entry = (due_at, task)
            if entry not in self._known:
                self._known.add(entry)
                heapq.heappush(self._due, entry)
                self._changed.notify()

    def run(self) -> None:
        """Send in a loop, forever."""
        while True:
            with self._changed:
                while not self._due:
                    self._changed.wait()
                seconds = self._due[0][0] - time.monotonic()
                if seconds > 0:
                    self._changed.wait(seconds)
                    continue
                tasks = self._take_due()
            for task in tasks:
                messages.nudge_once(task)
                self._sent_at[task] = time.monotonic()

    def send_rest(self) -> None:
        """Send what is due now, however short ago the last message was."""
        with self._changed:
            tasks = self._take_due(gap_seconds=0.0)
        for task in tasks:
            messages.nudge_once(task)

    def _take_due(self, *, gap_seconds: float = GAP_SECONDS) -> set[str]:
        now = time.monotonic()
        tasks: set[str] = set()
        later: list[tuple[float, str]] = []
        while self._due and self._due[0][0] <= now:
            due_at, task = heapq.heappop(self._due)
            self._known.discard((due_at, task))
            free_at = self._sent_at.get(task, 0.0) + gap_seconds
            if free_at <= now:
                tasks.add(task)
            else:
                later.append((free_at, task))
        for entry in later:
            if entry[1] not in tasks and entry not in self._known:
                self._known.add(entry)
                heapq.heappush(self._due, entry)
        return tasks


_thread: _Thread | None = None
_starting = threading.Lock()


def nudge_soon(task: str, *, in_seconds: float = 0.0) -> None:
    """Send this task's message in so many seconds, from another thread. Never waits, never raises."""
    _running().add(task, time.monotonic() + in_seconds)


def _running() -> _Thread:
    global _thread  # noqa: PLW0603  one thread for each process
    with _starting:
        if _thread is None or _thread.pid != os.getpid() or not _thread.is_alive():
            _thread = _Thread()
            _thread.start()
        return _thread


@atexit.register
def flush() -> None:
    """Send what is due now, from the calling thread. Runs when the process ends."""
    if _thread is not None and _thread.pid == os.getpid():
        _thread.send_rest()
