"""The wire to RazorpayX: every call bounded in time and size, and each ends in Answered or NoReply."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from shared.errors import Portable
from shared.razorpayx.answers import Reply

MAX_ANSWER_BYTES = 1024 * 1024  # a page of a hundred payouts is a tenth of this


class Answered(Portable):
    """The provider answered; carries the reply past the SDK, which would lose its status."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class NoReply(Portable):
    """The wire broke. `sent` is False only where no byte of the request can have left."""

    def __init__(self, cause: Exception, *, sent: bool) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.sent = sent


class _Line(threading.local):
    """The socket that this thread speaks over, so that a watchdog in another thread can hang up; and whom to
    tell when a request has been written to it.
    """

    def __init__(self) -> None:
        self.holder: dict[str, socket.socket | None] = {"socket": None}
        self.has_left: Callable[[], None] = lambda: None


_line = _Line()


class _Plain(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _line.holder["socket"] = self.sock

    def request(self, *arguments: Any, **named: Any) -> None:
        super().request(*arguments, **named)
        _line.has_left()


class _Secure(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _line.holder["socket"] = self.sock

    def request(self, *arguments: Any, **named: Any) -> None:
        super().request(*arguments, **named)
        _line.has_left()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


class Wire(requests.Session):
    """A session for one thread. requests bounds each read, which a peer that drips bytes can outlast."""

    def __init__(self, connect_seconds: float, read_seconds: float) -> None:
        super().__init__()
        self._seconds = connect_seconds + read_seconds
        self._bounds = {
            "timeout": (connect_seconds, read_seconds),
            "allow_redirects": False,  # a POST that follows one becomes a GET, and its 200 looks like success
            "stream": True,
        }
        self.trust_env = False  # no proxy, no .netrc: credentials go to RazorpayX and nowhere else
        self.mount("http://", _Adapter(max_retries=0))
        self.mount("https://", _Adapter(max_retries=0))

    def tell(self, has_left: Callable[[], None]) -> None:
        """Whom to tell, in this thread, when the next request has been written."""
        _line.has_left = has_left

    def request(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Do one call. Raises Answered or NoReply, always."""
        deadline = time.monotonic() + self._seconds
        watchdog = threading.Timer(self._seconds, _hang_up, [_line.holder])
        watchdog.daemon = True
        watchdog.start()
        try:
            with super().request(*args, **{**kwargs, **self._bounds}) as response:
                body = _read(response, deadline)
        except Exception as error:  # whatever a broken wire provokes in whichever library: we do not know
            raise NoReply(error, sent=not _never_left(error)) from error
        finally:
            watchdog.cancel()
        raise Answered(Reply(response.status_code, body, response.headers.get("Retry-After")))


def _hang_up(holder: dict[str, socket.socket | None]) -> None:
    line = holder["socket"]
    if line is not None:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            holder["socket"] = None  # it was closed already


def _read(response: requests.Response, deadline: float) -> bytes:
    """The body, unless it is too large or comes too late. Raises requests.RequestException."""
    body = b""
    for chunk in response.iter_content(65_536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise requests.RequestException("The answer is too large")
    if time.monotonic() > deadline:
        raise requests.Timeout("The answer came too slowly")
    return body


def _never_left(error: Exception) -> bool:
    """Whether there was no connection at all. A certificate problem or a reset is not that."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, (NewConnectionError, NameResolutionError))
