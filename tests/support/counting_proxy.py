"""Proxies to PostgreSQL and Redis that count what a process sends: statements, round trips, commits, commands.

They count at the wire, so nothing of ours is replaced, and the same work always counts the same.
"""

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

# Messages of PostgreSQL's protocol that a client waits for: a simple query, and Sync after extended ones
# (PostgreSQL's documentation, chapter "Message Formats").
QUERY = b"Q"
PARSE = b"P"
BIND = b"B"
EXECUTE = b"E"
SYNC = b"S"
NEW_LINES = re.compile(rb"\s+")


class Counts:
    """What was sent since the last `reset`. Safe to read while others send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self.statements: Counter[str] = Counter()
            self.round_trips = 0
            self.commits = 0

    def add_statement(self, sql: bytes) -> None:
        text = NEW_LINES.sub(b" ", sql).strip().decode(errors="replace")
        with self._lock:
            self.statements[text] += 1
            self.commits += text.upper() == "COMMIT"

    def add_round_trip(self) -> None:
        with self._lock:
            self.round_trips += 1

    def __str__(self) -> str:
        lines = [f"{number:5} {text[:150]}" for text, number in self.statements.most_common()]
        total = sum(self.statements.values())
        return "\n".join(
            [f"{total} statements, {self.round_trips} round trips, {self.commits} commits", *lines]
        )


class _Postgres:
    """Reads one client's messages: a type, a length and a body; the first message has no type."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = b""
        self._is_started = False
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while (message := self._next()) is not None:
            self._count(*message)

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._is_started else 0
        if len(self._buffer) < head + 4:
            return None
        length = int.from_bytes(self._buffer[head : head + 4])
        if len(self._buffer) < head + length:
            return None
        kind = self._buffer[:head]
        body = self._buffer[head + 4 : head + length]
        self._buffer = self._buffer[head + length :]
        # The client may ask for TLS or GSSAPI first, which the server declines; then its start-up message follows.
        self._is_started = self._is_started or length > 16
        return kind, body

    def _count(self, kind: bytes, body: bytes) -> None:
        if kind == QUERY:
            self._counts.add_statement(body.rstrip(b"\0"))
            self._counts.add_round_trip()
        elif kind == PARSE:
            name, sql, *_ = body.split(b"\0")
            self._prepared[name] = sql
        elif kind == BIND:
            portal, name, *_ = body.split(b"\0", 2)
            self._portals[portal] = self._prepared.get(name, b"?")
        elif kind == EXECUTE:
            self._counts.add_statement(self._portals.get(body.split(b"\0")[0], b"?"))
        elif kind == SYNC:
            self._counts.add_round_trip()


class _Redis:
    """Reads one client's commands: arrays of strings. Several that arrive together are one round trip."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        self._buffer += data
        commands = 0
        while (command := self._next()) is not None:
            self._counts.add_statement(command)
            commands += 1
        if commands:
            self._counts.add_round_trip()

    def _next(self) -> bytes | None:
        try:
            line, rest = self._buffer.split(b"\r\n", 1)
            words = []
            for _ in range(int(line[1:])):
                size, rest = rest.split(b"\r\n", 1)
                length = int(size[1:])
                if len(rest) < length + 2:
                    return None
                words.append(rest[:length])
                rest = rest[length + 2 :]
        except ValueError:
            return None  # the rest of the command is still on its way
        self._buffer = rest
        return words[0].upper()


class _Proxy:
    def __init__(
        self, listener: socket.socket, target: tuple[str, int], reader: Callable[[], _Postgres | _Redis]
    ) -> None:
        self._listener = listener
        self._target = target
        self._reader = reader
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for ends in ((client, server, self._reader()), (server, client, None)):
                    threading.Thread(target=_forward, args=ends, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, reader: _Postgres | _Redis | None) -> None:
    with suppress(OSError), source, target:
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := source.recv(262_144):
            if reader:
                reader.feed(data)
            target.sendall(data)


@contextmanager
def _counting(url: str, port: int, reader: type[_Postgres] | type[_Redis]) -> Iterator[tuple[str, Counts]]:
    address = urlsplit(url)
    counts = Counts()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _Proxy(listener, (address.hostname or "127.0.0.1", address.port or port), lambda: reader(counts))
        credentials, at, _ = address.netloc.rpartition("@")
        netloc = f"{credentials}{at}127.0.0.1:{listener.getsockname()[1]}"
        yield address._replace(netloc=netloc).geturl(), counts


def counting_postgres(url: str) -> "Iterator[tuple[str, Counts]]":
    """Return a context: the URL of a proxy to this database, and what is sent through it."""
    return _counting(url, 5432, _Postgres)  # type: ignore[return-value]


def counting_redis(url: str) -> "Iterator[tuple[str, Counts]]":
    """Return a context: the URL of a proxy to this Redis, and what is sent through it."""
    return _counting(url, 6379, _Redis)  # type: ignore[return-value]
