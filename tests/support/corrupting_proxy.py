"""A proxy to Redis that sends garbage instead of replies while a test sets it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class CorruptingProxy:
    """Listens at `url` and forwards to Redis. While `garbage` is set, it replies with that instead."""

    def __init__(self, listener: socket.socket, target: str) -> None:
        address = urlsplit(target)
        self._listener = listener
        self._target = (address.hostname or "", address.port or 6379)
        self.garbage: bytes | None = None
        self.sent = 0  # how often it sent garbage
        self.url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._forward_requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._forward_replies, args=(server, client), daemon=True).start()

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError), client, server:
            while data := client.recv(65_536):
                if self.garbage is None:
                    server.sendall(data)
                else:
                    self._send_garbage(client)

    def _forward_replies(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if self.garbage is None:
                    client.sendall(data)
                else:
                    self._send_garbage(client)

    def _send_garbage(self, client: socket.socket) -> None:
        client.sendall(self.garbage or b"")
        self.sent += 1


@contextmanager
def corrupting_proxy(target: str) -> Iterator[CorruptingProxy]:
    """A proxy to the Redis at `target`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield CorruptingProxy(listener, target)
