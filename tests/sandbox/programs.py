"""Python programs in their own process, and the processes that they leave behind."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from sandbox.processes import wait_until
from sandbox.stack import ROOT

MARK = "SANDBOX_TEST_MARK"  # inherited by every descendant, even a detached one
GONE_SECONDS = 10.0  # the keeper gives PostgreSQL 6 s


class Program:
    """A running Python program; `family()` is every living process that descends from it."""

    def __init__(self, source: str, *arguments: object, prefix: Sequence[str] = ()) -> None:
        self.mark = secrets.token_hex(8)
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", MARK: self.mark}
        command = [*prefix, sys.executable, "-c", source, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """The next line of its output. Fails with its stderr if it exits instead."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the program ended: {self.process.communicate()[1]}"
        return line.strip()

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal and wait. Returns the exit code and stderr."""
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=60)[1]
        return self.process.returncode, errors

    def family(self) -> list[psutil.Process]:
        processes = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    processes.append(process)
        return processes

    def assert_nothing_left(self, known: Sequence[psutil.Process] = ()) -> None:
        """`known` are processes that may hide their environment, as PostgreSQL's backends do."""
        wait_until(
            lambda: not self.family() and not any(map(lives, known)),
            GONE_SECONDS,
            lambda: AssertionError(f"left behind: {self.family()} {list(filter(lives, known))}"),
        )


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def running(source: str, *arguments: object, prefix: Sequence[str] = ()) -> Iterator[Program]:
    program = Program(source, *arguments, prefix=prefix)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.communicate()


def readable(path: Path) -> str:
    return path.read_text() if path.exists() else ""
