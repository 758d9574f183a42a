"""The addresses of PostgreSQL and Redis, parsed completely when the settings are read, to report errors
early.

No message repeats a part of an address: a password with special characters may end up in any part.
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

from shared.settings.types import is_loopback

POSTGRESQL_PREFIXES = ("postgresql+psycopg://", "postgresql://", "postgres://")
REDIS_SCHEMES = ("redis", "rediss", "unix")
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_check_hostname", *TLS_FILES)
NONEXISTENT_SOCKET = "/nowhere"  # so libpq checks its parameters and connects to nothing
MAX_PORT = 65_535
BAD_PORT = "the port must be a number; write : / @ ? # in a password as %3A %2F %40 %3F %23"


class AddressSettings(BaseSettings):
    """The addresses of PostgreSQL and Redis."""

    database_url: SecretStr = Field(
        description="PostgreSQL: `postgresql://user:password@host/database`; "
        "with TLS `?sslmode=verify-full&sslrootcert=FILE`; several hosts separated by commas"
    )
    redis_url: SecretStr = Field(
        description="Redis, the broker: `redis://host:6379/0`; "
        "with TLS `rediss://`, which verifies the certificate (`?ssl_ca_certs=FILE` for your own CA)"
    )
    database_pool_size: int = Field(16, ge=1, le=200, description="Database connections per process")

    @field_validator("database_url", mode="after")
    @classmethod
    def _postgresql(cls, url: SecretStr) -> SecretStr:
        return SecretStr(parse_postgresql_url(url.get_secret_value()))

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        return SecretStr(RedisAddress.parse(url.get_secret_value()).url)


def parse_postgresql_url(url: str) -> str:
    """Return the address as SQLAlchemy accepts it. Of several hosts, the first writable one is used.

    libpq parses it, so all its forms are accepted. Raises ValueError.
    """
    prefix = next((prefix for prefix in POSTGRESQL_PREFIXES if url.startswith(prefix)), None)
    if prefix is None:
        raise ValueError("must begin with postgresql://")
    try:
        parsed = conninfo.conninfo_to_dict("postgresql://" + url[len(prefix) :])
    except psycopg.ProgrammingError as error:
        raise ValueError(_describe_conninfo_error(str(error))) from None
    parameters = {name: str(value) for name, value in parsed.items()}
    hosts = parameters.pop("host", "")
    ports = parameters.pop("port", "")
    _check_ports(hosts, ports)
    _check_with_libpq(parameters)
    user, password, database = (parameters.pop(name, "") for name in ("user", "password", "dbname"))
    if not database:
        raise ValueError("has no database name: it must end like /payouts")
    netloc = f"[{hosts}]" if ":" in hosts else hosts
    if "," in hosts:
        parameters.setdefault("target_session_attrs", "read-write")
    if not hosts or "," in hosts or hosts.startswith("/"):
        netloc = ""
        parameters |= {"host": hosts, "port": ports}
    elif ports:
        netloc = f"{netloc}:{ports}"
    query = urlencode({name: value for name, value in parameters.items() if value}, quote_via=quote)
    return f"postgresql+psycopg://{_login(user, password)}{netloc}/{quote(database)}" + (
        query and f"?{query}"
    )


def _login(user: str, password: str) -> str:
    if not (user or password):
        return ""
    return quote(user, safe="") + (password and f":{quote(password, safe='')}") + "@"


def _describe_conninfo_error(message: str) -> str:
    """Describe an address that libpq cannot parse, without repeating any part of it."""
    match = re.search(r'parameter: "(\w+)"', message)
    keywords = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    close = difflib.get_close_matches(match[1], keywords, 1) if match else []
    if close and match and close[0] == match[1]:
        return f"{close[0]} is not valid: write = in a value as %3D"
    if close:
        return f"has an unknown parameter; did you mean {close[0]}?"
    return "is not valid: use postgresql://user:password@host:5432/database, with @ in a password as %40"


def _check_ports(hosts: str, ports: str) -> None:
    numbers = [port for port in ports.split(",") if port]
    if not all(port.isascii() and port.isdigit() and 1 <= int(port) <= MAX_PORT for port in numbers):
        raise ValueError(BAD_PORT)
    if len(ports.split(",")) not in (1, len(hosts.split(","))):
        raise ValueError("must have one port, or as many ports as hosts")
    if any(":" in host and not _is_ip(host) for host in hosts.split(",")):
        raise ValueError("must list several hosts as host1:5432,host2:5432")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_with_libpq(parameters: dict[str, str]) -> None:
    """Check the values of all parameters with libpq, without connecting. Raises ValueError."""
    probe = conninfo.make_conninfo(**{**parameters, "host": NONEXISTENT_SOCKET})
    connection = pq.PGconn.connect_start(probe.encode())
    message = connection.error_message.decode(errors="replace")
    connection.finish()
    if NONEXISTENT_SOCKET in message:
        return
    invalid = [name for name in parameters if name in message and name not in ("user", "password", "dbname")]
    where = f"{invalid[0]} has a value" if invalid else "has a parameter with a value"
    raise ValueError(f"{where} that PostgreSQL does not accept")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of Redis and its encryption, parsed once for all clients.

    redis-py, kombu and limits each configure it differently and have other defaults: kombu verifies nothing
    unless it is configured to.
    """

    scheme: str
    host: str
    port: int
    user: str
    password: str
    path: str  # of a Unix socket
    database: int
    tls: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Parse an address. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in REDIS_SCHEMES or not url.startswith(f"{parts.scheme}://"):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if "," in parts.netloc:
            raise ValueError("must have one host: for several, use the address of their load balancer")
        if parts.fragment or " " in url:
            raise ValueError("is not valid: write / @ ? # in a password as %2F %40 %3F %23")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(BAD_PORT) from None
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        number = parameters.pop("db", "") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
        if number and not (number.isascii() and number.isdigit()):
            raise ValueError("the database must be a number, as in redis://host:6379/0")
        if parts.scheme == "unix" and not parts.path.strip("/"):
            raise ValueError("must name a socket, as in unix:///run/redis.sock")
        return cls(
            parts.scheme,
            unquote(parts.hostname or "localhost"),
            port or 6379,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
            unquote(parts.path) if parts.scheme == "unix" else "",
            int(number or 0),
            _tls(parameters, is_on=parts.scheme == "rediss"),
        )

    @property
    def url(self) -> str:
        """The URL for redis-py."""
        query = dict(self.tls)
        if self.scheme == "unix":
            return f"unix://{_login(self.user, self.password)}{quote(self.path)}?db={self.database}"
        return f"{self._server}/{self.database}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    @property
    def celery_settings(self) -> dict[str, Any]:
        """The broker's settings for Celery; Flower reads them too."""
        if self.scheme == "unix":
            path = f"{_login(self.user, self.password)}{quote(self.path)}"
            return {"broker_url": f"redis+socket://{path}?virtual_host={self.database}"}
        if self.scheme == "redis":
            return {"broker_url": self.url}
        tls = dict(self.tls)
        options = {
            "ssl_cert_reqs": ssl.CERT_NONE if tls["ssl_cert_reqs"] == "none" else ssl.CERT_REQUIRED,
            "ssl_check_hostname": tls["ssl_check_hostname"] == "true",
            **{name: tls[name] for name in TLS_FILES if name in tls},
        }
        return {"broker_url": f"{self._server}/{self.database}", "broker_use_ssl": options}

    @property
    def _server(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{_login(self.user, self.password)}{host}:{self.port}"


def _tls(parameters: dict[str, str], *, is_on: bool) -> tuple[tuple[str, str], ...]:
    unknown = [name for name in parameters if name not in TLS_PARAMETERS]
    if unknown:
        raise ValueError(f"has an unknown parameter: allowed are db, {', '.join(TLS_PARAMETERS)}")
    if not is_on:
        if parameters:
            raise ValueError("ssl_… requires rediss://")
        return ()
    verify = parameters.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify not in ("required", "none"):
        raise ValueError("ssl_cert_reqs must be required or none")
    check = parameters.get("ssl_check_hostname", "true" if verify == "required" else "false").lower()
    if check not in ("true", "false"):
        raise ValueError("ssl_check_hostname must be true or false")
    for name in TLS_FILES:
        if name in parameters and not Path(parameters[name]).is_file():
            raise ValueError(f"{name} must name an existing file")
    files = {name: parameters[name] for name in TLS_FILES if name in parameters}
    return tuple({"ssl_cert_reqs": verify, "ssl_check_hostname": check, **files}.items())


def unencrypted_connections(settings: AddressSettings) -> list[str]:
    """Return a warning for each connection that others could read or change.

    A host without a dot is in the same container network: it gets no warning.
    """
    warnings = []
    database = conninfo.conninfo_to_dict(
        settings.database_url.get_secret_value().replace("postgresql+psycopg", "postgresql", 1)
    )
    sslmode = database.get("sslmode", "prefer")
    hosts = str(database.get("host", "")).split(",")
    if any(map(_is_remote, hosts)) and sslmode not in ("verify-ca", "verify-full"):
        warnings.append(
            "DATABASE_URL: the server's identity is not verified: add ?sslmode=verify-full&sslrootcert=…"
        )
    redis = RedisAddress.parse(settings.redis_url.get_secret_value())
    if redis.scheme == "redis" and _is_remote(redis.host):
        warnings.append("REDIS_URL: the connection is not encrypted: use rediss://")
    if ("ssl_cert_reqs", "none") in redis.tls:
        warnings.append("REDIS_URL: the server's identity is not verified: remove ssl_cert_reqs=none")
    return warnings


def _is_remote(host: str) -> bool:
    return not host.startswith(("/", "@")) and ("." in host or ":" in host) and not is_loopback(host)
