"""What every test stands on: a real PostgreSQL, a real Redis, the simulator over HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.services import Databases, broker, database
from tests.browser import browser  # noqa: F401  a fixture for every room
from tests.databases import EmptyDatabases
from tests.simulator import Simulator
from tests.world import World

# Whatever is set on the developer's machine must not reach a test by accident.
for name in ("API_KEYS", "API_AUTH", "RAZORPAYX_BASE_URL", "CANCEL_WINDOW_SECONDS", "SMTP_HOST"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    with database(fast=True) as server:
        yield server


@pytest.fixture(scope="session")
def empty_databases(databases: Databases) -> Iterator[EmptyDatabases]:
    """Migrated databases, one for each test at a time."""
    empty = EmptyDatabases(databases)
    yield empty
    empty.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with broker() as url:
        yield url


@pytest.fixture(scope="session")
def simulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    directory: Path = tmp_path_factory.mktemp("simulator")
    with Simulator.running(directory) as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator) -> Simulator:
    simulator_process.reset()
    return simulator_process


@pytest.fixture
def world(
    empty_databases: EmptyDatabases,
    redis_url: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The system in this process, on a database of its own. At its end every promise must hold."""
    with World.made(empty_databases, redis_url, simulator, monkeypatch) as world:
        yield world
        world.check()
