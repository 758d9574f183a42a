"""Where PostgreSQL and Redis are. Addresses are read whole when settings are read: a slip is named then.

No message here repeats a part of an address: a password with an odd character in it may stand anywhere.
"""

import difflib
import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import psycopg
from psycopg import conninfo, pq
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from shared.settings.values import is_loopback

POSTGRESQL = ("postgresql+psycopg://", "postgresql://", "postgres://")
REDIS = ("redis", "rediss", "unix")
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS = ("ssl_cert_reqs", "ssl_check_hostname", *TLS_FILES)
NOWHERE = "/nowhere"  # no socket is there, so libpq looks at its parameters and calls nobody
HIGHEST_PORT = 65_535
BAD_PORT = "the port must be a number; in a password write : / @ ? # as %3A %2F %40 %3F %23"


class Places(BaseSettings):
    """PostgreSQL and Redis."""

    database_url: SecretStr = Field(
        description="PostgreSQL: `postgresql://user:password@host/database`; "
        "with TLS `?sslmode=verify-full&sslrootcert=FILE`; several hosts with commas"
    )
    redis_url: SecretStr = Field(
        description="Redis, the broker: `redis://host:6379/0`; "
        "with TLS `rediss://`, which verifies the certificate (`?ssl_ca_certs=FILE` for your own authority)"
    )
    database_pool_size: int = Field(16, ge=1, le=200, description="Database connections per process")

    @field_validator("database_url", mode="after")
    @classmethod
    def _postgresql(cls, url: SecretStr) -> SecretStr:
        return SecretStr(postgresql(url.get_secret_value()))

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        return SecretStr(Redis.at(url.get_secret_value()).url)


def postgresql(url: str) -> str:
    """The address as SQLAlchemy takes it. Several hosts are tried in turn, for one that can be written to.

    libpq reads it, so whatever it takes is taken. Raises ValueError.
    """
    prefix = next((one for one in POSTGRESQL if url.startswith(one)), None)
    if prefix is None:
        raise ValueError("must begin with postgresql://")
    try:
        told = {k: str(v) for k, v in conninfo.conninfo_to_dict("postgresql://" + url[len(prefix) :]).items()}
    except psycopg.ProgrammingError as error:
        raise ValueError(_of_parameters(str(error))) from None
    hosts, ports = told.pop("host", ""), told.pop("port", "")
    _check_ports(hosts, ports)
    _ask_libpq(told)
    user, password, database = (told.pop(name, "") for name in ("user", "password", "dbname"))
    if not database:
        raise ValueError("names no database: it ends like /payouts")
    place = f"[{hosts}]" if ":" in hosts else hosts
    if "," in hosts:
        told.setdefault("target_session_attrs", "read-write")
    if not hosts or "," in hosts or hosts.startswith("/"):
        place, told = "", {**told, "host": hosts, "port": ports}
    elif ports:
        place = f"{place}:{ports}"
    query = urlencode({name: value for name, value in told.items() if value}, quote_via=quote)
    return f"postgresql+psycopg://{_login(user, password)}{place}/{quote(database)}" + (query and f"?{query}")


def _login(user: str, password: str) -> str:
    if not (user or password):
        return ""
    return quote(user, safe="") + (password and f":{quote(password, safe='')}") + "@"


def _of_parameters(message: str) -> str:
    """What is wrong with an address that libpq cannot read, in words that repeat nothing of it."""
    found = re.search(r'parameter: "(\w+)"', message)
    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    close = difflib.get_close_matches(found[1], known, 1) if found else []
    if close and found and close[0] == found[1]:
        return f"{close[0]} cannot be read: write = in a value as %3D"
    if close:
        return f"has a parameter that PostgreSQL does not know; {close[0]} is meant, perhaps"
    return "cannot be read: write postgresql://user:password@host:5432/database, odd characters as %40"


def _check_ports(hosts: str, ports: str) -> None:
    given = [port for port in ports.split(",") if port]
    if not all(port.isascii() and port.isdigit() and 1 <= int(port) <= HIGHEST_PORT for port in given):
        raise ValueError(BAD_PORT)
    if len(ports.split(",")) not in (1, len(hosts.split(","))):
        raise ValueError("names more ports than hosts, or fewer")
    if any(":" in host and not _is_ip(host) for host in hosts.split(",")):
        raise ValueError("write several hosts as host1:5432,host2:5432")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ask_libpq(told: dict[str, str]) -> None:
    """Whether libpq takes the values of all parameters. It is asked without a host, so it calls nobody."""
    asked = conninfo.make_conninfo(**{**told, "host": NOWHERE})
    connection = pq.PGconn.connect_start(asked.encode())
    message = connection.error_message.decode(errors="replace")
    connection.finish()
    if NOWHERE in message:
        return
    wrong = [name for name in told if name in message and name not in ("user", "password", "dbname")]
    what = f"{wrong[0]} has a value" if wrong else "has a parameter with a value"
    raise ValueError(f"{what} that PostgreSQL does not take")


@dataclass(frozen=True, slots=True)
class Redis:
    """Where Redis is and how its line is encrypted, decided once for all who speak to it.

    redis-py, kombu and limits each have another way to say it, and other defaults: kombu verifies nothing
    unless it is told to.
    """

    scheme: str
    host: str
    port: int
    user: str
    password: str
    path: str  # of a socket
    database: int
    tls: tuple[tuple[str, str], ...]

    @classmethod
    def at(cls, url: str) -> "Redis":
        """Read an address. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in REDIS or not url.startswith(f"{parts.scheme}://"):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if "," in parts.netloc:
            raise ValueError("one host only: for several put the address of what chooses among them")
        if parts.fragment or " " in url:
            raise ValueError("cannot be read: in a password write / @ ? # as %2F %40 %3F %23")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(BAD_PORT) from None
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        number = given.pop("db", "") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
        if number and not (number.isascii() and number.isdigit()):
            raise ValueError("the database is a number, as in redis://host:6379/0")
        if parts.scheme == "unix" and not parts.path.strip("/"):
            raise ValueError("names no socket, as in unix:///run/redis.sock")
        return cls(
            parts.scheme,
            unquote(parts.hostname or "localhost"),
            port or 6379,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            unquote(parts.path) if parts.scheme == "unix" else "",
            int(number or 0),
            _tls(given, is_on=parts.scheme == "rediss"),
        )

    @property
    def url(self) -> str:
        """As redis-py takes it."""
        query = dict(self.tls)
        if self.scheme == "unix":
            return f"unix://{_login(self.user, self.password)}{quote(self.path)}?db={self.database}"
        return f"{self._server}/{self.database}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    @property
    def for_limits(self) -> str:
        """As limits takes it."""
        return self.url.replace("unix://", "redis+unix://", 1)

    @property
    def for_kombu(self) -> dict[str, Any]:
        """As Celery's settings take it; Flower reads them too."""
        if self.scheme == "unix":
            path = f"{_login(self.user, self.password)}{quote(self.path)}"
            return {"broker_url": f"redis+socket://{path}?virtual_host={self.database}"}
        if self.scheme == "redis":
            return {"broker_url": self.url}
        named = dict(self.tls)
        how = {
            "ssl_cert_reqs": ssl.CERT_NONE if named["ssl_cert_reqs"] == "none" else ssl.CERT_REQUIRED,
            "ssl_check_hostname": named["ssl_check_hostname"] == "true",
            **{name: named[name] for name in TLS_FILES if name in named},
        }
        return {"broker_url": f"{self._server}/{self.database}", "broker_use_ssl": how}

    @property
    def _server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{_login(self.user, self.password)}{host}:{self.port}"


def _tls(given: dict[str, str], *, is_on: bool) -> tuple[tuple[str, str], ...]:
    unknown = [name for name in given if name not in TLS]
    if unknown:
        raise ValueError(f"takes no other parameters than db, {', '.join(TLS)}")
    if not is_on:
        if given:
            raise ValueError("ssl_… goes with rediss:// only")
        return ()
    verify = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify not in ("required", "none"):
        raise ValueError("ssl_cert_reqs must be required or none")
    check = given.get("ssl_check_hostname", "true" if verify == "required" else "false").lower()
    if check not in ("true", "false"):
        raise ValueError("ssl_check_hostname must be true or false")
    for name in TLS_FILES:
        if name in given and not Path(given[name]).is_file():
            raise ValueError(f"{name} names no file")
    files = {name: given[name] for name in TLS_FILES if name in given}
    return tuple({"ssl_cert_reqs": verify, "ssl_check_hostname": check, **files}.items())


def in_the_open(settings: Places) -> list[str]:
    """What is sent where others may read or change it, one sentence each.

    A name without a dot is a neighbour's in the same network of containers: nobody is told about that.
    """
    told = []
    database = conninfo.conninfo_to_dict(
        settings.database_url.get_secret_value().replace("postgresql+psycopg", "postgresql", 1)
    )
    sslmode, hosts = database.get("sslmode", "prefer"), str(database.get("host", "")).split(",")
    if any(map(_is_elsewhere, hosts)) and sslmode not in ("verify-ca", "verify-full"):
        told.append("DATABASE_URL: nobody checks who the database is: add ?sslmode=verify-full&sslrootcert=…")
    redis = Redis.at(settings.redis_url.get_secret_value())
    if redis.scheme == "redis" and _is_elsewhere(redis.host):
        told.append("REDIS_URL: the line to Redis is not encrypted: use rediss://")
    if ("ssl_cert_reqs", "none") in redis.tls:
        told.append("REDIS_URL: ssl_cert_reqs=none: nobody checks who Redis is")
    return told


def _is_elsewhere(host: str) -> bool:
    return not host.startswith(("/", "@")) and ("." in host or ":" in host) and not is_loopback(host)
