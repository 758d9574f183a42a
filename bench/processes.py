"""CPU time and memory of groups of processes, as the kernel counts them (/proc)."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil

from sandbox.keeper import family_of

Pids = Mapping[
    str, Iterable[int]
]  # by kind: the processes that our stack started; their children belong to them


def cpu_seconds(pids: Pids) -> dict[str, float]:
    """CPU seconds of each kind of process so far, with those of children that have ended."""
    return {kind: sum(map(_cpu_seconds, _families(own))) for kind, own in pids.items()}


def memory_bytes(pids: Pids) -> dict[str, int]:
    """Resident bytes of the largest process of each kind."""
    return {kind: max(map(_memory_bytes, _families(own)), default=0) for kind, own in pids.items()}


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """Suspend these processes and their children in this block."""
    family = [process.pid for process in _families(pids)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(family):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def client_ports(pids: Pids) -> dict[int, str]:
    """The local TCP ports of each kind's connections: port -> kind."""
    ports: dict[int, str] = {}
    for kind, own in pids.items():
        for process in _families(own):
            with suppress(psutil.Error):
                ports.update(
                    (connection.laddr.port, kind)
                    for connection in process.net_connections("tcp")
                    if connection.raddr
                )
    return ports


def _families(pids: Iterable[int]) -> list[psutil.Process]:
    return [process for pid in pids for process in family_of(pid)]


def _cpu_seconds(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _memory_bytes(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
