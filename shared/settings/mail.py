"""Mail: the server, the sender, and the operators who receive it."""

from email.utils import parseaddr
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.types import comma_separated, is_loopback

DEFAULT_PORTS = {"starttls": 587, "implicit": 465, "none": 25}


class MailSettings(BaseSettings):
    """Mail to users and operators."""

    smtp_host: str | None = Field(
        None, description="SMTP server for outgoing mail; without it no mail is sent"
    )
    smtp_port: int | None = Field(
        None, ge=1, le=65535, description="Its port; by default 587, 465 with implicit TLS, 25 without TLS"
    )
    smtp_user: str | None = Field(None, description="User name at the SMTP server")
    smtp_password: SecretStr | None = Field(None, description="Password of SMTP_USER")
    smtp_tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="Encryption: `starttls` or `implicit`; `none` on loopback only"
    )
    mail_from: str | None = Field(
        None, description="Sender: `payouts@example.com` or `Name <payouts@example.com>`"
    )
    mail_app_name: str = Field(
        "Coin Payouts", min_length=1, max_length=60, description="The app's name in mail"
    )
    mail_seconds: float = Field(60, gt=0, le=600, description="Longest time to send one mail")
    operator_emails: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated)] = Field(
        (), description="Operators who receive mail about new exception records: comma-separated addresses"
    )

    @field_validator("mail_from", mode="after")
    @classmethod
    def _check_sender(cls, sender: str | None) -> str | None:
        if sender is not None:
            _check_address(parseaddr(sender)[1] if sender.endswith(">") else sender)
            _check_one_line(sender)
        return sender

    @field_validator("mail_app_name", mode="after")
    @classmethod
    def _check_app_name(cls, name: str) -> str:
        return _check_one_line(name)

    @field_validator("operator_emails", mode="after")
    @classmethod
    def _check_operators(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            _check_address(address)
        return tuple(dict.fromkeys(addresses))


def find_mail_faults(mail_settings: MailSettings) -> list[str]:
    """Settings that contradict each other; none while mail is disabled."""
    if mail_settings.smtp_host is None:
        return []
    faults = []
    if mail_settings.mail_from is None:
        faults.append("MAIL_FROM: is required with SMTP_HOST")
    if mail_settings.smtp_tls == "none" and not is_loopback(mail_settings.smtp_host):
        faults.append(
            f"SMTP_TLS: none is allowed only on loopback, but SMTP_HOST is {mail_settings.smtp_host}"
        )
    if (mail_settings.smtp_user is None) != (mail_settings.smtp_password is None):
        faults.append("SMTP_USER, SMTP_PASSWORD: set both or neither")
    return faults


def _check_address(address: str) -> None:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"{address[:100]!r} is not an email address: {error}") from None


def _check_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text
