"""Ends connections on which no answer was sent for too long, whatever their callers do meanwhile.

granian bounds the time for a request's head, and not the time for its body or for taking an answer.
The kernel knows when we last sent something on a connection. That is enough: a request must have arrived and
been answered within `API_REQUEST_SECONDS`. It costs the caller the answer, as a lost connection would.
"""

import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import structlog

OPEN_FILES = Path("/proc/self/fd")
LOOKS = 10  # in the time that a request may take; so a connection lives a tenth longer at most
SHORTEST_SECONDS = 0.1  # between two looks
# struct tcp_info of Linux: eight bytes, then numbers of four bytes; the tenth is tcpi_last_data_sent, in ms.
LAST_SENT_AT, INFO_BYTES = 8 + 9 * 4, 104

log = structlog.get_logger()


class Watch(Thread):
    """Looks at this process's connections for as long as it lives."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(name="connections", daemon=True)
        self._port, self._seconds = port, seconds

    def start(self) -> None:
        """Begin, or say that it is not possible here."""
        if can_see():
            super().start()
        else:
            log.warning(
                "[API] slow bodies are not bounded in time",
                why="only Linux shows a process its connections",
                what_to_do="put a proxy before the API that reads whole bodies (docs/security.md)",
            )

    def run(self) -> None:
        """Never ends."""
        while True:
            time.sleep(max(SHORTEST_SECONDS, self._seconds / LOOKS))
            try:
                ended = sum(map(self._end, _of_this_process(self._port)))
            except OSError as error:  # no file may be opened just now: then the next look finds them
                log.error("[API] connections not looked at", error=str(error))
                continue
            if ended:
                log.warning("[API] connections ended", number=ended, unanswered_seconds=self._seconds)

    def _end(self, connection: socket.socket) -> bool:
        with connection, suppress(OSError):  # it may end by itself meanwhile
            if _unanswered_seconds(connection) > self._seconds:
                # What was not taken is thrown away, or the kernel would keep it until somebody takes it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
                return True
        return False


def can_see() -> bool:
    """Whether a process can look at its own connections here."""
    return OPEN_FILES.is_dir() and hasattr(socket, "TCP_INFO")


def _of_this_process(port: int) -> Iterator[socket.socket]:
    """A second handle for each connection that came in at the port: what granian has stays its own."""
    for path in OPEN_FILES.iterdir():
        number = int(path.name)
        with suppress(OSError):  # closed since
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                one = _copy_of(number)
                if _came_in(one, port):
                    yield one
                else:
                    one.close()


def _copy_of(number: int) -> socket.socket:
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # another file has the number by now
        os.close(copy)
        raise


def _came_in(one: socket.socket, port: int) -> bool:
    is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
    if not is_tcp or one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    return bool(one.getsockname()[1] == port)


def _unanswered_seconds(connection: socket.socket) -> float:
    """How long ago we last sent something; since it came in, where we never did."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
    return float(struct.unpack_from("I", info, LAST_SENT_AT)[0]) / 1000
