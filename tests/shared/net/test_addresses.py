"""Which URLs an app may register, and which addresses are public."""

import socket
import threading
import time

import pytest

from shared.errors import BadRequest
from shared.net import addresses
from shared.net.addresses import NotPublic, Target, is_public, parse_url, resolve

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1",
    "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1",
    "::", "::1", "::7f00:1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a00:1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2001:10::1",
    "2002:7f00:1::1", "2002:a00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "4000::1", "2606:4700:4700::1111%eth0", "no address", "", "127.1", "0x7f000001",
]  # fmt: skip
GOOD = {
    "https://app.example": Target(True, "app.example", 443, "/"),
    "https://app.example:8443/hook?app=quiz": Target(True, "app.example", 8443, "/hook?app=quiz"),
    "HTTPS://App.Example/Hook": Target(True, "app.example", 443, "/Hook"),
    "https://[2606:4700:4700::1111]/": Target(True, "2606:4700:4700::1111", 443, "/"),
    "https://8.8.8.8/x": Target(True, "8.8.8.8", 443, "/x"),
}
BAD = [
    "", "app.example", "//app.example", "http://app.example", "ftp://app.example", "file:///etc/passwd",
    "gopher://app.example", "https://", "https:///hook", "https://user@app.example", "https://user:word@app.example",
    "https://8.8.8.8@127.0.0.1", "https://app.example:0", "https://app.example:65536", "https://app.example:x",
    "https://app.example\\@127.0.0.1", "https://app.example/#x", "https://app .example", "https://app.example/a b",
    "https://app.example/\r\nX: y", "https://app.example/\t", "https://äpp.example", "https://app.example/\x00",
    "https://[::1", "https://a,b", "https://app.example/" + "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_invalid_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", GOOD)
def test_valid_https_urls_are_accepted(url: str) -> None:
    assert parse_url(url, allow_private=False) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_invalid_or_unencrypted_urls_are_refused(url: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_url(url, allow_private=False)
    assert error.value.code == "bad_url"


def test_http_urls_are_accepted_only_in_development() -> None:
    assert parse_url("http://127.0.0.1:8000/", allow_private=True) == Target(False, "127.0.0.1", 8000, "/")
    with pytest.raises(BadRequest):
        parse_url("ftp://127.0.0.1/", allow_private=True)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *results: str) -> None:
    """Every host name resolves to these addresses."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in results]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)


TARGET = Target(True, "app.example", 443, "/")


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "8.8.8.8", "1.1.1.1")
    assert resolve(TARGET, allow_private=False, seconds=1) == ["8.8.8.8", "1.1.1.1"]
    resolve_to(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(NotPublic, match=r"app.example resolves to 10.0.0.1"):
        resolve(TARGET, allow_private=False, seconds=1)
    assert resolve(TARGET, allow_private=True, seconds=1) == ["8.8.8.8", "10.0.0.1"]


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0", "localhost"])
def test_other_spellings_of_this_machine_are_recognised(host: str) -> None:
    with pytest.raises(NotPublic):
        resolve(Target(True, host, 443, "/"), allow_private=False, seconds=5)


def test_an_invalid_host_name_is_a_network_error() -> None:
    with pytest.raises(OSError, match="cannot be resolved"):
        resolve(Target(True, "a" * 70 + ".example", 443, "/"), allow_private=False, seconds=5)


def test_a_silent_name_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    test_is_over = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        test_is_over.wait(10)
        return []

    monkeypatch.setattr(addresses.socket, "getaddrinfo", silent)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        resolve(TARGET, allow_private=False, seconds=0.1)
    assert time.monotonic() - started < 5  # not the resolver's ten seconds
    test_is_over.set()
