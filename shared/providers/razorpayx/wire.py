"""The wire to RazorpayX: every call is limited in time and size, and ends in Answered or NoReply."""

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
from shared.net import sockets
from shared.providers.razorpayx.answers import Reply

MAX_ANSWER_BYTES = 1024 * 1024  # a page of a hundred payouts is a tenth of this


class Answered(Portable):
    """The provider answered; carries the reply past the SDK, which would lose its status."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class NoReply(Portable):
    """The wire broke. `sent` is False only if no byte of the request can have left."""

    def __init__(self, cause: Exception, *, sent: bool) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.sent = sent


class _Connection(threading.local):
    """This thread's socket, so that a watchdog in another thread can close it, and the callback that runs
    when a request is written to it.
    """

    def __init__(self) -> None:
        self.holder: dict[str, socket.socket | None] = {"socket": None}
        self.on_sent: Callable[[], None] = lambda: None


_connection = _Connection()


class _Plain(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _connection.holder["socket"] = self.sock

    def request(self, *arguments: Any, **named: Any) -> None:
        super().request(*arguments, **named)
        _connection.on_sent()


class _Secure(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _connection.holder["socket"] = self.sock

    def request(self, *arguments: Any, **named: Any) -> None:
        super().request(*arguments, **named)
        _connection.on_sent()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


class Wire(requests.Session):
    """A session for one thread. requests limits each read only, so a peer that sends one byte at a time could
    occupy the thread for ever.
    """

    def __init__(self, connect_seconds: float, read_seconds: float) -> None:
        super().__init__()
        self._seconds = connect_seconds + read_seconds
        self._limits = {
            "timeout": (connect_seconds, read_seconds),
            "allow_redirects": False,  # a POST that follows one becomes a GET, and its 200 looks like success
            "stream": True,
        }
        self.trust_env = False  # no proxy, no .netrc: credentials go to RazorpayX and nowhere else
        self.mount("http://", _Adapter(max_retries=0))
        self.mount("https://", _Adapter(max_retries=0))

    def on_sent(self, callback: Callable[[], None]) -> None:
        """Run `callback` in this thread when the next request is written."""
        _connection.on_sent = callback

    def request(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Make one call. Always raises Answered or NoReply."""
        deadline = time.monotonic() + self._seconds
        holder = _connection.holder  # read here: the watchdog runs in another thread
        with sockets.hang_up_at(deadline, lambda: holder["socket"]):
            try:
                with super().request(*args, **{**kwargs, **self._limits}) as response:
                    body = _read(response, deadline)
            except Exception as error:  # any error of any library: the outcome is unknown
                raise NoReply(error, sent=not _is_unconnected(error)) from error
        raise Answered(Reply(response.status_code, body, response.headers.get("Retry-After")))


def _read(response: requests.Response, deadline: float) -> bytes:
    """Return the body. Raises requests.RequestException if it is too large or too late."""
    body = b""
    for chunk in response.iter_content(65_536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise requests.RequestException("The answer is too large")
    if time.monotonic() > deadline:
        raise requests.Timeout("The answer came too slowly")
    return body


def _is_unconnected(error: Exception) -> bool:
    """True if no connection was made. A certificate problem or a reset does not count."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, (NewConnectionError, NameResolutionError))
