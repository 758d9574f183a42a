"""The wire to an app's server: one POST, bounded in time and size, to an address that was looked at.

No redirect is followed, no proxy asked, and nothing of an answer believed but its status.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

import certifi

from shared.errors import BadRequest
from shared.notifications.addresses import NotPublic, Target, look_up, parse
from shared.settings import settings

MAX_ADDRESSES = 3
# What comes behind the status is not used. A little is taken, so that nobody is cut off in mid-word.
GLANCE_BYTES, GLANCE_SECONDS = 4096, 0.5
MAX_WORDS = 200  # of what went wrong


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one try. `error` says in a few words why it does not count; None: it was taken."""

    error: str | None
    http_status: int | None = None
    retry_after_seconds: float | None = None


class _TooSlow(Exception):
    """Time is up."""


def post(url: str, body: bytes, headers: dict[str, str], *, allow_private: bool) -> Told:
    """Deliver it, within NOTIFY_ANSWER_SECONDS. Raises nothing for the wire."""
    deadline = time.monotonic() + settings().notify_answer_seconds
    try:
        return _post(parse(url, allow_private=allow_private), body, headers, deadline, allow_private)
    except BadRequest as error:
        return Told(f"refused: {error.details}")
    except NotPublic as error:
        return Told(f"refused: {error}")
    except _TooSlow:
        return Told(_too_slow())
    except (OSError, HTTPException, ValueError) as error:
        # Whoever hung up, we ourselves perhaps: because time was up.
        return Told(_too_slow() if time.monotonic() >= deadline else _words(error))


def _post(target: Target, body: bytes, headers: dict[str, str], deadline: float, allow_private: bool) -> Told:
    patience = min(settings().notify_connect_seconds, _left(deadline))
    addresses = look_up(target, allow_private=allow_private, seconds=patience)
    with _connected(target, addresses, deadline) as line, _hung_up_at(deadline, line):
        connection = (HTTPSConnection if target.is_secure else HTTPConnection)(target.host, target.port)
        connection.sock = line
        # The name goes into Host; the socket is there already, and nothing is looked up again.
        connection.request("POST", target.path, body, headers | {"Connection": "close"})
        response = connection.getresponse()
        _left(deadline)  # what we cut off ourselves may look like an answer
        told = _told(response)
        line.settimeout(GLANCE_SECONDS)
        with suppress(OSError, HTTPException, ValueError):
            response.read1(GLANCE_BYTES)
        return told


def _told(response: HTTPResponse) -> Told:
    status = response.status
    if 200 <= status < 300:
        return Told(None, status)
    words = f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else "")
    return Told(words, status, _seconds_of(response.getheader("Retry-After")))


@contextmanager
def _connected(target: Target, addresses: list[str], deadline: float) -> Iterator[socket.socket]:
    line = _connect(target, addresses[:MAX_ADDRESSES], deadline)
    try:
        if target.is_secure:
            # A handshake is bounded as a whole by the socket's timeout.
            line.settimeout(_left(deadline))
            line = _trust().wrap_socket(line, server_hostname=target.host)
        line.settimeout(_left(deadline))
        yield line
    finally:
        line.close()


def _connect(target: Target, addresses: list[str], deadline: float) -> socket.socket:
    """A connection to the first of these addresses that takes one."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return _connect_to(address, target.port, deadline)
    return _connect_to(addresses[-1], target.port, deadline)


def _connect_to(address: str, port: int, deadline: float) -> socket.socket:
    patience = min(settings().notify_connect_seconds, _left(deadline))
    return socket.create_connection((address, port), timeout=patience)


@contextmanager
def _hung_up_at(deadline: float, line: socket.socket) -> Iterator[None]:
    """Each read is bounded by itself, which a peer that drips bytes can outlast; this ends them all."""
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [line])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):  # it was closed already
        socket.socket.shutdown(line, socket.SHUT_RDWR)  # under TLS too, without a word


@cache
def _trust() -> ssl.SSLContext:
    """Whose certificates count: the machine's authorities (SSL_CERT_FILE names others), and certifi's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _TooSlow
    return left


def _seconds_of(retry_after: str | None) -> float | None:
    """Retry-After in seconds from now: a number, or a date (RFC 9110 §10.2.3); None when it is neither."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):  # OverflowError: a year or a zone beyond all bounds
        return None


def _too_slow() -> str:
    return f"no answer within {settings().notify_answer_seconds:g} s"


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not count: {error.verify_message}"
    if isinstance(error, TimeoutError) or not str(error):
        return f"no connection: {str(error) or type(error).__name__}"
    # It may quote the server: no NUL for the database, and nothing that a terminal obeys.
    said = str(error)[:MAX_WORDS].encode("ascii", "backslashreplace").decode()
    return f"{type(error).__name__}: {''.join(one if one.isprintable() else '?' for one in said)}"[:MAX_WORDS]
