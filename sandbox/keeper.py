"""The keeper: a small process per parent that ends the parent's children when the parent dies.

Its input closes when the parent dies. It runs by its path, not as a module of the package, so that it starts
quickly and imports none of our code.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain

import psutil

POLL_SECONDS = 0.03  # about the fastest start (Redis), and long enough to cost nothing
KEEPER_SECONDS = 6.0  # PostgreSQL kills slow backends 5 s after SIGQUIT


def wait_until(
    check: Callable[[], object], seconds: float, late: Callable[[], Exception] | None = None
) -> None:
    """Poll `check` until it is true. After `seconds`, raise `late()`, by default TimeoutError."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= deadline:
            raise late() if late else TimeoutError(f"not true after {seconds:g} s")
        time.sleep(POLL_SECONDS)


def family_of(pid: int) -> list[psutil.Process]:
    """The process and all of its descendants. Empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def is_running(process: psutil.Process) -> bool:
    """True unless it has ended. A zombie counts as ended, because init may take seconds to reap it."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def signal_group(pid: int, family: Iterable[psutil.Process], signal_number: int) -> None:
    """Signal the group that `pid` leads, and members of its family that left the group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(pid, signal_number)
    for process in family:
        with suppress(psutil.Error):
            process.send_signal(signal_number)


class Keeper:
    """The parent's side of the keeper process, which runs from the first part's start to the last
    one's end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int, orphan_signal: int) -> None:
        with self._lock:
            self._watched[pid] = int(orphan_signal)
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", __file__], stdin=subprocess.PIPE, start_new_session=True
                )
            self._send()

    def unwatch(self, pid: int) -> None:
        with self._lock:
            if self._watched.pop(pid, None) is None:
                return
            self._send()
            if not self._watched and self._process:
                self._process.communicate()  # closes its input, so it ends
                self._process = None

    def _send(self) -> None:
        assert self._process and self._process.stdin
        with suppress(BrokenPipeError):  # the keeper was killed; the kernel's signal still works
            self._process.stdin.write(json.dumps(self._watched).encode() + b"\n")
            self._process.stdin.flush()


def main() -> None:
    """Run the keeper. Each input line is the complete {pid: signal}. It ends these groups when its input
    ends.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the keeper must survive the signal that ends the parent
    line = "{}"
    for line in sys.stdin:  # noqa: B007  only the last line matters
        pass
    watched = {int(pid): orphan_signal for pid, orphan_signal in json.loads(line).items()}
    families = {pid: family_of(pid) for pid in watched}
    for pid, orphan_signal in watched.items():
        signal_group(pid, [], orphan_signal)
    with suppress(TimeoutError):
        wait_until(lambda: not any(map(is_running, chain(*families.values()))), KEEPER_SECONDS)
    for pid, family in families.items():
        signal_group(pid, family, signal.SIGKILL)


if __name__ == "__main__":
    main()
