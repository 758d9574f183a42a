"""Which URLs an app may listen at, and which addresses we then connect to.

Whoever may add an endpoint must not reach with it what only our machines can reach. A name is looked up at
each send, every address must be public, and the connection goes to an address that was looked at: a name
that answers differently the second time gains nothing.
"""

import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from shared.errors import BadRequest

MAX_URL = 2000
HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
PORTS = {"https": 443, "http": 80}

# Public IPv6 is 2000::/3 and nothing else (IANA); in the first two of these an IPv4 address hides.
UNICAST, NAT64, SIX_TO_FOUR = map(ipaddress.IPv6Network, ("2000::/3", "64:ff9b::/96", "2002::/16"))
# Inside, though older Pythons (or their numbers) say otherwise: IANA's own, Azure's services, documentation.
INSIDE = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotPublic(Exception):
    """The name leads to an address that only we can reach."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    is_secure: bool
    host: str
    port: int
    path: str  # with its query


def parse(url: str, *, allow_private: bool) -> Target:
    """The parts of a URL that an app may listen at. Raises BadRequest."""
    if not (0 < len(url) <= MAX_URL and url.isascii() and url.isprintable()) or set(url) & {" ", "\\", "#"}:
        raise _bad("A URL has up to 2000 printable ASCII characters without blanks, backslash and #")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _bad(str(error)) from None
    if parts.scheme not in (PORTS if allow_private else ("https",)):
        raise _bad("It must begin with https://; http:// only with --allow-private")
    if "@" in parts.netloc:
        raise _bad("It must not hold a user or a password")
    if not HOST.fullmatch(host) or port == 0:
        raise _bad("It names no host and port that can be reached")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme == "https", host, port or PORTS[parts.scheme], path)


def look_up(target: Target, *, allow_private: bool, seconds: float) -> list[str]:
    """The addresses to connect to. Raises NotPublic when any is private; OSError when there are none."""
    found = _within(target, seconds)
    if not found:
        raise OSError("the name has no address")
    if not allow_private and (inside := [one for one in found if not is_public(one)]):
        raise NotPublic(f"{target.host} leads to {inside[0]}, which is not a public address")
    return found


def is_public(text: str) -> bool:
    """Whether anybody on the internet can reach this address, as far as its number tells."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        hidden = address.ipv4_mapped or _hidden_in(address)
        if hidden is not None:
            return is_public(str(hidden))
        if address not in UNICAST or address.scope_id is not None:
            return False
    if any(address.version == block.version and address in block for block in INSIDE):
        return False
    return address.is_global and not address.is_multicast


def _hidden_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour if address in SIX_TO_FOUR else None


def _within(target: Target, seconds: float) -> list[str]:
    """Ask for the addresses. The system's own look-up knows no time limit, so another thread waits for it."""
    answer: SimpleQueue[list[str] | Exception] = SimpleQueue()
    threading.Thread(target=lambda: answer.put(_addresses(target)), daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except Empty:
        raise TimeoutError("the name was not looked up in time") from None
    if isinstance(found, Exception):
        raise OSError("the name cannot be looked up") from found
    return found


def _addresses(target: Target) -> list[str] | Exception:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: no name at all (a label that is too long)
        return error
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _bad(why: str) -> BadRequest:
    return BadRequest("Invalid endpoint URL", why, code="bad_url")
