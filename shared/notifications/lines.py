"""Lines to servers that are not ours: opened to one of several addresses, encrypted, and ended in time."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import certifi

from shared.notifications.addresses import Target
from shared.settings import settings

MAX_ADDRESSES = 3
MAX_WORDS = 200  # of what went wrong


class TooSlow(Exception):
    """Time is up."""


def connected(target: Target, addresses: list[str], deadline: float) -> socket.socket:
    """A connection to the first of these addresses that takes one. Raises OSError, TooSlow."""
    addresses = addresses[:MAX_ADDRESSES]
    for address in addresses[:-1]:
        with suppress(OSError):
            return _connected_to(address, target.port, deadline)
    return _connected_to(addresses[-1], target.port, deadline)


def encrypted(line: socket.socket, host: str, deadline: float) -> socket.socket:
    """The line under TLS, to a server whose certificate says `host`. Raises OSError, TooSlow."""
    line.settimeout(left(deadline))  # a handshake is bounded by it as a whole
    line = trust().wrap_socket(line, server_hostname=host)
    line.settimeout(left(deadline))
    return line


@contextmanager
def hung_up_at(deadline: float, line: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Each read is bounded by itself, which a peer that drips bytes can outlast; this ends them all."""
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), lambda: _hang_up(line()))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


@cache
def trust() -> ssl.SSLContext:
    """Whose certificates count: the machine's authorities (SSL_CERT_FILE names others), and certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def left(deadline: float) -> float:
    """Seconds until then. Raises TooSlow when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TooSlow
    return seconds


def words(error: Exception) -> str:
    """What went wrong with a line, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not count: {error.verify_message}"
    if isinstance(error, TimeoutError) or not str(error):
        return f"no connection: {str(error) or type(error).__name__}"
    # It may quote the server: no NUL for the database, and nothing that a terminal obeys.
    said = str(error)[:MAX_WORDS].encode("ascii", "backslashreplace").decode()
    return f"{type(error).__name__}: {''.join(one if one.isprintable() else '?' for one in said)}"[:MAX_WORDS]


def _connected_to(address: str, port: int, deadline: float) -> socket.socket:
    patience = min(settings().notify_connect_seconds, left(deadline))
    return socket.create_connection((address, port), timeout=patience)


def _hang_up(line: socket.socket | None) -> None:
    if line is not None:
        with suppress(OSError):  # it was closed already
            socket.socket.shutdown(line, socket.SHUT_RDWR)  # under TLS too, without a word
