"""Callers who hold the door open: silent, with half a head, or with a body that does not end."""

import asyncio
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.world import KEY

WEBHOOK = "/api/razorpay/webhook/"
BETWEEN_BYTES_SECONDS = 1.0
ESTABLISHED = 1  # the first byte of Linux's struct tcp_info
SAYS = {
    "silent": b"",
    "half": b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Half:",
    "slow": f"POST {WEBHOOK} HTTP/1.1\r\nHost: here\r\nContent-Length: 400000\r\n\r\n{{".encode(),
    "with a key": (
        f"POST /api/razorpay/withdraw/ HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 50000\r\n\r\n{"
    ).encode(),
    "takes nothing": 3
    * b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: here\r\n\r\n",  # too much for the kernel
}
NEVER_READS = "takes nothing"


class Strangers:
    """So many of each kind; whoever is hung up on comes again. Half of the heads and bodies drip, the others stop."""

    def __init__(self, host: str, port: int, *, come_again: bool = True, **numbers: int) -> None:
        self._where, self._numbers, self._come_again = (host, port), numbers, come_again
        self.open: Counter[str] = Counter()  # connections now, by kind
        self.ended: Counter[str] = Counter()  # hung up on by the server
        self._loop = asyncio.new_event_loop()
        _room_for(sum(numbers.values()))

    @contextmanager
    def around(self) -> Iterator["Strangers"]:
        """They come, and go at the end."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self._come(), self._loop).result()
        try:
            yield self
        finally:
            self._come_again = False
            asyncio.run_coroutine_threadsafe(self._go(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _come(self) -> None:
        self._tasks = [
            asyncio.create_task(self._hold(kind, drips=bool(number % 2)))
            for kind, many in self._numbers.items()
            for number in range(many)
        ]

    async def _go(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, kind: str, *, drips: bool) -> None:
        while True:
            with suppress(OSError):
                await self._once(kind, drips and kind != "silent")
            self.ended[kind] += 1
            if not self._come_again:
                return
            await asyncio.sleep(0.1)

    async def _once(self, kind: str, drips: bool) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        self.open[kind] += 1
        try:
            writer.write(SAYS[kind])
            if kind == NEVER_READS:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await _hung_up_on(writer)
                return
            ends = asyncio.ensure_future(reader.read())
            while drips and not ends.done():
                await asyncio.wait([ends], timeout=BETWEEN_BYTES_SECONDS)
                writer.write(b"x")
            await ends
        finally:
            self.open[kind] -= 1
            writer.transport.abort()


async def _hung_up_on(writer: asyncio.StreamWriter) -> None:
    """Until the other side has ended the connection, which the kernel knows without reading."""
    peer = writer.get_extra_info("socket")
    while peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([ESTABLISHED]):
        await asyncio.sleep(BETWEEN_BYTES_SECONDS / 4)


def _room_for(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
