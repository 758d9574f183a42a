"""The connection to SMTP_HOST: one for many mails, encrypted, and bounded in time as a whole.

A mail counts as sent when the server has replied yes to all of it, and not before.
"""

import smtplib
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.net import sockets
from shared.net.addresses import Target, resolve
from shared.notifications import outbox
from shared.notifications.mail.recipients import one_line
from shared.notifications.mail.texts import domain, sender_address
from shared.settings import settings
from shared.settings.mail import DEFAULT_PORTS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

QUIT_SECONDS = 1.0


class Fault(StrEnum):
    """Why a mail was not accepted, which decides what to do next."""

    SERVER = "server"  # the server accepts nothing from us now: no fault of this mail
    TEMPORARY = "later"  # it does not accept this mail now
    UNCONFIRMED = "unsure"  # the whole mail was sent and no reply came: it may have been accepted
    PERMANENT = "never"  # it refuses this mail for good


@dataclass(frozen=True, slots=True)
class SendResult(outbox.SendResult):
    """The result of sending one mail."""

    fault: Fault | None = None

    @property
    def ends_turn(self) -> bool:
        """A recipient who is refused must not keep others waiting."""
        return self.error is not None and self.fault is not Fault.PERMANENT


class _SmtpOverSocket(smtplib.SMTP):
    """smtplib's client on a socket that is already connected, without a look-up of our own host name."""

    def __init__(self, sock: socket.socket, host: str, port: int) -> None:
        self._connected_socket = sock
        self.is_mail_complete = False  # the last thing sent was the end of a mail
        super().__init__(host, port, local_hostname=domain())

    def send(self, s: "ReadableBuffer | str") -> None:
        """smtplib's; remembers whether a mail was sent to its end."""
        self.is_mail_complete = False  # also if sending fails at once, whatever was sent before
        super().send(s)
        self.is_mail_complete = isinstance(s, bytes) and s.endswith(b"\r\n.\r\n")

    def _get_socket(self, *_: object) -> socket.socket:
        return self._connected_socket


class SmtpClient:
    """Connects to SMTP_HOST with the first mail. Network errors become a result, not an exception."""

    def __init__(self) -> None:
        self._smtp: _SmtpOverSocket | None = None
        self._socket: socket.socket | None = None

    def send(self, mail: EmailMessage, recipient: str) -> SendResult:
        """Send one mail within MAIL_SECONDS."""
        deadline = time.monotonic() + settings().mail_seconds
        with sockets.hang_up_at(deadline, self._current_socket):
            result = self._connect_and_send(mail, recipient, deadline)
        if result.fault in (Fault.SERVER, Fault.TEMPORARY, Fault.UNCONFIRMED):
            self.close()
        return result

    def close(self) -> None:
        """Hang up without waiting for a reply: what was accepted is accepted."""
        with suppress(OSError):
            if self._smtp is not None and self._smtp.sock is not None:
                self._smtp.sock.settimeout(QUIT_SECONDS)
                self._smtp.sock.sendall(b"QUIT\r\n")
        with suppress(OSError):
            if self._smtp is not None:
                self._smtp.close()
            if self._socket is not None:
                self._socket.close()
        self._smtp = self._socket = None

    def _current_socket(self) -> socket.socket | None:
        return getattr(self._smtp, "sock", None) or self._socket

    def _connect_and_send(self, mail: EmailMessage, recipient: str, deadline: float) -> SendResult:
        try:
            smtp = self._smtp or self._connect(deadline)
        except (sockets.DeadlineExceeded, OSError, smtplib.SMTPException, ValueError) as error:
            return SendResult(_describe_error(error, deadline), Fault.SERVER)
        return self._send_mail(smtp, mail, recipient, deadline)

    def _send_mail(
        self, smtp: _SmtpOverSocket, mail: EmailMessage, recipient: str, deadline: float
    ) -> SendResult:
        try:
            self._set_timeout(deadline)
            smtp.send_message(mail, sender_address(), [recipient])
            return SendResult(None)
        except smtplib.SMTPRecipientsRefused as error:
            return _classify(*error.recipients[recipient])
        except smtplib.SMTPSenderRefused as error:
            return SendResult(_reply_text(error.smtp_code, error.smtp_error), Fault.SERVER)
        except smtplib.SMTPDataError as error:
            return _classify(error.smtp_code, error.smtp_error)
        except smtplib.SMTPNotSupportedError:
            return SendResult("the server does not support the characters of this address", Fault.PERMANENT)
        except (sockets.DeadlineExceeded, OSError, smtplib.SMTPException, ValueError) as error:
            fault = Fault.UNCONFIRMED if smtp.is_mail_complete else Fault.TEMPORARY
            return SendResult(_describe_error(error, deadline), fault)

    def _connect(self, deadline: float) -> _SmtpOverSocket:
        mail_settings = settings()
        assert mail_settings.smtp_host, "mail is enabled"
        port = mail_settings.smtp_port or DEFAULT_PORTS[mail_settings.smtp_tls]
        target = Target(mail_settings.smtp_tls == "implicit", mail_settings.smtp_host, port, "")
        connect_seconds = min(mail_settings.notify_connect_seconds, sockets.seconds_left(deadline))
        addresses = resolve(target, allow_private=True, seconds=connect_seconds)
        self._socket = sockets.connect(target, addresses, deadline, mail_settings.notify_connect_seconds)
        if target.is_secure:
            self._socket = sockets.wrap_tls(self._socket, target.host, deadline)
        self._set_timeout(deadline)
        self._smtp = _SmtpOverSocket(self._socket, target.host, target.port)
        if mail_settings.smtp_tls == "starttls":
            self._set_timeout(deadline)
            self._smtp.starttls(
                context=sockets.tls_context()
            )  # raises if the server cannot: no mail in clear
        if mail_settings.smtp_user and mail_settings.smtp_password:
            self._set_timeout(deadline)
            self._smtp.login(mail_settings.smtp_user, mail_settings.smtp_password.get_secret_value())
        self._smtp.ehlo_or_helo_if_needed()
        return self._smtp

    def _set_timeout(self, deadline: float) -> None:
        sock = self._current_socket()
        if sock is not None:
            sock.settimeout(sockets.seconds_left(deadline))


def _classify(code: int, reply: bytes | str) -> SendResult:
    """The server's reply about this mail: temporary or permanent (RFC 5321 §4.2.1, RFC 3463).

    Only what concerns the recipient or the mail itself is permanent. Two 5xx replies are temporary: that the
    server does not trust us (5.7) is ours to fix, and a full mailbox (5.2.2) gets emptied.
    """
    error = _reply_text(code, reply)
    if code == 421:
        return SendResult(error, Fault.SERVER)  # the server closes the connection
    status = error.split(" ")[1]
    is_temporary = code < 500 or code == 552 or status.startswith("5.7.") or status == "5.2.2"
    return SendResult(error, Fault.TEMPORARY if is_temporary else Fault.PERMANENT)


def _reply_text(code: int, reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return f"{code} {one_line(text)}"[:200]  # PostgreSQL refuses NUL, and a terminal obeys escape sequences


def _describe_error(error: Exception, deadline: float) -> str:
    # After the deadline it was most likely our own watchdog that hung up.
    if isinstance(error, sockets.DeadlineExceeded) or time.monotonic() >= deadline:
        return f"no answer within {settings().mail_seconds:g} s"
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply_text(error.smtp_code, error.smtp_error)
    return sockets.describe_error(error)
