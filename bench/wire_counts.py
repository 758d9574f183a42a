"""Counts what a system sends to PostgreSQL and Redis, from outside. This costs time: nothing is timed then.

A proxy passes the bytes to PostgreSQL on and reads the types of the messages (frontend/backend protocol 3). A
round trip begins when a client sends something after the server has answered; so a pipeline of statements is
one. Redis reports the commands of each client itself (MONITOR).
"""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from bench import processes
from bench.processes import Pids
from sandbox.services import LOOPBACK

READ_BYTES = 65_536
CLOSE_SECONDS = 5.0
HEADER_BYTES = 5  # a message's type and its length, which counts itself and not the type
ENCRYPTION_REQUESTS = (80877103, 80877104)  # SSL, GSS: a client asks before its start message
STATEMENTS = (b"Q", b"E")  # a simple query; the execution of a prepared one
ASIDE = (b"X", b"p")  # the end of a connection; a password


@dataclass
class Counts:
    """What the clients of one process have sent."""

    statements: int = 0
    round_trips: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.statements + other.statements, self.round_trips + other.round_trips)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.statements - other.statements, self.round_trips - other.round_trips)


class Proxy:
    """Listens in place of a PostgreSQL; `url` names it."""

    def __init__(self, database_url: str) -> None:
        self._upstream = urlsplit(database_url)
        self._by_port: dict[int, Counts] = {}
        self._kind_of: dict[int, str] = {}

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve in a thread of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, LOOPBACK, 0), loop
        ).result()
        port = server.sockets[0].getsockname()[1]
        login, at, _ = self._upstream.netloc.rpartition("@")
        self.url = urlunsplit(self._upstream._replace(netloc=f"{login}{at}{LOOPBACK}:{port}"))
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_stop(server), loop).result(CLOSE_SECONDS)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def counts(self, pids: Pids) -> dict[str, Counts]:
        """What each kind of process has sent so far; `other` if a connection was closed before we saw it."""
        self._kind_of |= processes.client_ports(pids)
        totals = {kind: Counts() for kind in (*pids, "other")}
        for port, counts in list(self._by_port.items()):
            totals[self._kind_of.get(port, "other")] += counts
        return totals

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        counts = self._by_port.setdefault(answers.get_extra_info("peername")[1], Counts())
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        turn = _Turn(counts)
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(
                _pass_on(client, writer, _Messages(turn).read), _pass_on(reader, answers, turn.answered)
            )


class Monitor:
    """Counts the commands of each client of a Redis, without those that scripts run."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._by_port: Counter[int] = Counter()
        self._kind_of: dict[int, str] = {}

    @contextmanager
    def running(self) -> Iterator["Monitor"]:
        """Listen in a thread of its own."""
        with redis.Redis.from_url(self._url) as client, client.monitor() as commands:
            thread = threading.Thread(target=self._listen, args=(commands,), daemon=True)
            thread.start()
            yield self
            commands.connection.disconnect()  # ends the thread's read
            thread.join(CLOSE_SECONDS)

    def counts(self, pids: Pids) -> Counter[str]:
        """How many commands each kind of process has sent so far."""
        self._kind_of |= processes.client_ports(pids)
        totals: Counter[str] = Counter()
        for port, number in list(self._by_port.items()):
            totals[self._kind_of.get(port, "other")] += number
        return totals

    def _listen(self, commands: Any) -> None:
        # It is disconnected while it reads.
        with suppress(redis.RedisError, OSError, ValueError, AttributeError):
            for command in commands.listen():
                if command["client_type"] == "tcp":
                    self._by_port[int(command["client_port"])] += 1


class _Turn:
    """Whether the next message of the client begins a round trip."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self._is_clients = True

    def answered(self, _data: bytes) -> None:
        self._is_clients = True

    def sent(self, kind: bytes) -> None:
        if kind in STATEMENTS:
            self.counts.statements += 1
        if self._is_clients and kind not in ASIDE:
            self.counts.round_trips += 1
            self._is_clients = False


class _Messages:
    """What a client sends to PostgreSQL, message by message. The first ones have no type."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._data = b""
        self._has_started = False

    def read(self, data: bytes) -> None:
        self._data += data
        while self._take_one():
            pass

    def _take_one(self) -> bool:
        if not self._has_started:
            return self._take_start()
        if len(self._data) < HEADER_BYTES:
            return False
        size = 1 + int(struct.unpack_from("!I", self._data, 1)[0])
        if len(self._data) < size:
            return False
        self._turn.sent(self._data[:1])
        self._data = self._data[size:]
        return True

    def _take_start(self) -> bool:
        if len(self._data) < 8:
            return False
        size, code = struct.unpack_from("!II", self._data)
        if len(self._data) < size:
            return False
        self._has_started = code not in ENCRYPTION_REQUESTS
        self._data = self._data[size:]
        return True


async def _stop(server: asyncio.Server) -> None:
    """Accept no more, cancel the connections, and wait for their end."""
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            look(data)
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
