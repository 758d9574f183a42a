"""Kills a child process (SIGKILL) before a line of our own code, and lists such lines.

The child runs under a trace. A line may run many times; the child is killed before its first or last time.
"""

import os
import pickle
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from shared.db.engines import engine
from tests.support import tiers
from tests.support.paths import ROOT, files

T = TypeVar("T")
Line = tuple[str, int]
Moment = tuple[Line, int]
# Of outbox.py: a process that is killed here has sent a message and not recorded it.
BEFORE_THE_RECORD = "record(message, result)"


class Recorder:
    """Counts how often each line of these files runs."""

    def __init__(self, *parts: str) -> None:
        files(*parts)  # each part must match a file
        self.files = tuple(str(ROOT / part) for part in parts)
        self.seen: Counter[Line] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        """Called for every call in the child, in every library: do not trace foreign code."""
        return self.on_line if frame.f_code.co_filename.startswith(self.files) else None

    def on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.seen[frame.f_code.co_filename, frame.f_lineno] += 1
        return self.on_line


class Killer(Recorder):
    """Kills the process before the line runs for the n-th time."""

    def __init__(self, line: Line, time: int) -> None:
        super().__init__()
        self.file, self.number = line
        self.left = time

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        return self.on_line if frame.f_code.co_filename == self.file else None

    def on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno == self.number:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.on_line


def in_child(work: Callable[[], object], trace: Recorder, seen_file: Path | None = None) -> bool:
    """Do the work in a child under the trace; True if the child survived to the end."""
    pid = os.fork()
    if pid == 0:
        # Do not use the parent's connections: open new ones.
        engine().dispose(close=False)
        sys.settrace(trace)
        threading.settrace(trace)
        try:
            work()
            if seen_file:
                seen_file.write_bytes(pickle.dumps(trace.seen))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status)


def kill_at(moment: Moment, create: Callable[[], T], work: Callable[[T], object]) -> tuple[list[T], bool]:
    """Kill a child at the moment; return what the children worked on, and whether even the last survived.

    How often a line runs differs between runs: answers arrive together or one by one, a wait is long or short.
    So if a child ends before the line has run so many times, the next is killed at half as many.
    """
    line, time = moment
    created: list[T] = []
    survived = True
    while survived and time:
        created.append(create())
        survived = in_child(partial(work, created[-1]), Killer(line, time))
        time //= 2
    return created, survived


def moments(
    work: Callable[[], object], directory: Path, *parts: str, at_least: int = 100, always: str = ""
) -> list[Moment]:
    """Every line of these files that the work runs: its first time, and its last if there are several.

    A run that includes only a share of them includes the line whose text is `always`.
    """
    seen_file = directory / "lines"
    assert in_child(work, Recorder(*parts), seen_file)
    seen: Counter[Line] = pickle.loads(seen_file.read_bytes())
    for part in parts:
        assert any(file.startswith(str(ROOT / part)) for file, _ in seen), f"the work runs no line of {part}"
    lines = [(line, time) for line, times in seen.items() for time in sorted({1, times})]
    assert len(lines) > at_least
    chosen = tiers.cases_of_this_run(lines)
    required = [moment for moment in lines if always and getline(*moment[0]).strip() == always]
    assert required or not always, f"the work runs no line {always}"
    return chosen + [moment for moment in required if moment not in chosen]
