"""Ends what a dead parent leaves behind: one small process per parent, whose input closes when it dies.

Run by its path and not as a module of the package, so that it starts quickly and imports nothing of ours.
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

POLL_SECONDS = 0.03  # short against the fastest start (Redis, 0.03 s), long enough to cost nothing
KEEPER_SECONDS = 6.0  # PostgreSQL itself kills slow backends 5 s after SIGQUIT


def wait_until(
    check: Callable[[], object], seconds: float, late: Callable[[], Exception] | None = None
) -> None:
    """Polls `check` until it is true; after `seconds` raises `late()`, by default TimeoutError."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= deadline:
            raise late() if late else TimeoutError(f"not true after {seconds:g} s")
        time.sleep(POLL_SECONDS)


def family_of(pid: int) -> list[psutil.Process]:
    """The process and all below it; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def runs(process: psutil.Process) -> bool:
    """Whether it still holds anything; init may take seconds to bury an orphan that is dead."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def end_group(pid: int, family: Iterable[psutil.Process], signal_number: int) -> None:
    """Signals the group that `pid` leads, and those of its family that left the group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(pid, signal_number)
    for process in family:
        with suppress(psutil.Error):
            process.send_signal(signal_number)


class Keeper:
    """Our side of the keeper process; it lives from the first part started to the last one ended."""

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
            self._tell()

    def forget(self, pid: int) -> None:
        with self._lock:
            if self._watched.pop(pid, None) is None:
                return
            self._tell()
            if not self._watched and self._process:
                self._process.communicate()  # closes its input, so it ends
                self._process = None

    def _tell(self) -> None:
        assert self._process and self._process.stdin
        with suppress(BrokenPipeError):  # someone killed the keeper; the kernel's signal remains
            self._process.stdin.write(json.dumps(self._watched).encode() + b"\n")
            self._process.stdin.flush()


def keep() -> None:
    """The keeper: each line is {pid: signal}, all of them. Ends those groups when the input ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it must survive whatever ends the parent
    line = "{}"
    for line in sys.stdin:  # noqa: B007  only the last line matters
        pass
    watched = {int(pid): death for pid, death in json.loads(line).items()}
    families = {pid: family_of(pid) for pid in watched}
    for pid, death in watched.items():
        end_group(pid, [], death)
    with suppress(TimeoutError):
        wait_until(lambda: not any(map(runs, chain(*families.values()))), KEEPER_SECONDS)
    for pid, family in families.items():
        end_group(pid, family, signal.SIGKILL)


if __name__ == "__main__":
    keep()
