"""Types and validators that several groups of settings share."""

import base64
import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def comma_separated(value: object) -> object:
    """Split a comma-separated list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def is_loopback(host: str) -> bool:
    """True if only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def all_positive(delays: tuple[float, ...]) -> tuple[float, ...]:
    """Check that all delays are positive. Raises ValueError."""
    if any(delay <= 0 for delay in delays):
        raise ValueError("each delay must be more than 0 seconds")
    return delays


def web_address(url: str, example: str) -> str:
    """Return a web address without its last slash. Raises ValueError if it has a password or a query."""
    try:
        parts = urlsplit(url)
        is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        is_plain = is_address = False
    if not (is_address and is_plain and re.fullmatch(r"[\w./:\[\]~%-]*", url, re.ASCII)):
        raise ValueError(f"must be like {example}, without a password")
    return url.rstrip("/")


def is_base64_of_32_bytes(text: str) -> bool:
    """True if `text` is base64 of 32 bytes."""
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:
        return False


# Seconds, comma-separated. The validators are part of the type: those of two settings groups would hide each
# other.
DelaysSeconds = Annotated[
    tuple[float, ...], NoDecode, BeforeValidator(comma_separated), AfterValidator(all_positive)
]
