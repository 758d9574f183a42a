"""An app's own server: it receives webhooks and verifies them with the library that apps use."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Message:
    """One webhook as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """The verified body. Raises WebhookVerificationError."""
        return dict(Webhook(secret).verify(self.body, self.headers))


class Receiver:
    """Listens on loopback; answers `status` with `headers`, after `hold` is set."""

    def __init__(self, port: int = 0) -> None:
        self.messages: list[Message] = []
        self.status = 204
        self.headers = dict[str, str]()
        self.hold = threading.Event()
        self.hold.set()
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def verified(self, secret: str) -> list[dict[str, Any]]:
        """The bodies of all messages, verified."""
        return [message.verified(secret) for message in self.messages]

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        length = int(headers.get("content-length", 0))
        body = handler.rfile.read(length)
        if not length or len(body) < length:
            return  # the sender was killed in the middle of it
        message = Message(handler.path, headers, body, time.monotonic())
        with self._lock:
            self.messages.append(message)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        self.hold.wait(30)
        with self._lock:
            self.under_way -= 1
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: Any) -> None:
                """Keep the test output clean."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    return  # the client disconnected

        return Handler


@contextmanager
def webhook_receiver(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()
