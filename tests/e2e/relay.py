"""The wire between worker and provider, which can be cut: then it takes every byte and brings none on."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Relay:
    """Brings connections on to `target`; what comes while it is `cut` ends here, and is kept in `heard`."""

    def __init__(self, listener: socket.socket, target: str) -> None:
        where = urlsplit(target)
        self._listener, self._target = listener, (where.hostname or "", where.port or 80)
        self._open: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()
        self.cut = False
        self.heard: list[bytes] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def heard_key(self) -> str | None:
        """The idempotency key of the first create that ended here."""
        for line in b"\r\n".join(self.heard).split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"x-payout-idempotency":
                return value.decode()
        return None

    def forget(self) -> None:
        """What is open brings nothing on any more and nobody is told, as a firewall does; new ones do."""
        self._forgotten = set(self._open)

    def close(self) -> None:
        for one in (self._listener, *self._open):
            one.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._bring, args=(source, sink), daemon=True).start()

    def _bring(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.cut or source in self._forgotten:
                    self.heard.append(data)
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
