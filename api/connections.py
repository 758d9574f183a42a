"""Closes connections on which nothing was sent for too long, whatever the caller does.

granian limits the time for a request's headers, but not for its body or for reading the response. The kernel
knows when we last sent data on a connection, so a request must arrive and be answered within
`API_REQUEST_SECONDS`. The caller loses the response, as with a lost connection.
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
CHECKS_PER_TIMEOUT = 10  # so a connection is closed at most a tenth of the timeout late
MIN_INTERVAL_SECONDS = 0.1  # between two checks
# struct tcp_info of Linux: 8 bytes, then 32-bit numbers; the tenth is tcpi_last_data_sent, in ms.
LAST_SENT_OFFSET_BYTES = 8 + 9 * 4
TCP_INFO_BYTES = 104

log = structlog.get_logger()


class ConnectionWatch(Thread):
    """Checks this process's connections while the process runs."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(name="connections", daemon=True)
        self._port = port
        self._seconds = seconds

    def start(self) -> None:
        """Start, or log that this platform does not support it."""
        if is_supported():
            super().start()
        else:
            log.warning(
                "[API] slow requests are not limited in time",
                why="only Linux shows a process its connections",
                what_to_do="put a proxy in front of the API that buffers request bodies (docs/security.md)",
            )

    def run(self) -> None:
        """Check in a loop, forever."""
        while True:
            time.sleep(max(MIN_INTERVAL_SECONDS, self._seconds / CHECKS_PER_TIMEOUT))
            try:
                closed = sum(map(self._close_if_late, _inbound_connections(self._port)))
            except OSError as error:  # no file descriptor is free now: the next check finds them
                log.error("[API] connections not checked", error=str(error))
                continue
            if closed:
                log.warning("[API] connections closed", number=closed, unanswered_seconds=self._seconds)

    def _close_if_late(self, connection: socket.socket) -> bool:
        with connection, suppress(OSError):  # the caller may close it meanwhile
            if _unanswered_seconds(connection) > self._seconds:
                # Discard unsent data: the kernel would keep it until the caller reads it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
                return True
        return False


def is_supported() -> bool:
    """True if a process can inspect its own connections on this platform."""
    return OPEN_FILES.is_dir() and hasattr(socket, "TCP_INFO")


def _inbound_connections(port: int) -> Iterator[socket.socket]:
    """Yield a second handle for each connection to the port; granian keeps its own."""
    for path in OPEN_FILES.iterdir():
        number = int(path.name)
        with suppress(OSError):  # it was closed meanwhile
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                connection = _duplicate(number)
                if _is_inbound(connection, port):
                    yield connection
                else:
                    connection.close()


def _duplicate(number: int) -> socket.socket:
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # the number belongs to another file by now
        os.close(copy)
        raise


def _is_inbound(connection: socket.socket, port: int) -> bool:
    is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
    if not is_tcp or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    return bool(connection.getsockname()[1] == port)


def _unanswered_seconds(connection: socket.socket) -> float:
    """Return the seconds since we last sent data, or since the connection was opened."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return float(struct.unpack_from("I", info, LAST_SENT_OFFSET_BYTES)[0]) / 1000
