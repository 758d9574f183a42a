"""The wire to RazorpayX: every call is limited in time and size, and ends in Answered or NoReply.

It takes the place of the SDK's `requests.Session`, with urllib3 as that one has: half of the work of a call,
no cookies, no proxy, no .netrc, and an error that says whether a connection was made.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util import make_headers

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


def _nothing() -> None:
    """Stands for no callback."""


class _Connection(threading.local):
    """This thread's socket, which a watchdog in another thread can close, and the callback of its call."""

    def __init__(self) -> None:
        self.holder: dict[str, socket.socket | None] = {"socket": None}
        self.on_sent: Callable[[], None] = _nothing


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


class Wire:
    """A session of the SDK, for one thread. urllib3 limits each read only, so a peer that sends one byte at a
    time could occupy the thread for ever.
    """

    def __init__(self, connect_seconds: float, read_seconds: float, authorities: str) -> None:
        self._seconds = connect_seconds + read_seconds
        self._timeout = Timeout(connect=connect_seconds, read=read_seconds)
        self._pools = PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=authorities)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def on_sent(self, callback: Callable[[], None]) -> None:
        """Run `callback` in this thread when the request of the next call is written."""
        _connection.on_sent = callback

    def get(self, url: str, params: Mapping[str, str | int] | None = None, **options: Any) -> NoReturn:
        """Make one call. Always raises Answered or NoReply."""
        self._call("GET", f"{url}?{urlencode(params)}" if params else url, None, **options)

    def post(self, url: str, data: bytes, **options: Any) -> NoReturn:
        """Make one call. Always raises Answered or NoReply."""
        self._call("POST", url, data, **options)

    def _call(
        self,
        method: str,
        url: str,
        body: bytes | None,
        *,
        auth: tuple[str, str],
        headers: Mapping[str, str],
        verify: str,  # the SDK's list of authorities: ours was given before
    ) -> NoReturn:
        deadline = time.monotonic() + self._seconds
        holder = _connection.holder  # read here: the watchdog runs in another thread
        with sockets.hang_up_at(deadline, lambda: holder["socket"]):
            try:
                response = self._pools.urlopen(
                    method,
                    url,
                    body=body,
                    headers={**_own_headers(*auth), **headers},
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,  # a POST that follows one becomes a GET, and its 200 looks like success
                    preload_content=False,
                )
                answer = _read(response, deadline)
            except Exception as error:  # any error of any library: the outcome is unknown
                raise NoReply(error, sent=not _is_unconnected(error)) from error
            finally:
                _connection.on_sent = _nothing
        raise Answered(Reply(response.status, answer, response.headers.get("Retry-After")))


@cache
def _own_headers(key_id: str, key_secret: str) -> dict[str, str]:
    return make_headers(basic_auth=f"{key_id}:{key_secret}", accept_encoding="gzip,deflate")


def _read(response: BaseHTTPResponse, deadline: float) -> bytes:
    """Return the body. Raises HTTPError if it is too large or too late."""
    body = b""
    try:
        for chunk in response.stream(65_536, decode_content=True):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise HTTPError("The answer is too large")
        if time.monotonic() > deadline:
            raise HTTPError("The answer came too slowly")
    except BaseException:
        response.close()  # the rest may still come, and is no answer to the next call
        raise
    response.release_conn()
    return body


def _is_unconnected(error: Exception) -> bool:
    """True if no connection was made. A certificate problem or a reset does not count."""
    return isinstance(error, (ConnectTimeoutError, NewConnectionError))  # also if the name is unknown
