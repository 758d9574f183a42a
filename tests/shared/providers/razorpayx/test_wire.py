"""One call over a real socket: what is sent, what is not, and what an error says about it."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import pytest

from shared.providers.razorpayx.answers import Reply
from shared.providers.razorpayx.wire import MAX_ANSWER_BYTES, Answered, NoReply, Wire
from tests.support.certificates import tls_proxy

OFFICIAL = Path(certifi.where())
AUTH = ("rzp_test_key", "secret")
BODY = json.dumps({"id": "pout_00000000000001"}).encode()


class Server:
    """An HTTP server on loopback; keeps what it received."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = BODY


@pytest.fixture
def server() -> Iterator[Server]:
    with _serving() as server:
        yield server


@contextmanager
def _serving() -> Iterator[Any]:
    state: Any = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.requests.append(
                (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, sent)
            )
            self.send_response(state.status)
            for name, value in {**state.headers, "Content-Length": str(len(state.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Keep the test output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up on purpose
    state.port = http.server_address[1]
    state.url = f"http://127.0.0.1:{state.port}"
    threading.Thread(target=http.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()


def wire(authorities: Path = OFFICIAL, seconds: float = 5) -> Wire:
    return Wire(1, seconds, str(authorities))


def call(wire: Wire, url: str, **options: Any) -> Reply:
    """GET, as the SDK calls its session."""
    with pytest.raises(Answered) as answered:
        wire.get(url, auth=AUTH, verify="/the/list/of/the/sdk", headers={"User-Agent": "x"}, **options)
    return answered.value.reply


def error_of(wire: Wire, url: str) -> NoReply:
    with pytest.raises(NoReply) as failed:
        wire.post(url, data=b"{}", auth=AUTH, verify="", headers={})
    return failed.value


def test_exactly_our_bytes_and_headers_are_sent(server: Any) -> None:
    with pytest.raises(Answered):
        wire().post(
            f"{server.url}/v1/payouts",
            data=b'{"amount": 5000}',
            auth=AUTH,
            verify="",
            headers={"Content-Type": "application/json", "X-Payout-Idempotency": "key"},
        )
    [(method, path, headers, body)] = server.requests
    assert (method, path, body) == ("POST", "/v1/payouts", b'{"amount": 5000}')
    assert headers["authorization"] == "Basic cnpwX3Rlc3Rfa2V5OnNlY3JldA=="
    assert headers["content-type"] == "application/json"
    assert headers["x-payout-idempotency"] == "key"


def test_a_query_is_encoded(server: Any) -> None:
    call(wire(), f"{server.url}/v1/payouts", params={"reference_id": "a b&c", "count": 10})
    assert server.requests[0][1] == "/v1/payouts?reference_id=a+b%26c&count=10"


def test_calls_share_a_connection_and_no_cookie(server: Any) -> None:
    server.headers = {"Set-Cookie": "who=me; Path=/"}
    one = wire()
    assert [call(one, server.url).status for _ in range(3)] == [200] * 3
    assert server.connections == 1
    assert all("cookie" not in headers for _, _, headers, _ in server.requests)


def test_the_callback_runs_once_when_its_request_is_written(server: Any) -> None:
    one, written = wire(), []
    one.on_sent(lambda: written.append(len(server.requests)))
    call(one, server.url)
    call(one, server.url)
    assert len(written) == 1


def test_a_callback_whose_request_was_never_written_is_not_of_the_next_call(server: Any) -> None:
    one, written = wire(), []
    one.on_sent(lambda: written.append("the call before"))
    assert not error_of(one, "http://no-such-host.invalid").sent
    call(one, server.url)
    assert written == []


def test_the_reply_keeps_status_body_and_retry_after(server: Any) -> None:
    server.status, server.headers = 429, {"Retry-After": "7"}
    assert call(wire(), server.url) == Reply(429, BODY, "7")


def test_a_compressed_answer_is_read(server: Any) -> None:
    server.headers, server.body = {"Content-Encoding": "gzip"}, gzip.compress(BODY)
    assert call(wire(), server.url).body == BODY


def test_the_proxy_of_the_environment_sees_no_credentials(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        assert call(wire(), server.url).status == 200
        assert proxy.requests == []


@pytest.mark.parametrize("compress", [False, True])
def test_an_answer_without_end_is_no_answer(server: Any, compress: bool) -> None:
    server.body = b"x" * (MAX_ANSWER_BYTES + 1)
    if compress:
        server.headers, server.body = {"Content-Encoding": "gzip"}, gzip.compress(server.body)
    one = wire()
    assert error_of(one, server.url).sent
    server.headers, server.body = {}, BODY
    assert call(one, server.url).body == BODY  # on another connection: what is left of the first is no answer


def test_a_short_answer_is_no_answer(server: Any) -> None:
    class Short(bytes):
        def __len__(self) -> int:
            return 500

    server.body = Short(BODY)
    assert error_of(wire(seconds=0.5), server.url).sent


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and it does not listen
        assert not error_of(wire(), f"http://127.0.0.1:{unused.getsockname()[1]}").sent
    assert not error_of(wire(), "http://no-such-host.invalid").sent


def test_a_certificate_is_checked_against_our_authorities(server: Any, tmp_path: Path) -> None:
    with tls_proxy(tmp_path, "localhost", server.port) as port:
        assert call(wire(tmp_path / "authority.pem"), f"https://localhost:{port}").status == 200
        untrusted = error_of(wire(), f"https://localhost:{port}")
        assert "CERTIFICATE_VERIFY_FAILED" in str(untrusted)
        assert untrusted.sent  # a connection was made, so the outcome counts as unknown
        misnamed = error_of(wire(tmp_path / "authority.pem"), f"https://127.0.0.1:{port}")
        assert "CERTIFICATE_VERIFY_FAILED" in str(misnamed)
    assert len(server.requests) == 1
