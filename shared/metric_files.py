"""Where the processes of one API keep their counts, so that whichever of them is asked tells the sum.

prometheus-client keeps each process's counts in files of a directory (PROMETHEUS_MULTIPROC_DIR, which it
reads when it is imported) and adds them up at each scrape. It names the files by process id. We name them by
a *slot*, which a process holds by a lock for as long as it lives: the kernel frees it however the process
ends, and the next one takes the slot with its files and counts on. So a sum never falls when a process dies,
and however often processes die the files stay as many as there were processes at once.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from prometheus_client import values

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MOST_SLOTS = 1000
# Taken from the disk at once: a file with holes kills the process that writes into one when the disk is full.
# All our series need less than half of it, however many routes and statuses were seen.
KINDS, BYTES = ("counter", "histogram"), 1024 * 1024

_slot: tuple[int, int] | None = None  # its number, and the open file that holds it


def fresh_directory() -> Path | None:
    """An empty directory of this process's own, for it and its children; removes those of dead processes.

    It is named by the process id, which stays when the process goes on as another program. None when the
    machine's directory for such things cannot be used: then each process tells its own counts.
    """
    ours = Path(tempfile.gettempdir()) / f"coin-payouts-metrics-{os.getuid()}"
    try:
        ours.mkdir(mode=0o700, exist_ok=True)
        told = ours.lstat()
        if ours.is_symlink() or told.st_uid != os.getuid() or told.st_mode & 0o077:
            return None  # somebody else made it, and could read or change what is in it
        for old in ours.iterdir():
            if old.name == str(os.getpid()) or not _runs(old.name):
                shutil.rmtree(old, ignore_errors=True)
        mine = ours / str(os.getpid())
        mine.mkdir(mode=0o700)
        return mine
    except OSError:
        return None


def directory() -> Path | None:
    """The directory that is shared with other processes; None when there is none (any more)."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given and Path(given).is_dir() else None


def share() -> None:
    """Keep the counts that are made from now on in the shared directory, if this process was given one.

    Where that cannot be used (the disk is full), they stay in the process: nobody fails for want of counts.
    """
    if os.environ.get(VARIABLE):
        try:
            values.ValueClass = values.MultiProcessValue(process_identifier=slot)  # type: ignore[no-untyped-call]
        except OSError:
            values.ValueClass = values.MutexValue
            del os.environ[VARIABLE]


def slot() -> int:
    """The number of this process among those that share the directory; taken when it is first asked for."""
    global _slot  # noqa: PLW0603  one fact for the whole process
    if _slot is None:
        _slot = _taken(Path(os.environ[VARIABLE]))
    return _slot[0]


def _taken(shared: Path) -> tuple[int, int]:
    for number in range(1, MOST_SLOTS):
        held = os.open(shared / f"{number}.slot", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            continue
        for kind in KINDS:
            with (shared / f"{kind}_{number}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, BYTES)
        return number, held
    raise RuntimeError(f"more than {MOST_SLOTS} processes count in {shared}")


def _leave_to_the_parent() -> None:
    """A child of a fork counts in a slot of its own: its parent lives on in the one that it inherited."""
    global _slot  # noqa: PLW0603  one fact for the whole process
    if _slot is not None:
        os.close(_slot[1])
        _slot = None


def _runs(name: str) -> bool:
    try:
        os.kill(int(name), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True  # somebody else's process has the number now; the next start looks again
    return True


os.register_at_fork(after_in_child=_leave_to_the_parent)
