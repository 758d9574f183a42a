"""The request to an app's server: one POST, bounded in time and size, to an address that was checked.

It follows no redirect, uses no proxy, and trusts nothing in the response but its status.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

from shared.errors import BadRequest
from shared.net import sockets
from shared.net.addresses import NotPublic, Target, parse_url, resolve
from shared.notifications import outbox
from shared.settings import settings

# The response's body is not used. Reading a little of it lets most servers finish before we hang up.
DRAIN_BYTES = 4096
DRAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SendResult(outbox.SendResult):
    """The result of one POST."""

    http_status: int | None = None
    retry_after_seconds: float | None = None


def post(url: str, body: bytes, headers: dict[str, str], *, allow_private: bool) -> SendResult:
    """Deliver it within NOTIFY_ANSWER_SECONDS. Network errors become a result, not an exception."""
    deadline = time.monotonic() + settings().notify_answer_seconds
    try:
        return _post(parse_url(url, allow_private=allow_private), body, headers, deadline, allow_private)
    except BadRequest as error:
        return SendResult(f"refused: {error.details}")
    except NotPublic as error:
        return SendResult(f"refused: {error}")
    except sockets.DeadlineExceeded:
        return SendResult(_timeout_error())
    except (OSError, HTTPException, ValueError) as error:
        # After the deadline it was most likely our own watchdog that hung up.
        has_timed_out = time.monotonic() >= deadline
        return SendResult(_timeout_error() if has_timed_out else sockets.describe_error(error))


def _post(
    target: Target, body: bytes, headers: dict[str, str], deadline: float, allow_private: bool
) -> SendResult:
    resolve_seconds = min(settings().notify_connect_seconds, sockets.seconds_left(deadline))
    addresses = resolve(target, allow_private=allow_private, seconds=resolve_seconds)
    with _open_connection(target, addresses, deadline) as sock, sockets.hang_up_at(deadline, lambda: sock):
        connection = (HTTPSConnection if target.is_secure else HTTPConnection)(target.host, target.port)
        connection.sock = sock
        # The host name goes into the Host header only; the socket is connected, so nothing resolves it again.
        connection.request("POST", target.path, body, headers | {"Connection": "close"})
        response = connection.getresponse()
        sockets.seconds_left(deadline)  # raises: a response that our watchdog cut off may look whole
        result = _to_result(response)
        sock.settimeout(DRAIN_SECONDS)
        with suppress(OSError, HTTPException, ValueError):
            response.read1(DRAIN_BYTES)
        return result


def _to_result(response: HTTPResponse) -> SendResult:
    status = response.status
    if 200 <= status < 300:
        return SendResult(None, status)
    error = f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else "")
    return SendResult(error, status, _parse_retry_after(response.getheader("Retry-After")))


@contextmanager
def _open_connection(target: Target, addresses: list[str], deadline: float) -> Iterator[socket.socket]:
    sock = sockets.connect(target, addresses, deadline, settings().notify_connect_seconds)
    try:
        if target.is_secure:
            sock = sockets.wrap_tls(sock, target.host, deadline)
        sock.settimeout(sockets.seconds_left(deadline))
        yield sock
    finally:
        sock.close()


def _parse_retry_after(retry_after: str | None) -> float | None:
    """Retry-After in seconds from now: a number or a date (RFC 9110 §10.2.3); None if it is neither."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):  # OverflowError: a year or a time zone out of range
        return None


def _timeout_error() -> str:
    return f"no answer within {settings().notify_answer_seconds:g} s"
