"""Slots of which a process has a fixed number. threading's semaphore costs more, and keeps no order."""

from _thread import LockType, allocate_lock
from collections import deque
from types import TracebackType


class Slots:
    """Slots that threads take and give back, in the order in which they came. As a context manager it waits.

    Who gave one back for a moment gets the next that is free: they have begun, and others have not.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[LockType] = deque()  # each waits for its lock, which `release` opens
        self._lock = allocate_lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take a slot; False if none is free and we do not wait for one."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            if not blocking:
                return False
            waiter = _closed_lock()
            self._waiting.append(waiter)
        waiter.acquire()
        return True

    def acquire_again(self) -> None:
        """Wait for a slot, before all who call `acquire`."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            waiter = _closed_lock()
            self._waiting.appendleft(waiter)
        waiter.acquire()

    def release(self) -> None:
        """Give a slot back: to the next who waits, if anyone does."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _closed_lock() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock
