"""A recording proxy between an app and the API that can lose or replace responses."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

ANSWER_SECONDS = 15
FORWARDED_HEADERS = ("authorization", "content-type", "idempotency-key", "origin")


@dataclass(frozen=True)
class Fate:
    """What happens to one POST: LOST is forwarded and its response dropped; others are answered here."""

    status: int
    code: str | None = None  # None: not a response of the API
    retry_after: str | None = None
    is_ours: bool = True  # False: JSON of a gateway, which has a code too
    content_length: str | None = None  # a second, wrong one

    def headers(self) -> dict[str, str]:
        headers = {"Retry-After": self.retry_after, "Content-Length": self.content_length}
        return {name: value for name, value in headers.items() if value}

    def body(self) -> bytes:
        if self.code is None:
            return b"<html>Bad gateway</html>"
        if not self.is_ours:
            return json.dumps({"code": self.code, "message": "no Route matched"}).encode()
        body = {"success": False, "error": "No", "details": "Not now", "code": self.code, "request_id": "r"}
        return json.dumps(body).encode()


LOST = Fate(0)
UNAVAILABLE = Fate(503, "database_away", "1")
BUSY = Fate(409, "idempotency_key_running", "0")
MOVED = Fate(409, "limit_moved")
TOO_MANY = Fate(429, "rate_limited", "60")
GATEWAY = Fate(502)
GARBLED = Fate(200, content_length="1")
NO_ROUTE = Fate(404, "route_not_found", is_ours=False)


@dataclass(frozen=True)
class Post:
    """A recorded POST, with its time by the monotonic clock in seconds."""

    at: float
    path: str
    key: str | None
    body: dict[str, Any]


class Wire:
    """A proxy before the API at `target`. `fates` apply to the next POSTs in order; later ones are forwarded."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.fates: deque[Fate] = deque()
        self.posts: list[Post] = []
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wire._forward(self, b"")

            def do_OPTIONS(self) -> None:
                wire._forward(self, b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                key = self.headers["Idempotency-Key"]
                wire.posts.append(Post(time.monotonic(), self.path, key, json.loads(body)))
                wire._forward(self, body, wire.fates.popleft() if wire.fates else None)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def keys(self) -> list[str | None]:
        """The idempotency keys of the recorded POSTs."""
        return [post.key for post in self.posts]

    def _forward(self, near: BaseHTTPRequestHandler, body: bytes, fate: Fate | None = None) -> None:
        if fate is not None and fate != LOST:
            return self._answer(near, fate.status, fate.headers(), fate.body())
        headers = {name: value for name, value in near.headers.items() if _is_forwarded(name)}
        far = requests.request(
            near.command, self._target + near.path, data=body or None, headers=headers, timeout=ANSWER_SECONDS
        )
        if fate == LOST:
            near.close_connection = True  # the request ran; the client gets no response
            return None
        dropped = ("content-length", "transfer-encoding", "connection", "date", "server")
        kept = {name: value for name, value in far.headers.items() if name.lower() not in dropped}
        return self._answer(near, far.status_code, kept, far.content)

    @staticmethod
    def _answer(near: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        near.send_response(status)
        for name, value in headers.items():
            near.send_header(name, value)
        near.send_header("Content-Length", str(len(body)))
        near.end_headers()
        near.wfile.write(body)


def _is_forwarded(name: str) -> bool:
    return name.lower() in FORWARDED_HEADERS or name.lower().startswith("access-control-")


@contextmanager
def wire_to(target: str) -> Iterator[Wire]:
    wire = Wire(target)
    try:
        yield wire
    finally:
        wire.server.shutdown()
        wire.server.server_close()
