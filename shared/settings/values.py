"""What several groups of settings ask of a value."""

import base64
import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode


def comma_separated(value: object) -> object:
    """A list as the environment writes it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def all_positive(waits: tuple[float, ...]) -> tuple[float, ...]:
    """Waits in seconds. Raises ValueError for one that is none."""
    if any(wait <= 0 for wait in waits):
        raise ValueError("each wait must be more than 0 seconds")
    return waits


def web_address(url: str, like: str) -> str:
    """A web address without its last slash. Raises ValueError for one with a password or a query in it."""
    try:
        parts = urlsplit(url)
        is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_plain = is_address = False
    if not (is_address and is_plain and re.fullmatch(r"[\w./:\[\]~%-]*", url, re.ASCII)):
        raise ValueError(f"must be like {like}, without a password")
    return url.rstrip("/")


def of_32_bytes(text: str) -> bool:
    """Whether it is the base64 of 32 bytes, as keys are written."""
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:
        return False


# Seconds, written with commas. Part of the type: two groups' validators of one name would hide each other.
Waits = Annotated[tuple[float, ...], NoDecode, BeforeValidator(comma_separated), AfterValidator(all_positive)]
