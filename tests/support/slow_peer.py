"""A peer that answers one byte at a time, forever."""

import socket
import threading
from typing import Self

BETWEEN_BYTES_SECONDS = 0.1


class SlowPeer:
    """Listens at `url`, sends `start`, then a byte at a time; `connections` counts the accepted ones."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self.connections = 0
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()

    def _serve(self) -> None:
        try:
            while not self._over.is_set():
                peer, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._send_slowly, args=[peer], daemon=True).start()
        except OSError:
            return  # closed: the test is over

    def _send_slowly(self, peer: socket.socket) -> None:
        try:
            peer.sendall(self._start)
            while not self._over.wait(BETWEEN_BYTES_SECONDS):
                peer.sendall(b"x")
        except OSError:
            return  # the client disconnected, as it should
