"""The wire to SMTP_HOST: one connection for many mails, encrypted and bounded in time as a whole.

A mail counts as sent when the server has said yes to all of it, and not before.
"""

import smtplib
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.notifications import lines
from shared.notifications.addresses import Target, look_up
from shared.notifications.mail.letters import domain, sender_address
from shared.notifications.mail.recipients import one_line
from shared.settings import settings
from shared.settings.mailing import USUAL_PORTS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GOODBYE_SECONDS = 1.0


class Fault(StrEnum):
    """Whose fault it is that a mail was not taken, and so what to do about it."""

    SERVER = "server"  # it takes nothing from us now: no mail's fault
    LATER = "later"  # not this mail now
    UNSURE = "unsure"  # it was said in full, and no answer came: it may have been taken
    NEVER = "never"  # this mail is refused for good


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one try. `error` says in a few words why not; None: the server took it."""

    error: str | None
    fault: Fault | None = None


class _Protocol(smtplib.SMTP):
    """The library's, on a line that is there already, and with no look-up of our own name."""

    def __init__(self, line: socket.socket, host: str, port: int) -> None:
        self._line = line
        self.is_said = False  # the last word was the end of a mail
        super().__init__(host, port, local_hostname=domain())

    def send(self, s: "ReadableBuffer | str") -> None:
        """The library's; remembers whether a mail was said to its end."""
        self.is_said = False  # what cannot even be begun was not said, whatever was said before it
        super().send(s)
        self.is_said = isinstance(s, bytes) and s.endswith(b"\r\n.\r\n")

    def _get_socket(self, *_: object) -> socket.socket:
        return self._line


class Server:
    """SMTP_HOST, reached when the first mail goes out. Raises nothing for the wire."""

    def __init__(self) -> None:
        self._protocol: _Protocol | None = None
        self._line: socket.socket | None = None

    def send(self, mail: EmailMessage, recipient: str) -> Told:
        """Hand over one mail, within MAIL_SECONDS."""
        deadline = time.monotonic() + settings().mail_seconds
        with lines.hung_up_at(deadline, self._line_now):
            told = self._send(mail, recipient, deadline)
        if told.fault in (Fault.SERVER, Fault.LATER, Fault.UNSURE):
            self.close()
        return told

    def close(self) -> None:
        """Hang up. What was taken is taken: nobody waits for a goodbye."""
        with suppress(OSError):
            if self._protocol is not None and self._protocol.sock is not None:
                self._protocol.sock.settimeout(GOODBYE_SECONDS)
                self._protocol.sock.sendall(b"QUIT\r\n")
        with suppress(OSError):
            if self._protocol is not None:
                self._protocol.close()
            if self._line is not None:
                self._line.close()
        self._protocol = self._line = None

    def _line_now(self) -> socket.socket | None:
        return getattr(self._protocol, "sock", None) or self._line

    def _send(self, mail: EmailMessage, recipient: str, deadline: float) -> Told:
        try:
            protocol = self._protocol or self._connected(deadline)
        except (lines.TooSlow, OSError, smtplib.SMTPException, ValueError) as error:
            return Told(_words(error, deadline), Fault.SERVER)
        return self._handed_over(protocol, mail, recipient, deadline)

    def _handed_over(self, protocol: _Protocol, mail: EmailMessage, recipient: str, deadline: float) -> Told:
        try:
            self._bound(deadline)
            protocol.send_message(mail, sender_address(), [recipient])
            return Told(None)
        except smtplib.SMTPRecipientsRefused as error:
            return _judged(*error.recipients[recipient])
        except smtplib.SMTPSenderRefused as error:
            return Told(_said(error.smtp_code, error.smtp_error), Fault.SERVER)
        except smtplib.SMTPDataError as error:
            return _judged(error.smtp_code, error.smtp_error)
        except smtplib.SMTPNotSupportedError:
            return Told("the server takes no address with letters like these", Fault.NEVER)
        except (lines.TooSlow, OSError, smtplib.SMTPException, ValueError) as error:
            return Told(_words(error, deadline), Fault.UNSURE if protocol.is_said else Fault.LATER)

    def _connected(self, deadline: float) -> _Protocol:
        here = settings()
        assert here.smtp_host, "mail is on"
        target = Target(
            here.smtp_tls == "implicit", here.smtp_host, here.smtp_port or USUAL_PORTS[here.smtp_tls], ""
        )
        patience = min(here.notify_connect_seconds, lines.left(deadline))
        addresses = look_up(target, allow_private=True, seconds=patience)
        self._line = lines.connected(target, addresses, deadline)
        if target.is_secure:
            self._line = lines.encrypted(self._line, target.host, deadline)
        self._bound(deadline)
        self._protocol = _Protocol(self._line, target.host, target.port)
        if here.smtp_tls == "starttls":
            self._bound(deadline)
            self._protocol.starttls(context=lines.trust())  # without it we say nothing more
        if here.smtp_user and here.smtp_password:
            self._bound(deadline)
            self._protocol.login(here.smtp_user, here.smtp_password.get_secret_value())
        self._protocol.ehlo_or_helo_if_needed()
        return self._protocol

    def _bound(self, deadline: float) -> None:
        line = self._line_now()
        if line is not None:
            line.settimeout(lines.left(deadline))


def _judged(code: int, words: bytes | str) -> Told:
    """What the server said about this mail: later, or never (RFC 5321 §4.2.1, RFC 3463).

    Never is only what the recipient or the mail itself is refused for. That we are not trusted (5.7) is
    ours to mend, and a mailbox that is full (5.2.2) becomes empty: both may be taken tomorrow.
    """
    said = _said(code, words)
    if code == 421:
        return Told(said, Fault.SERVER)  # it closes
    status = said.split(" ")[1]
    is_later = code < 500 or code == 552 or status.startswith("5.7.") or status == "5.2.2"
    return Told(said, Fault.LATER if is_later else Fault.NEVER)


def _said(code: int, words: bytes | str) -> str:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return f"{code} {one_line(text)}"[:200]  # no NUL for the database, and nothing that a terminal obeys


def _words(error: Exception, deadline: float) -> str:
    # Whoever hung up, we ourselves perhaps: because time was up.
    if isinstance(error, lines.TooSlow) or time.monotonic() >= deadline:
        return f"no answer within {settings().mail_seconds:g} s"
    if isinstance(error, smtplib.SMTPResponseException):
        return _said(error.smtp_code, error.smtp_error)
    return lines.words(error)
