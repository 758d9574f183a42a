"""The load generator: it counts whole answers, keeps connections, and accepts no other status."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import ClassVar

import pytest

from bench import load

CLOSE = b"close"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    peers: ClassVar[set[object]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.peers.add(self.client_address)
        self.send_response(201 if self.path == "/new/" else 500)
        self.send_header("Content-Length", str(len(body)))
        if body == CLOSE:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body[:3])
        self.wfile.flush()
        self.wfile.write(body[3:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.peers = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def request(url: str, body: bytes = b"12345678", path: str = "/new/") -> bytes:
    return load.http_request(url, path, body, {"X-Key": "value"})


def test_each_request_is_answered_once_over_connections_that_stay(server: str) -> None:
    done = load.send(server, iter([request(server)] * 20), connections=3)
    assert len(done.times) == 20
    assert len(Handler.peers) <= 3
    assert all(0 < seconds <= done.seconds for seconds in done.times)
    assert done.per_second == pytest.approx(20 / done.seconds)


def test_it_stops_after_its_time(server: str) -> None:
    done = load.send(server, repeat(request(server)), connections=2, seconds=0.2)
    assert 0.2 <= done.seconds < 5
    assert done.times


def test_it_reconnects_when_the_server_closes(server: str) -> None:
    done = load.send(server, iter([request(server, CLOSE)] * 4), connections=1)
    assert len(done.times) == len(Handler.peers) == 4


def test_another_status_is_an_error(server: str) -> None:
    with pytest.raises(AssertionError, match="500"):
        load.send(server, iter([request(server, path="/else/")]), connections=1)


def test_the_figures_are_in_milliseconds() -> None:
    figures = load.Load(seconds=2.0, times=[0.001, 0.002, 0.010]).figures("_16")
    assert figures == {"per_second_16": 1.5, "p50_ms_16": 2.0, "p99_ms_16": 10.0}
