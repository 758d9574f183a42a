"""Child processes that can be watched, killed and restarted, and that never outlive this process.

`Part.stop()` ends a part. If this process is killed, the kernel signals each child (PR_SET_PDEATHSIG, Linux).
Grandchildren (Celery's pool, Granian's workers) get no such signal, so the *keeper*, one small process per
parent, ends each process group when its pipe closes.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from sandbox.keeper import Keeper, family_of, is_running, signal_group, wait_until

LOG_TAIL_LINES = 30
STOP_SECONDS = 10.0  # a worker may be in a provider call, which is shorter than this
READY_SECONDS = 90.0  # for a busy laptop; after a kill, PostgreSQL replays its log before it answers
KILL_SECONDS = 5.0  # after SIGKILL the kernel needs milliseconds; more means a stuck disk

# Runs in the child before its program. Changing the user clears the request for a death signal, so it comes
# first; exec keeps the request and the pid. If the parent has died already, no signal comes: hence getppid.
# (A preexec_fn can deadlock, because it runs in a fork of a threaded process.)
GUARD = """
import ctypes, os, signal, sys
parent, death_signal, uid, gid = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death_signal, 0, 0, 0)
if os.getppid() != parent:
    sys.exit("the parent is gone")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
try:
    os.execvp(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"{sys.argv[5]}: {error}")
"""

User = tuple[int, int] | None  # (uid, gid); None: the current user


class PartFailed(RuntimeError):
    """A part did not start, was not ready in time, or ended by itself. The message has its name and log."""

    def __init__(self, name: str, reason: str, log: Path | None = None, tail: str = "") -> None:
        self.name = name
        self.reason = reason
        self.log = log
        self.tail = tail
        log_end = f"\n--- the end of {log.name}\n{tail or '(empty)'}" if log else ""
        super().__init__(f"{name}: {reason}{log_end}")


def guarded_command(argv: Sequence[str], death_signal: int = signal.SIGKILL, user: User = None) -> list[str]:
    """The command that runs `argv` tied to this process; root may run it as another `user`."""
    uid, gid = user or (-1, -1)
    ids = [str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
    return [sys.executable, "-I", "-S", "-c", GUARD, *ids, *argv]


class Part:
    """One child process, leader of its own session and group, with its output in one log file.

    `env` is the complete environment (None: this process's). `ready` returns True if the part is ready; it
    may raise OSError for "not yet". `stop_signal` requests an orderly end; `orphan_signal` is sent when this
    process dies. As a context manager, the part is started and ready inside the block and stopped after it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        log: Path | str | None = None,
        *,
        cwd: Path | str | None = None,
        ready: Callable[[], object] | None = None,
        ready_seconds: float = READY_SECONDS,
        stop_signal: int = signal.SIGTERM,
        stop_seconds: float = STOP_SECONDS,
        orphan_signal: int = signal.SIGKILL,
        user: User = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = env
        self.cwd = cwd
        self.log = Path(log) if log else None
        self.ready = ready
        self.ready_seconds = ready_seconds
        self.stop_signal = stop_signal
        self.stop_seconds = stop_seconds
        self.orphan_signal = orphan_signal
        self.user = user
        self.should_run = False  # started and not stopped on purpose: the stack restarts it
        self._process: subprocess.Popen[bytes] | None = None
        self._cleared = True  # nothing is left of the last process's group
        self._log_start = 0

    def start(self) -> None:
        """Start the process (a no-op while it runs). Does not wait until it is ready."""
        if not self.alive:
            self.kill()  # the rest of a group whose leader died by itself
            _spawner.submit(self._spawn).result()

    def _spawn(self) -> None:
        self.should_run = True
        log = self.log or Path(os.devnull)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                guarded_command(self.argv, self.orphan_signal, self.user),
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal reaches only this process
            )
        self._cleared = False
        _keeper.watch(self._process.pid, self.orphan_signal)

    @property
    def pid(self) -> int | None:
        """The process id of the running or last process; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal. None while it runs or before the first start."""
        return self._process.poll() if self._process else None

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit code. Raises PartFailed if it takes longer."""
        late = f"still running after {seconds:g} s"
        wait_until(lambda: self.returncode is not None, seconds, lambda: self.failure(late))
        return self.returncode or 0

    def is_answering(self, check: Callable[[], object] | None = None) -> bool:
        """True if it runs and `check`, by default its own, is true. Without a check, running is enough."""
        check = check or self.ready or (lambda: True)
        try:
            return self.alive and bool(check())
        except OSError:  # refused or reset: not yet
            return False

    def wait_ready(self, check: Callable[[], object] | None = None, seconds: float | None = None) -> None:
        """Wait until it is ready. Raises PartFailed when it dies, or after `seconds`."""
        seconds = self.ready_seconds if seconds is None else seconds
        late = f"not ready after {seconds:g} s"
        wait_until(lambda: self._must_run() and self.is_answering(check), seconds, lambda: self.failure(late))

    def _must_run(self) -> bool:
        if not self.alive:
            raise self.failure(f"ended with exit code {self.returncode} before it was ready")
        return True

    def failure(self, reason: str) -> PartFailed:
        """An error with this part's name and the end of its log."""
        return PartFailed(self.name, reason, self.log, self.log_tail())

    def log_text(self) -> str:
        """The process's output since its last start."""
        if not self.log or not self.log.exists():
            return ""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of its output since the last start."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def stop(self) -> None:
        """Stop the process in an orderly way and kill the rest of its group. A no-op if it has ended.

        Only the process itself gets the stop signal: Celery's pool and PostgreSQL's backends must be stopped
        by their own parent, or a task would be cut off in the middle.
        """
        with suppress(RuntimeError):  # when the interpreter exits, nothing is pending
            _spawner.submit(int).result()  # wait for an interrupted start() that may still create the process
        self.should_run = False
        self._end(self.stop_signal, self.stop_seconds)

    def kill(self) -> None:
        """Send SIGKILL to the process and all descendants, like a power cut, and wait until they
        have ended.
        """
        self._end(signal.SIGKILL, KILL_SECONDS)

    def restart(self) -> None:
        """Stop it if it runs, start it again and wait until it is ready. The pid changes."""
        Part.stop(self)
        self.start()
        self.wait_ready()

    def _end(self, first_signal: int, seconds: float) -> None:
        if self._process is None or self._cleared:
            return
        family = family_of(self._process.pid)
        if self.alive:
            self._process.send_signal(first_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        signal_group(self._process.pid, family, signal.SIGKILL)
        self._process.wait(KILL_SECONDS)
        wait_until(lambda: not any(map(is_running, family)), KILL_SECONDS)
        _keeper.unwatch(self._process.pid)
        self._cleared = True

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# PR_SET_PDEATHSIG fires when the *thread* that forked the child ends: a part restarted from a test's
# short-lived thread would die with it. So one thread that lasts as long as the process starts every child.
_spawner = ThreadPoolExecutor(1)
_keeper = Keeper()


def _after_fork() -> None:
    global _spawner, _keeper  # noqa: PLW0603  a fork has no threads and must not touch its parent's children
    _spawner = ThreadPoolExecutor(1)
    _keeper = Keeper()


os.register_at_fork(after_in_child=_after_fork)
