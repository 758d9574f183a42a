"""The metric files that the API's processes share, so that each process can report the sum of all.

prometheus-client keeps each process's counts in files of a directory (PROMETHEUS_MULTIPROC_DIR, which it
reads at import) and adds them up at each scrape. It names the files by process id. We name them by a *slot*,
which a process locks while it lives. The kernel frees the lock however the process ends, and the next process
takes the slot and continues its counts. So sums never fall when a process dies, and the number of files stays
the number of processes that ran at once.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from prometheus_client import values

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MAX_SLOTS = 1000
# Allocated at once: on a full disk, writing into a hole of a sparse file kills the process.
# All our series together need less than half of it.
FILE_KINDS = ("counter", "histogram")
FILE_BYTES = 1024 * 1024

_slot: tuple[int, int] | None = None  # the number, and the file descriptor that holds the lock


def fresh_directory() -> Path | None:
    """Create an empty directory for this process and its children; remove those of dead processes.

    It is named by the process id, which survives exec. Returns None if the temporary directory is not usable:
    then each process reports its own counts.
    """
    parent = Path(tempfile.gettempdir()) / f"coin-payouts-metrics-{os.getuid()}"
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        status = parent.lstat()
        if parent.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            return None  # another user created it, and could read or change its files
        for old in parent.iterdir():
            if old.name == str(os.getpid()) or not _is_running(old.name):
                shutil.rmtree(old, ignore_errors=True)
        own = parent / str(os.getpid())
        own.mkdir(mode=0o700)
        return own
    except OSError:
        return None


def directory() -> Path | None:
    """Return the directory shared with other processes, or None if there is none (any more)."""
    path = os.environ.get(DIRECTORY_VARIABLE)
    return Path(path) if path and Path(path).is_dir() else None


def share() -> None:
    """Store counts in the shared directory from now on, if this process has one.

    If it is not usable (the disk is full), the counts stay in the process: missing metrics stop nothing.
    """
    if os.environ.get(DIRECTORY_VARIABLE):
        try:
            values.ValueClass = values.MultiProcessValue(process_identifier=slot)  # type: ignore[no-untyped-call]
        except OSError:
            values.ValueClass = values.MutexValue
            del os.environ[DIRECTORY_VARIABLE]


def slot() -> int:
    """Return this process's slot in the shared directory; the first call acquires it."""
    global _slot  # noqa: PLW0603  one fact for the whole process
    if _slot is None:
        _slot = _acquire_slot(Path(os.environ[DIRECTORY_VARIABLE]))
    return _slot[0]


def _acquire_slot(directory: Path) -> tuple[int, int]:
    for number in range(1, MAX_SLOTS):
        lock = os.open(directory / f"{number}.slot", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        for kind in FILE_KINDS:
            with (directory / f"{kind}_{number}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        return number, lock
    raise RuntimeError(f"more than {MAX_SLOTS} processes use {directory}")


def _release_inherited_slot() -> None:
    """Close the parent's slot in a forked child: the child acquires its own."""
    global _slot  # noqa: PLW0603  one fact for the whole process
    if _slot is not None:
        os.close(_slot[1])
        _slot = None


def _is_running(name: str) -> bool:
    try:
        os.kill(int(name), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True  # another user's process has this id now: the next start checks again
    return True


os.register_at_fork(after_in_child=_release_inherited_slot)
