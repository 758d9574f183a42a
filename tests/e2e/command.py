"""`payouts …` as a process of its own, as somebody in a terminal runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sandbox.processes import wait_until
from sandbox.stack import ROOT

END_SECONDS = 30  # every part gets its seconds to finish what it holds


class Command:
    """A running command with its output in a file."""

    def __init__(self, *arguments: str, output: Path, env: dict[str, str] | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAZORPAYX_")}
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shared.cli", *arguments],
                cwd=ROOT,
                env=clean | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """All that it wrote so far."""
        return self._output.read_text()

    def family(self) -> list[psutil.Process]:
        """It and every process below it."""
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def wait_for(self, path_or_text: Path | str, seconds: float) -> None:
        """Until the file exists or the text was written; fails at once when the command ends before."""
        wait_until(
            lambda: self._has(path_or_text) or self._process.poll() is not None,
            seconds,
            lambda: AssertionError(f"no {path_or_text} after {seconds} s: {self.said()}"),
        )
        assert self._has(path_or_text), self.said()

    def _has(self, path_or_text: Path | str) -> bool:
        if isinstance(path_or_text, Path):
            return path_or_text.exists()
        return path_or_text in self.said()

    def code(self, seconds: float) -> int:
        """Waits for its end: the exit code."""
        return self._process.wait(seconds)

    def end(self, number: int) -> int:
        """Sends a signal and waits for the end; no process may be left. The exit code."""
        family = self.family()
        self._process.send_signal(number)
        code = self._process.wait(END_SECONDS)
        left = [process for process in family if lives(process)]
        assert not left, f"left behind: {left}"
        return code

    def abandon(self) -> None:
        """For a test that fails half-way. The sandbox's keeper ends what is below."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(END_SECONDS)


@contextmanager
def running(*arguments: str, output: Path, env: dict[str, str] | None = None) -> Iterator[Command]:
    command = Command(*arguments, output=output, env=env)
    try:
        yield command
    finally:
        command.abandon()


def lives(process: psutil.Process) -> bool:
    """Whether it runs, and not another that got its id; one that waits to be buried does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
