"""Child processes that can be watched, killed and restarted, and that never outlive us.

Parts end by `Part.stop()`. When we are killed, two things end them: the kernel signals each child
(PR_SET_PDEATHSIG, Linux), and for their own children (Celery's pool, Granian's workers), which that
does not reach, the *keeper*, one small process per parent, sees its pipe close and ends each group.
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

from sandbox.keeper import Keeper, end_group, family_of, runs, wait_until

LOG_TAIL_LINES = 30
STOP_SECONDS = 10.0  # a worker may have one provider call on the wire (bounded below this)
READY_SECONDS = 90.0  # a busy laptop; after a kill, PostgreSQL replays its log before it answers
KILL_SECONDS = 5.0  # after SIGKILL the kernel needs milliseconds; more means a stuck disk

# Runs in the child, before its program. Changing the user clears the request for a death signal, so
# it comes first; an exec keeps the request and the pid. The parent may be gone already, for which no
# signal comes: hence getppid. (A preexec_fn may deadlock: it runs in a fork of a threaded process.)
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

User = tuple[int, int] | None  # (uid, gid); None: the one we are


class PartFailed(RuntimeError):
    """A part did not start, was not ready in time, or ended by itself. Names it and shows its log."""

    def __init__(self, name: str, what: str, log: Path | None = None, tail: str = "") -> None:
        self.name, self.what, self.log, self.tail = name, what, log, tail
        where = f"\n--- the end of {log.name}\n{tail or '(empty)'}" if log else ""
        super().__init__(f"{name}: {what}{where}")


def guarded(argv: Sequence[str], death_signal: int = signal.SIGKILL, user: User = None) -> list[str]:
    """The command that runs `argv` tied to this process; as root, it may run as another `user`."""
    uid, gid = user or (-1, -1)
    ids = [str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
    return [sys.executable, "-I", "-S", "-c", GUARD, *ids, *argv]


class Part:
    """One child process, leader of its own session and group, with its output in one log file.

    `env` is the whole environment (None: ours). `ready` says whether the part answers; it may
    raise OSError for "not yet". `stop_signal` asks for an orderly end, `orphan_signal` is sent
    when this process dies. As a context manager: started and ready inside, stopped after.
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
        self.name, self.argv, self.env, self.cwd = name, list(argv), env, cwd
        self.log = Path(log) if log else None
        self.ready, self.ready_seconds = ready, ready_seconds
        self.stop_signal, self.stop_seconds = stop_signal, stop_seconds
        self.orphan_signal, self.user = orphan_signal, user
        self.wanted = False  # started and not stopped on purpose: a watcher restarts it
        self._process: subprocess.Popen[bytes] | None = None
        self._cleared = True  # nothing is left of the last process's group
        self._log_start = 0

    def start(self) -> None:
        """Starts the process (a no-op while it lives); does not wait for it to be ready."""
        if not self.alive:
            self.kill()  # what a process that died by itself left behind
            _spawner.submit(self._spawn).result()

    def _spawn(self) -> None:
        self.wanted = True
        log = self.log or Path(os.devnull)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                guarded(self.argv, self.orphan_signal, self.user),
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is ours to hand on
            )
        self._cleared = False
        _keeper.watch(self._process.pid, self.orphan_signal)

    @property
    def pid(self) -> int | None:
        """The process id of the running or last process; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs or before the first start."""
        return self._process.poll() if self._process else None

    def wait(self, seconds: float) -> int:
        """Waits for the end and returns the exit code. Raises PartFailed when it takes longer."""
        late = f"still runs after {seconds:g} s"
        wait_until(lambda: self.returncode is not None, seconds, lambda: self.failed(late))
        return self.returncode or 0

    def answers(self, check: Callable[[], object] | None = None) -> bool:
        """Whether it lives and `check` (default: its own) is true; without one, living is enough."""
        check = check or self.ready or (lambda: True)
        try:
            return self.alive and bool(check())
        except OSError:  # refused or reset: not yet
            return False

    def wait_ready(self, check: Callable[[], object] | None = None, seconds: float | None = None) -> None:
        """Waits until it answers. Raises PartFailed at once when it dies, or after `seconds`."""
        seconds = self.ready_seconds if seconds is None else seconds
        late = f"not ready after {seconds:g} s"
        wait_until(lambda: self._lives() and self.answers(check), seconds, lambda: self.failed(late))

    def _lives(self) -> bool:
        if not self.alive:
            raise self.failed(f"ended with exit code {self.returncode} before it was ready")
        return True

    def failed(self, what: str) -> PartFailed:
        """The error that names this part and shows the end of its log."""
        return PartFailed(self.name, what, self.log, self.log_tail())

    def log_text(self) -> str:
        """What the process wrote since its last start."""
        if not self.log or not self.log.exists():
            return ""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines since the last start."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def stop(self) -> None:
        """Ends the process in order and kills what is left of its group. A no-op when it is gone.

        The stop signal goes to the process alone: Celery's pool and PostgreSQL's backends must
        hear from their own parent, or a task dies half done where an orderly end was asked for.
        """
        with suppress(RuntimeError):  # at the end of the interpreter nothing is pending
            _spawner.submit(int).result()  # an interrupted start() may be about to create the process
        self.wanted = False
        self._end(self.stop_signal, self.stop_seconds)

    def kill(self) -> None:
        """SIGKILL to the process and everything below it, as a power cut would; waits until gone."""
        self._end(signal.SIGKILL, KILL_SECONDS)

    def restart(self) -> None:
        """Stops (if it lives), starts again, waits until ready. The pid changes."""
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
        end_group(self._process.pid, family, signal.SIGKILL)
        self._process.wait(KILL_SECONDS)
        wait_until(lambda: not any(map(runs, family)), KILL_SECONDS)
        _keeper.forget(self._process.pid)
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
# short-lived thread would die with it. So one thread that lasts as long as we do starts every child.
_spawner, _keeper = ThreadPoolExecutor(1), Keeper()


def _after_fork() -> None:
    global _spawner, _keeper  # a fork has no threads, and no say over its parent's children
    _spawner, _keeper = ThreadPoolExecutor(1), Keeper()


os.register_at_fork(after_in_child=_after_fork)
