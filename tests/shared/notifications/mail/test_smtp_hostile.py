"""Mail servers that disconnect after each mail or reply with control characters: every mail is sent once."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.support.mail_steps import (
    add_user,
    cancel_withdrawal,
    rows,
    run_mailer,
    run_until_done,
    turn_on,
)
from tests.support.mailbox import mail_server
from tests.support.world import World

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close resets the connection, and later sends fail


class OneMailServer:
    """A mail server that accepts one mail for each connection and then resets it."""

    def __init__(self) -> None:
        self.received = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(b"220 here\r\n")
                self._receive(stream)

    def _receive(self, stream: socket.SocketIO) -> None:
        is_mail = False
        while line := stream.readline():
            if is_mail and line == b".\r\n":
                self.received += 1
                stream.write(b"250 taken\r\n")
                return
            if not is_mail:
                is_mail = line.upper().startswith(b"DATA")
                stream.write(b"354 go on\r\n" if is_mail else b"250 yes\r\n")


@pytest.fixture
def one_mail_server() -> Iterator[OneMailServer]:
    server = OneMailServer()
    yield server
    server.close()


def test_a_server_that_disconnects_after_each_mail_gets_every_mail(
    world: World, monkeypatch: pytest.MonkeyPatch, one_mail_server: OneMailServer
) -> None:
    turn_on(world, monkeypatch, one_mail_server.port)
    add_user(world)
    for _ in range(6):
        cancel_withdrawal(world)
    run_until_done(world)
    assert [row.state for row in rows(world)] == ["sent"] * 6
    assert one_mail_server.received == 6


def test_a_reply_with_control_characters_is_stored_without_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server() as server:
        turn_on(world, monkeypatch, server.port)
        add_user(world)
        cancel_withdrawal(world)
        server.answers["rcpt"] = "550 5.1.1 no\x00such\x1b[31muser"
        assert run_mailer() == 1
        [row] = rows(world)
        assert (row.state, row.last_error) == ("failed", "550 5.1.1 no such [31muser")
