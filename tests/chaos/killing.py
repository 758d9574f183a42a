"""A child process that is killed (SIGKILL) before a line of our own code, and the list of such lines.

The child runs under a trace. The same line may begin many times; it is killed before the first or the last.
"""

import os
import pickle
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from shared import db

ROOT = Path(__file__).parents[2]

Line = tuple[str, int]


class Recorder:
    """Counts how often each line of these files begins."""

    def __init__(self, *parts: str) -> None:
        self.files = tuple(str(ROOT / part) for part in parts)
        self.seen: Counter[Line] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        """Every call in the child comes here, of every library: what is not ours is left at once."""
        return self.on_line if frame.f_code.co_filename.startswith(self.files) else None

    def on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.seen[frame.f_code.co_filename, frame.f_lineno] += 1
        return self.on_line


class Killer(Recorder):
    """Ends the process, without a word, before the line begins for the n-th time."""

    def __init__(self, line: Line, time: int) -> None:
        super().__init__(line[0])
        (self.file, self.number), self.left = line, time

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        return self.on_line if frame.f_code.co_filename == self.file else None

    def on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno == self.number:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.on_line


def in_child(work: Callable[[], object], trace: Recorder, told: Path | None = None) -> bool:
    """Do the work in a child under the trace; True when it lived to the end."""
    pid = os.fork()
    if pid == 0:
        # The parent's connections are its own: this process opens new ones.
        db.engine().dispose(close=False)
        sys.settrace(trace)
        threading.settrace(trace)
        try:
            work()
            if told:
                told.write_bytes(pickle.dumps(trace.seen))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status)


def moments(
    work: Callable[[], object], directory: Path, *parts: str, at_least: int = 100
) -> list[tuple[Line, int]]:
    """Every line of these files that the work goes through: its first time, and its last if there are more."""
    told = directory / "lines"
    assert in_child(work, Recorder(*parts), told)
    seen: Counter[Line] = pickle.loads(told.read_bytes())
    found = [(line, time) for line, times in seen.items() for time in sorted({1, times})]
    assert len(found) > at_least
    return found
