"""A relay between worker and provider that can be cut: then it accepts every byte and forwards none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Forwards connections to `target`; while `cut`, it keeps the bytes in `received` and forwards none."""

    def __init__(self, listener: socket.socket, target: str) -> None:
        where = urlsplit(target)
        self._listener = listener
        self._target = (where.hostname or "", where.port or 80)
        self._open: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()
        self.cut = False
        self.received: list[bytes] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def received_key(self) -> str | None:
        """The idempotency key of the first create that was not forwarded."""
        for line in b"\r\n".join(self.received).split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"x-payout-idempotency":
                return value.decode()
        return None

    def forget(self) -> None:
        """Silently drop the bytes of all open connections, as a firewall does; new connections work."""
        self._forgotten = set(self._open)

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            connection.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.cut or source in self._forgotten:
                    self.received.append(data)
                else:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(target: str) -> Iterator[Relay]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Relay(listener, target)
        try:
            yield wire
        finally:
            wire.close()
