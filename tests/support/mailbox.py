"""A mail server that accepts or refuses mail as a test sets it, with or without TLS."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from sandbox.services import free_port
from tests.support.certificates import certificate


@dataclass(frozen=True)
class ReceivedMail:
    """A mail as it was received."""

    sender: str
    recipient: str
    message: EmailMessage
    was_encrypted: bool

    @property
    def id(self) -> str:
        return str(self.message["Message-ID"])

    def part(self, kind: str) -> str:
        """Its text, as `plain` or `html`."""
        body = self.message.get_body((kind,))
        assert body is not None
        return str(body.get_content()).replace("\r\n", "\n")


class MailServer:
    """Listens on loopback. `answers` replaces its replies to commands; it replies to DATA once `hold` is set."""

    def __init__(
        self,
        port: int = 0,
        *,
        starttls: bool = False,
        implicit: bool = False,
        directory: Path | None = None,
        user: str | None = None,
        unicode: bool = True,
    ) -> None:
        self.letters: list[ReceivedMail] = []
        self.answers: dict[str, str] = {}
        self.refused: set[str] = set()  # recipients
        self.hold = threading.Event()
        self.hold.set()
        self.connections = self.signed_in = self.under_way = 0
        self.user = user
        self.password = "sesam"
        context = None
        if directory is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate(directory, "localhost"))
        options: dict[str, Any] = {"decode_data": False, "enable_SMTPUTF8": unicode}
        if starttls:
            options |= {"tls_context": context, "require_starttls": True}
        if user:
            # The library warns when authentication is required without STARTTLS.
            options |= {"authenticator": self._authenticate, "auth_require_tls": starttls}
        self._is_encrypted = implicit
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=port or free_port(),
            ssl_context=context if implicit else None,
            ready_timeout=30,
            **options,
        )
        self._controller.start()
        self.port = self._controller.port

    def close(self) -> None:
        self.hold.set()
        self._controller.stop(no_assert=True)

    def to(self, recipient: str) -> list[ReceivedMail]:
        return [letter for letter in self.letters if letter.recipient == recipient]

    # --- aiosmtpd's hooks

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.signed_in += 1
        expected = LoginPassword(str(self.user).encode(), self.password.encode())
        return AuthResult(success=isinstance(data, LoginPassword) and data == expected, handled=False)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return [self.answers["ehlo"]] if "ehlo" in self.answers else responses

    async def handle_HELO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
        session.host_name = hostname
        return self.answers.get("ehlo", "250 here")

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "mail" in self.answers:
            return self.answers["mail"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "rcpt" in self.answers and (not self.refused or address in self.refused):
            return self.answers["rcpt"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.under_way += 1
        while not self.hold.is_set():
            await asyncio.sleep(0.02)
        if "data" in self.answers:
            return self.answers["data"]
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=SMTP_POLICY)
        assert isinstance(message, EmailMessage)
        for recipient in envelope.rcpt_tos:
            self.letters.append(
                ReceivedMail(
                    str(envelope.mail_from), recipient, message, self._is_encrypted or session.ssl is not None
                )
            )
        if "after" in self.answers:
            server.transport.close()  # the mail was received, but its confirmation is lost
        return "250 OK"


@contextmanager
def mail_server(port: int = 0, **about: Any) -> Iterator[MailServer]:
    server = MailServer(port, **about)
    try:
        yield server
    finally:
        server.close()
