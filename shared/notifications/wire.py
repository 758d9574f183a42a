"""The wire to an app's server: one POST, bounded in time and size, to an address that was looked at.

No redirect is followed, no proxy asked, and nothing of an answer believed but its status.
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
from shared.notifications import lines
from shared.notifications.addresses import NotPublic, Target, look_up, parse
from shared.settings import settings

# What comes behind the status is not used. A little is taken, so that nobody is cut off in mid-word.
GLANCE_BYTES, GLANCE_SECONDS = 4096, 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one try. `error` says in a few words why it does not count; None: it was taken."""

    error: str | None
    http_status: int | None = None
    retry_after_seconds: float | None = None


def post(url: str, body: bytes, headers: dict[str, str], *, allow_private: bool) -> Told:
    """Deliver it, within NOTIFY_ANSWER_SECONDS. Raises nothing for the wire."""
    deadline = time.monotonic() + settings().notify_answer_seconds
    try:
        return _post(parse(url, allow_private=allow_private), body, headers, deadline, allow_private)
    except BadRequest as error:
        return Told(f"refused: {error.details}")
    except NotPublic as error:
        return Told(f"refused: {error}")
    except lines.TooSlow:
        return Told(_too_slow())
    except (OSError, HTTPException, ValueError) as error:
        # Whoever hung up, we ourselves perhaps: because time was up.
        return Told(_too_slow() if time.monotonic() >= deadline else lines.words(error))


def _post(target: Target, body: bytes, headers: dict[str, str], deadline: float, allow_private: bool) -> Told:
    patience = min(settings().notify_connect_seconds, lines.left(deadline))
    addresses = look_up(target, allow_private=allow_private, seconds=patience)
    with _connected(target, addresses, deadline) as line, lines.hung_up_at(deadline, lambda: line):
        connection = (HTTPSConnection if target.is_secure else HTTPConnection)(target.host, target.port)
        connection.sock = line
        # The name goes into Host; the socket is there already, and nothing is looked up again.
        connection.request("POST", target.path, body, headers | {"Connection": "close"})
        response = connection.getresponse()
        lines.left(deadline)  # what we cut off ourselves may look like an answer
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
    line = lines.connected(target, addresses, deadline)
    try:
        if target.is_secure:
            line = lines.encrypted(line, target.host, deadline)
        line.settimeout(lines.left(deadline))
        yield line
    finally:
        line.close()


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
