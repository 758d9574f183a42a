"""Which URLs an app may register, and which addresses we then connect to.

An endpoint must not reach what only our machines can reach. Each send resolves the host name again, every
address must be public, and the connection goes to an address that was checked: a name that resolves
differently the second time gains nothing.
"""

import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from shared.errors import BadRequest

MAX_URL_CHARACTERS = 2000
HOST_PATTERN = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
DEFAULT_PORTS = {"https": 443, "http": 80}

PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")  # all of public IPv6 (IANA)
# These two embed an IPv4 address.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
# Private, though older Pythons say otherwise: IANA's own, Azure's services, documentation.
PRIVATE_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotPublic(Exception):
    """The host name resolves to an address that only our machines can reach."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL that a connection needs."""

    is_secure: bool
    host: str
    port: int
    path: str  # with its query


def parse_url(url: str, *, allow_private: bool) -> Target:
    """Parse a URL that an app wants to register. Raises BadRequest."""
    is_readable = 0 < len(url) <= MAX_URL_CHARACTERS and url.isascii() and url.isprintable()
    if not is_readable or set(url) & {" ", "\\", "#"}:
        raise _bad_url(
            "A URL must have at most 2000 printable ASCII characters, without spaces, backslashes or #"
        )
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port
    except ValueError as error:
        raise _bad_url(str(error)) from None
    if parts.scheme not in (DEFAULT_PORTS if allow_private else ("https",)):
        raise _bad_url("The URL must begin with https:// (http:// needs --allow-private)")
    if "@" in parts.netloc:
        raise _bad_url("The URL must not contain a user name or a password")
    if not HOST_PATTERN.fullmatch(host) or port == 0:
        raise _bad_url("The URL must name a valid host and port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme == "https", host, port or DEFAULT_PORTS[parts.scheme], path)


def resolve(target: Target, *, allow_private: bool, seconds: float) -> list[str]:
    """The addresses to connect to. Raises NotPublic if any of them is private; OSError if there are none."""
    addresses = _resolve_in_time(target, seconds)
    if not addresses:
        raise OSError("the host name has no address")
    private = [] if allow_private else [address for address in addresses if not is_public(address)]
    if private:
        raise NotPublic(f"{target.host} resolves to {private[0]}, which is not a public address")
    return addresses


def is_public(text: str) -> bool:
    """True if this is an address that every machine on the internet can reach."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or _embedded_ipv4(address)
        if embedded is not None:
            return is_public(str(embedded))
        if address not in PUBLIC_IPV6 or address.scope_id is not None:
            return False
    if any(address.version == network.version and address in network for network in PRIVATE_NETWORKS):
        return False
    return address.is_global and not address.is_multicast


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour if address in SIX_TO_FOUR else None


def _resolve_in_time(target: Target, seconds: float) -> list[str]:
    """The system's resolver has no timeout, so it runs in another thread."""
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(_getaddrinfo(target)), daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError("the host name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise OSError("the host name cannot be resolved") from answer
    return answer


def _getaddrinfo(target: Target) -> list[str] | Exception:
    try:
        entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: not a host name (a label that is too long)
        return error
    return list(dict.fromkeys(str(socket_address[0]) for *_, socket_address in entries))


def _bad_url(details: str) -> BadRequest:
    return BadRequest("Invalid endpoint URL", details, code="bad_url")
