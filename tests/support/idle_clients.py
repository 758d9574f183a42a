"""Clients that occupy connections: silent ones, and ones that never finish their headers or body."""

import asyncio
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.world import KEY

WEBHOOK = "/api/razorpay/webhook/"
BETWEEN_BYTES_SECONDS = 1.0
ESTABLISHED = 1  # the first byte of Linux's struct tcp_info
REQUESTS = {
    "silent": b"",
    "half": b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Half:",
    "slow": f"POST {WEBHOOK} HTTP/1.1\r\nHost: here\r\nContent-Length: 400000\r\n\r\n{{".encode(),
    "with a key": (
        f"POST /api/razorpay/withdraw/ HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 50000\r\n\r\n{"
    ).encode(),
    "takes nothing": 3
    * b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: here\r\n\r\n",  # more than the kernel buffers
}
NEVER_READS = "takes nothing"


class Strangers:
    """`numbers` clients of each kind, which reconnect when the server closes their connection. Half of them
    send a byte a second, the others stop.
    """

    def __init__(self, host: str, port: int, *, reconnect: bool = True, **numbers: int) -> None:
        self._address = (host, port)
        self._numbers = numbers
        self._reconnect = reconnect
        self.open: Counter[str] = Counter()  # open connections, by kind
        self.ended: Counter[str] = Counter()  # connections that the server closed, by kind
        self._loop = asyncio.new_event_loop()
        _raise_file_limit(sum(numbers.values()))

    @contextmanager
    def connected(self) -> Iterator["Strangers"]:
        """All are connected within the block."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
        try:
            yield self
        finally:
            self._reconnect = False
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _connect(self) -> None:
        self._tasks = [
            asyncio.create_task(self._hold(kind, sends_slowly=bool(number % 2)))
            for kind, count in self._numbers.items()
            for number in range(count)
        ]

    async def _disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, kind: str, *, sends_slowly: bool) -> None:
        while True:
            with suppress(OSError):
                await self._once(kind, sends_slowly and kind != "silent")
            self.ended[kind] += 1
            if not self._reconnect:
                return
            await asyncio.sleep(0.1)

    async def _once(self, kind: str, sends_slowly: bool) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        self.open[kind] += 1
        try:
            writer.write(REQUESTS[kind])
            if kind == NEVER_READS:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await _wait_until_closed(writer)
                return
            response = asyncio.ensure_future(reader.read())
            while sends_slowly and not response.done():
                await asyncio.wait([response], timeout=BETWEEN_BYTES_SECONDS)
                writer.write(b"x")
            await response
        finally:
            self.open[kind] -= 1
            writer.transport.abort()


async def _wait_until_closed(writer: asyncio.StreamWriter) -> None:
    """Wait until the server closes the connection, which the kernel reports without a read."""
    peer = writer.get_extra_info("socket")
    while peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([ESTABLISHED]):
        await asyncio.sleep(BETWEEN_BYTES_SECONDS / 4)


def _raise_file_limit(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
