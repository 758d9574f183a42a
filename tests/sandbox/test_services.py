"""PostgreSQL and Redis from the wheels: as root and as an ordinary user, killed and restarted."""

import os
import pwd
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from sandbox import services
from sandbox.services import Databases, Postgres, Redis, broker, database, free_port, is_free
from tests.sandbox.programs import lives, running

AS_ANYBODY = """
import os, signal, psycopg, redis
from sandbox.services import Postgres, Redis
with Postgres(fast=True) as postgres, Redis() as broker:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SELECT 1")
    redis.Redis.from_url(broker.url).ping()
    print(os.geteuid(), flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


def query_value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()[0]


def test_its_settings_are_safe_for_real_data(postgres: Postgres) -> None:
    wanted = {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "200",
        "TimeZone": "UTC", "server_encoding": "UTF8", "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "", "password_encryption": "scram-sha-256", "scram_iterations": "4096",
    }  # fmt: skip
    assert {name: query_value(postgres.url, f"SHOW {name}") for name in wanted} == wanted
    locale = (
        "SELECT datlocprovider::text || ':' || datlocale FROM pg_database WHERE datname = current_database()"
    )
    assert query_value(postgres.url, locale) == "b:C.UTF-8"


def test_fast_turns_off_fsync_and_password_hashing_rounds() -> None:
    with Postgres(fast=True) as server:
        assert query_value(server.url, "SHOW fsync") == "off"
        kept = "SELECT split_part(rolpassword, ':', 1) FROM pg_authid WHERE rolname = current_user"
        assert query_value(server.url, kept) == "SCRAM-SHA-256$1"


def test_a_connection_needs_the_password(postgres: Postgres) -> None:
    wrong = postgres.url.replace(postgres.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    assert stat.S_IMODE((postgres.directory / "password").stat().st_mode) == 0o600


def test_databases_are_created_copied_and_dropped(postgres: Postgres) -> None:
    first = postgres.create_database("first")
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    second = postgres.create_database("second", template="first")
    assert urlsplit(second).path == "/second"
    connection = psycopg.connect(second)
    assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    postgres.drop_database("second")  # although a client is connected
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT number FROM kept")
    connection.close()
    postgres.drop_database("second")
    postgres.drop_database("first")


def test_a_kill_ends_the_backends_and_loses_nothing_committed(tmp_path: Path) -> None:
    with Postgres(tmp_path / "pg") as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        url, first = server.url, server.pid
        backends = psutil.Process(first).children(recursive=True)
        assert backends
        server.kill()
        assert not server.alive
        assert not any(map(lives, backends))
        server.restart()
        assert server.pid != first
        assert server.url == url
        assert query_value(url, "SELECT number FROM kept") == 7
        server.restart()
        assert query_value(url, "SELECT number FROM kept") == 7


def test_a_given_directory_keeps_the_data_after_a_stop(tmp_path: Path) -> None:
    # pytest's directories are closed to other users: as root, the server has to be led into them.
    with Postgres(tmp_path) as server:
        server.create_database("kept")
    with Postgres(tmp_path) as server:
        assert query_value(server.database_url("kept"), "SELECT current_database()") == "kept"


def test_a_temporary_directory_is_gone_after_a_stop() -> None:
    with Postgres(fast=True) as server, Redis() as cache:
        directories = [server.directory, cache.directory]
        assert all(directory.exists() for directory in directories)
    assert not any(directory.exists() for directory in directories)


def test_incomplete_data_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("18\n")
    with Postgres(tmp_path, fast=True) as server:
        assert query_value(server.url, "SELECT 1") == 1


def test_as_root_the_server_runs_as_nobody() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    with Postgres(fast=True) as server:
        assert psutil.Process(server.pid).uids().effective == pwd.getpwnam("nobody").pw_uid


def test_as_root_programs_that_user_nobody_cannot_read_are_copied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    with Postgres(fast=True) as server:
        home = Path(server.argv[0]).parents[1]
    with Postgres(tmp_path, fast=True, home=closed_copy(home, tmp_path / "closed")) as server:
        assert query_value(server.url, "SELECT 1") == 1
        programs = Path(server.argv[0])
        assert not programs.is_relative_to(tmp_path)
    assert not programs.exists()


def closed_copy(home: Path, parent: Path) -> Path:
    """The wheel as it is in a virtual environment under /root."""
    parent.mkdir(mode=0o700)
    package = home.parent
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(home, parent / package.name / home.name, symlinks=True)
    shutil.copytree(libraries, parent / libraries.name)
    return parent / package.name / home.name


def test_services_run_as_an_ordinary_user() -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is needed to become another user")
        # The interpreter may be under /root: keep only the privilege to read it.
        keep = "-all,+dac_read_search"
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                  f"--inh-caps={keep}", f"--ambient-caps={keep}", f"--bounding-set={keep}"]  # fmt: skip
    with running(AS_ANYBODY, prefix=prefix) as program:
        assert program.line() != "0"
        family = program.family()
        family += [child for process in family for child in process.children(recursive=True)]
        program.end(signal.SIGINT)
        program.assert_nothing_left(family)


def test_redis_keeps_only_its_port() -> None:
    with Redis() as server:
        client = redis.Redis.from_url(server.url)
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        client.set("key", "value")
        url, first = server.url, server.pid
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.restart()
        assert server.url == url
        assert server.pid != first
        assert client.get("key") is None
        client.close()


@pytest.mark.skipif(not services.EPHEMERAL_RANGE_FILE.exists(), reason="not Linux")
def test_a_free_port_is_outside_the_ephemeral_range() -> None:
    """Otherwise the kernel may give it to a connection before the server listens."""
    lowest, _ = map(int, services.EPHEMERAL_RANGE_FILE.read_text().split())
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 1 and all(is_free(port) and port < lowest for port in ports)


def test_a_free_port_is_free_even_if_the_range_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other systems, or if all preferred ports are taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        for none_is_free in (range(0), range(number, number + 1)):
            monkeypatch.setattr(services, "PORTS", none_is_free)
            assert is_free(port := free_port()) and port != number


def test_given_services_are_used(monkeypatch: pytest.MonkeyPatch, postgres: Postgres) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url.replace("postgresql://", "postgresql+psycopg://"))
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/3")
    with broker() as url:
        assert url == "redis://elsewhere:6379/3"
    with database() as given:
        assert type(given) is Databases
        assert given.create_database("given").endswith("/given")
        given.drop_database("given")


def test_embedded_services_are_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    with broker() as url, redis.Redis.from_url(url) as client:
        assert client.ping()
    with database(fast=True) as server:
        assert isinstance(server, Postgres)
