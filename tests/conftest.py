"""What every test stands on: a real PostgreSQL, a real Redis, the simulator over HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import services
from sandbox.services import Databases, broker, database
from tests.browser import browser  # noqa: F401  a fixture for every room
from tests.databases import EmptyDatabases
from tests.simulator import Simulator
from tests.world import World

# Whatever is set on the developer's machine must not reach a test by accident.
for name in ("API_KEYS", "API_AUTH", "RAZORPAYX_BASE_URL", "CANCEL_WINDOW_SECONDS", "SMTP_HOST"):
    os.environ.pop(name, None)

# A port that one process of the tests chose, and nobody listens at yet, is never the other's choice.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    services.PORTS = services.PORTS[int(worker.removeprefix("gw")) :: workers]


# What stays together in one process: what shares a running system, which costs a dozen CPU seconds to start.
SYSTEMS = {"tests/panel": "system", "tests/examples": "system", "tests/e2e": "shared or fresh"}
# The longest come first, so that both processes end at the same time; of those that start a system never two of one
# room after each other, for a room's systems run until it is left.
FIRST = (
    "tests/e2e fresh",
    "tests/chaos/test_kill_at_every_line.py",
    "tests/examples system",
    "tests/e2e shared",
    "tests/sandbox_stack/test_stack.py",
    "tests/properties/test_verbs.py",
    "tests/panel system",
    "tests/e2e/test_observing.py",
    "tests/chaos/test_chaos.py",
    "tests/e2e/test_demo.py",
    "tests/chaos/test_kill_the_mailer_at_every_line.py",
    "tests/e2e/test_sandbox.py",
    "tests/chaos/test_kill_the_notifier_at_every_line.py",
    "tests/e2e/test_mail.py",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One group for each file, and one for all that share a system."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item)))
    if hasattr(config, "workerinput"):  # alone, in the order that was asked for
        order = {group: place for place, group in enumerate(FIRST)}
        items.sort(key=lambda item: order.get(_group_of(item), len(order)))


def _group_of(item: pytest.Item) -> str:
    path = item.path.relative_to(item.config.rootpath)
    room, fixtures = path.parent.as_posix(), getattr(item, "fixturenames", ())
    for name in SYSTEMS.get(room, "").split(" or "):
        if name in fixtures:
            return f"{room} {name}"
    return path.as_posix()


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


@pytest.fixture
def people(world: World) -> None:
    """Two admins, who are independent of each other: `operator:asha` and `operator:ravi`."""
    world.operators("asha", "ravi")
