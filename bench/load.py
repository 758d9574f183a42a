"""HTTP load from one thread: several connections, each with one request at a time; and each answer's time.

The client is lean because it shares the cores with what it measures: requests are bytes made beforehand, and
an answer is read up to its Content-Length.
"""

import math
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.figures import percentile

TIMEOUT_SECONDS = 60.0
READ_BYTES = 65_536


@dataclass(frozen=True)
class Load:
    """The answers to a load."""

    seconds: float
    times: list[float]  # seconds from each request to the end of its answer

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.times) / self.seconds

    def figures(self, name: str = "") -> dict[str, float]:
        """The rate and the times in milliseconds, for a report."""
        return {
            f"per_second{name}": self.per_second,
            f"p50_ms{name}": percentile(self.times, 50) * 1000,
            f"p99_ms{name}": percentile(self.times, 99) * 1000,
        }


def http_request(url: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST on a connection that stays open."""
    lines = {"Host": urlsplit(url).netloc, "Content-Type": "application/json", "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **headers}.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def send(
    url: str,
    requests: Iterator[bytes],
    *,
    connections: int,
    seconds: float = math.inf,
    status: int = 201,
) -> Load:
    """Send requests until there are no more, or `seconds` are over; wait for all answers.

    Raises AssertionError for an answer with another status.
    """
    with selectors.DefaultSelector() as selector:
        wires = [_Wire(url, f"HTTP/1.1 {status} ".encode()) for _ in range(connections)]
        try:
            return _send(selector, wires, requests, seconds)
        finally:
            for wire in wires:
                wire.close()


def _send(
    selector: selectors.BaseSelector, wires: list["_Wire"], requests: Iterator[bytes], seconds: float
) -> Load:
    times: list[float] = []
    started_at = time.perf_counter()
    for wire in wires:
        selector.register(wire.socket, selectors.EVENT_READ, wire)
        _next(wire, requests, started_at + seconds)
    while any(wire.is_waiting for wire in wires):
        ready = selector.select(TIMEOUT_SECONDS)
        assert ready, f"no answer within {TIMEOUT_SECONDS:g} s"
        for key, _ in ready:
            wire = key.data
            took = wire.read()
            if wire.must_reconnect:
                selector.unregister(wire.socket)
                wire.connect()
                selector.register(wire.socket, selectors.EVENT_READ, wire)
            if took is not None:
                times.append(took)
                _next(wire, requests, started_at + seconds)
    return Load(time.perf_counter() - started_at, times)


def _next(wire: "_Wire", requests: Iterator[bytes], deadline: float) -> None:
    if time.perf_counter() < deadline and (request := next(requests, None)) is not None:
        wire.write(request)


class _Wire:
    """One connection."""

    def __init__(self, url: str, expected: bytes) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._expected = expected
        self.is_waiting = False
        self.must_reconnect = False
        self.connect()

    def connect(self) -> None:
        if self.must_reconnect:
            self.close()
        self.must_reconnect = False
        self.socket = socket.create_connection(self._address, timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.socket.close()

    def write(self, request: bytes) -> None:
        self._data = b""
        self._sent_at = time.perf_counter()
        self.is_waiting = True
        self.socket.sendall(request)

    def read(self) -> float | None:
        """Read what has arrived; returns the seconds since the request once the answer is complete."""
        chunk = self.socket.recv(READ_BYTES)
        if not self.is_waiting:
            assert not chunk, "an answer without a request"
            self.must_reconnect = True
            return None
        assert chunk, f"the server closed the connection after {self._data[:200]!r}"
        self._data += chunk
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return None
        assert head.startswith(self._expected), self._data[:1000].decode(errors="replace")
        self.is_waiting = False
        self.must_reconnect = b"\r\nconnection: close" in head.lower()
        return time.perf_counter() - self._sent_at


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    raise AssertionError(f"no Content-Length: {head!r}")
