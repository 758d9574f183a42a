"""Mail: the server that takes it, whom it is from, and which operators get it."""

from email.utils import parseaddr
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from shared.settings.values import comma_separated, is_loopback

USUAL_PORTS = {"starttls": 587, "implicit": 465, "none": 25}


class Mailing(BaseSettings):
    """Mail to users and operators."""

    smtp_host: str | None = Field(None, description="The server that takes our mail; none: no mail is sent")
    smtp_port: int | None = Field(
        None, ge=1, le=65535, description="Its port; by default 587, 465 with implicit TLS, 25 without"
    )
    smtp_user: str | None = Field(None, description="Whom we sign in as")
    smtp_password: SecretStr | None = Field(None, description="The password for it")
    smtp_tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="How the line is encrypted: `starttls`, `implicit`; `none` on loopback only"
    )
    mail_from: str | None = Field(
        None, description="Whom mail is from: `payouts@example.com` or `Name <payouts@example.com>`"
    )
    mail_app_name: str = Field(
        "Coin Payouts", min_length=1, max_length=60, description="What users call the app, as mail names it"
    )
    mail_seconds: float = Field(60, gt=0, le=600, description="Longest that sending one mail may take")
    operator_emails: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated)] = Field(
        (), description="Operators who are told of new exception records: comma-separated addresses"
    )

    @field_validator("mail_from", mode="after")
    @classmethod
    def _sender(cls, written: str | None) -> str | None:
        if written is not None:
            _check(parseaddr(written)[1] if written.endswith(">") else written)
            _one_line(written)
        return written

    @field_validator("mail_app_name", mode="after")
    @classmethod
    def _name(cls, name: str) -> str:
        return _one_line(name)

    @field_validator("operator_emails", mode="after")
    @classmethod
    def _operators(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            _check(address)
        return tuple(dict.fromkeys(addresses))


def mail_faults(here: Mailing) -> list[str]:
    """What of it does not fit together; nothing when mail is off."""
    if here.smtp_host is None:
        return []
    faults = []
    if here.mail_from is None:
        faults.append("MAIL_FROM: is required with SMTP_HOST")
    if here.smtp_tls == "none" and not is_loopback(here.smtp_host):
        faults.append(f"SMTP_TLS: none is accepted only on loopback, and SMTP_HOST is {here.smtp_host}")
    if (here.smtp_user is None) != (here.smtp_password is None):
        faults.append("SMTP_USER, SMTP_PASSWORD: go together")
    return faults


def _check(address: str) -> None:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"{address[:100]!r} is no address: {error}") from None


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text
