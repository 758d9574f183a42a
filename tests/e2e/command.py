"""`payouts …` as its own process, as a person in a terminal runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sandbox.processes import wait_until
from sandbox.stack import ROOT

END_SECONDS = 30  # every part may finish its work


class Command:
    """A running command with its output in a file."""

    def __init__(self, *arguments: str, output: Path, env: dict[str, str] | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAZORPAYX_")}
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                cwd=ROOT,
                env=clean | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """Its output so far."""
        return self._output.read_text()

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def wait_for(self, path_or_text: Path | str, seconds: float) -> None:
        """Wait until the file exists or the output has the text; fails at once if the command ends before."""
        wait_until(
            lambda: self._has(path_or_text) or self._process.poll() is not None,
            seconds,
            lambda: AssertionError(f"no {path_or_text} after {seconds} s: {self.text()}"),
        )
        assert self._has(path_or_text), self.text()

    def _has(self, path_or_text: Path | str) -> bool:
        if isinstance(path_or_text, Path):
            return path_or_text.exists()
        return path_or_text in self.text()

    def wait(self, seconds: float) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait(seconds)

    def end(self, number: int) -> int:
        """Send a signal, wait for the end and assert that no process is left; returns the exit code."""
        family = self.family()
        self._process.send_signal(number)
        code = self._process.wait(END_SECONDS)
        left = [process for process in family if is_running(process)]
        assert not left, f"left behind: {left}"
        return code

    def abandon(self) -> None:
        """Clean up after a failed test. The keeper of the sandbox ends the descendants."""
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


def is_running(process: psutil.Process) -> bool:
    """True if this process runs: not a zombie, and not another process with its id."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
