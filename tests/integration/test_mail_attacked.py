"""Mail servers that hang up after each mail, or answer with what no database keeps: every user is told once."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.integration.mailing import cancelled, known, rows, tell, tell_all, turn_on
from tests.mailbox import serving
from tests.world import World

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close says so at once, and what is sent then fails


class OneEach:
    """A mail server that takes one mail a connection and then resets it."""

    def __init__(self) -> None:
        self.taken = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with line, line.makefile("rwb", buffering=0) as words:
                words.write(b"220 here\r\n")
                self._take(words)

    def _take(self, words: socket.SocketIO) -> None:
        is_mail = False
        while said := words.readline():
            if is_mail and said == b".\r\n":
                self.taken += 1
                words.write(b"250 taken\r\n")
                return
            if not is_mail:
                is_mail = said.upper().startswith(b"DATA")
                words.write(b"354 go on\r\n" if is_mail else b"250 yes\r\n")


@pytest.fixture
def one_each() -> Iterator[OneEach]:
    server = OneEach()
    yield server
    server.close()


def test_a_server_that_hangs_up_after_each_mail_gets_every_one(
    world: World, monkeypatch: pytest.MonkeyPatch, one_each: OneEach
) -> None:
    turn_on(world, monkeypatch, one_each.port)
    known(world)
    for _ in range(6):
        cancelled(world)
    tell_all(world)
    assert [row.state for row in rows(world)] == ["sent"] * 6
    assert one_each.taken == 6


def test_words_that_no_database_keeps_are_kept_without_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        turn_on(world, monkeypatch, server.port)
        known(world)
        cancelled(world)
        server.answers["rcpt"] = "550 5.1.1 no\x00such\x1b[31muser"
        assert tell() == 1
        [row] = rows(world)
        assert (row.state, row.last_error) == ("failed", "550 5.1.1 no such [31muser")
