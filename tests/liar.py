"""A wire to Redis that brings garbage in place of answers, for as long as it is told to lie."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Liar:
    """Stands between a client and Redis; `url` is where."""

    def __init__(self, listener: socket.socket, target: str) -> None:
        where = urlsplit(target)
        self._listener, self._target = listener, (where.hostname or "", where.port or 6379)
        self.lie: bytes | None = None
        self.told = 0  # times
        self.url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                threading.Thread(target=self._ask, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far:
            while data := near.recv(65_536):
                if self.lie is None:
                    far.sendall(data)
                else:
                    self._tell(near)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                if self.lie is None:
                    near.sendall(data)
                else:
                    self._tell(near)

    def _tell(self, near: socket.socket) -> None:
        near.sendall(self.lie or b"")
        self.told += 1


@contextmanager
def liar(target: str) -> Iterator[Liar]:
    """One of these between us and the Redis at `target`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Liar(listener, target)
