"""A provider's address behind which nobody is: it takes every connection, hears all, answers nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Hole:
    """What reached it, one text per connection."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._taken: list[socket.socket] = []
        self.heard: list[bytes] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def header(self, name: str) -> str | None:
        """A header of the first request, once it is all there."""
        for line in b"".join(self.heard[:1]).split(b"\r\n"):
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip().decode()
        return None

    def close(self) -> None:
        for one in (self._listener, *self._taken):
            one.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = self._listener.accept()
                self._taken.append(connection)
                self.heard.append(connection.recv(65_536))


@contextmanager
def hole() -> Iterator[Hole]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        deep = Hole(listener)
        try:
            yield deep
        finally:
            deep.close()
