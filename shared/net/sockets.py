"""Connections to servers that are not ours: to one of several addresses, encrypted, and bounded in time."""

import heapq
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count

import certifi

from shared.net.addresses import Target

MAX_ADDRESSES = 3  # of one host name
MAX_ERROR_CHARACTERS = 200


class DeadlineExceeded(Exception):
    """The deadline has passed."""


def connect(target: Target, addresses: list[str], deadline: float, connect_seconds: float) -> socket.socket:
    """Connect to the first of these addresses that accepts. Raises OSError, DeadlineExceeded."""
    addresses = addresses[:MAX_ADDRESSES]
    for address in addresses[:-1]:
        with suppress(OSError):
            return _connect_to(address, target.port, deadline, connect_seconds)
    return _connect_to(addresses[-1], target.port, deadline, connect_seconds)


def wrap_tls(sock: socket.socket, host: str, deadline: float) -> socket.socket:
    """Encrypt the connection; the server's certificate must name `host`. Raises OSError, DeadlineExceeded."""
    sock.settimeout(seconds_left(deadline))  # bounds the handshake as a whole
    sock = tls_context().wrap_socket(sock, server_hostname=host)
    sock.settimeout(seconds_left(deadline))
    return sock


class _Watchdog(threading.Thread):
    """Shuts connections down at their deadlines: one thread for all calls of the process."""

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._calls: list[tuple[float, int, Callable[[], socket.socket | None]]] = []  # a heap
        self._running: set[int] = set()
        self._numbers = count()
        self._earlier = threading.Condition()

    def watch(self, deadline: float, get_socket: Callable[[], socket.socket | None]) -> int:
        """Watch a call until `forget` is called with the number that is returned."""
        with self._earlier:
            number = next(self._numbers)
            self._running.add(number)
            heapq.heappush(self._calls, (deadline, number, get_socket))
            if self._calls[0][1] == number:
                self._earlier.notify()
            return number

    def forget(self, number: int) -> None:
        """The call has ended. Afterwards its connection is not shut down: the next call may use it."""
        with self._earlier:
            self._running.discard(number)

    def run(self) -> None:
        """Watch, forever."""
        while True:
            with self._earlier:
                while self._calls and self._calls[0][1] not in self._running:
                    heapq.heappop(self._calls)
                seconds = self._calls[0][0] - time.monotonic() if self._calls else None
                if seconds is None or seconds > 0:
                    self._earlier.wait(seconds)
                    continue
                _, number, get_socket = heapq.heappop(self._calls)
                self._running.discard(number)
                _hang_up(get_socket())


@cache
def _watchdog() -> _Watchdog:
    watchdog = _Watchdog()
    watchdog.start()
    return watchdog


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_watchdog.cache_clear)


@contextmanager
def hang_up_at(deadline: float, get_socket: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Shut the connection down at the deadline: a peer that drips bytes outlasts the timeout of each read."""
    watchdog = _watchdog()
    number = watchdog.watch(deadline, get_socket)
    try:
        yield
    finally:
        watchdog.forget(number)


@cache
def tls_context() -> ssl.SSLContext:
    """Trust the machine's authorities (SSL_CERT_FILE names others) and certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def seconds_left(deadline: float) -> float:
    """Seconds until the deadline, by the monotonic clock. Raises DeadlineExceeded when it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise DeadlineExceeded
    return seconds


def describe_error(error: Exception) -> str:
    """A connection's error in a few words, safe to store and to print."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError) or not str(error):
        return f"no connection: {str(error) or type(error).__name__}"
    # The message may quote the server: PostgreSQL refuses NUL, and a terminal obeys escape sequences.
    message = str(error)[:MAX_ERROR_CHARACTERS].encode("ascii", "backslashreplace").decode()
    printable = "".join(character if character.isprintable() else "?" for character in message)
    return f"{type(error).__name__}: {printable}"[:MAX_ERROR_CHARACTERS]


def _connect_to(address: str, port: int, deadline: float, connect_seconds: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=min(connect_seconds, seconds_left(deadline)))


def _hang_up(sock: socket.socket | None) -> None:
    if sock is not None:
        with suppress(OSError):  # already closed
            # Not SSLSocket.shutdown, which would take the TLS state from the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
