"""Fixtures for all tests: a real PostgreSQL, a real Redis, and the simulator over HTTP."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from werkzeug.routing import Rule

from api.app import create_app
from sandbox import services
from sandbox.services import Databases, broker, database
from shared.clock import INDIA
from tests.support import tiers
from tests.support.browser import browser  # noqa: F401  a fixture for every folder
from tests.support.databases import EmptyDatabases
from tests.support.paths import files
from tests.support.simulator import Simulator
from tests.support.world import KEY, World

# Settings of the developer's machine must not reach a test.
for name in ("API_KEYS", "API_AUTH", "RAZORPAYX_BASE_URL", "CANCEL_WINDOW_SECONDS", "SMTP_HOST"):
    os.environ.pop(name, None)

# Two test processes never choose the same free port.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    services.PORTS = services.PORTS[int(worker.removeprefix("gw")) :: workers]


# Tests that share a running system stay in one process: it takes a dozen CPU seconds to start.
SYSTEMS = {"tests/panel": "system", "tests/examples": "system", "tests/e2e": "shared or fresh"}
# The longest groups come first, so that all processes end at the same time. Two groups of one folder that start a
# system do not follow each other, because a folder's systems run until its last test.
FIRST = (
    "tests/e2e fresh",
    "tests/chaos/test_kill_at_every_line.py",
    "tests/examples system",
    "tests/e2e shared",
    "tests/sandbox/test_stack.py",
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


def _compiled_once(compile_builder: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the function that builds a route's URLs once, and not for each application."""
    known: dict[Any, Any] = {}

    def compiled(rule: Rule, append_unknown: bool = True) -> Any:
        key = (rule.rule, tuple(rule._trace), repr(rule.defaults), append_unknown)
        if key not in known:
            known[key] = compile_builder(rule, append_unknown)
        return known[key]

    return compiled


# In this process, what costs time on purpose or is the same each time is cheap: the hash of a password takes a
# tenth of a second, and so do the panel's templates for each application; its routes take a hundredth.
PasswordHasher.__init__ = partialmethod(PasswordHasher.__init__, time_cost=1, memory_cost=8, parallelism=1)  # type: ignore[method-assign,assignment]
Flask.jinja_options = {"bytecode_cache": FileSystemBytecodeCache()}
Rule._compile_builder = _compiled_once(Rule._compile_builder)  # type: ignore[method-assign]


def pytest_addoption(parser: pytest.Parser) -> None:
    choices = (tiers.CHECK, tiers.TEST, tiers.ALL)
    parser.addoption("--tier", choices=choices, help="how many tests to run (tests/support/tiers.py)")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.tier is None:
        is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        config.option.tier = tiers.TEST if is_whole else tiers.ALL
    tiers.choose(config.option.tier)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    path = collection_path.relative_to(config.rootpath).as_posix()
    return None if tiers.is_collected(path) else True


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the tier; one group for each file, and one for all that share a system."""
    files(
        *tiers.LIFE, *(group.partition(" ")[0] for group in FIRST), *SYSTEMS
    )  # fails for a name that does not exist
    exhaustive: dict[str, list[str]] = {}
    for item in filter(_is_exhaustive, items):
        exhaustive.setdefault(_path_of(item), []).append(item.nodeid)
    chosen = tiers.chosen_of(exhaustive)
    left_out = [item for item in items if not _is_chosen(item, chosen)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_chosen(item, chosen)]
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item)))
    if hasattr(config, "workerinput"):  # a single process keeps the order of the command line
        order = {group: place for place, group in enumerate(FIRST)}
        items.sort(key=lambda item: order.get(_group_of(item), len(order)))


def _is_exhaustive(item: pytest.Item) -> bool:
    return item.get_closest_marker("exhaustive") is not None


def _is_chosen(item: pytest.Item, chosen: set[str]) -> bool:
    if _is_exhaustive(item):
        return item.nodeid in chosen
    return tiers.is_chosen(_path_of(item), getattr(item, "fixturenames", ()))


def _path_of(item: pytest.Item) -> str:
    return item.path.relative_to(item.config.rootpath).as_posix()


def _group_of(item: pytest.Item) -> str:
    path = item.path.relative_to(item.config.rootpath)
    folder = path.parent.as_posix()
    fixtures = getattr(item, "fixturenames", ())
    for name in SYSTEMS.get(folder, "").split(" or "):
        if name in fixtures:
            return f"{folder} {name}"
    return path.as_posix()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    with database(fast=True) as server:
        yield server


@pytest.fixture(scope="session")
def empty_databases(databases: Databases) -> Iterator[EmptyDatabases]:
    """Migrated databases; each test uses one at a time."""
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
    """The system in this process, with its own database. When the test ends, every promise must hold."""
    with World.create(empty_databases, redis_url, simulator, monkeypatch) as world:
        yield world
        world.check()


@pytest.fixture
def people(world: World) -> None:
    """Two admins, who are independent of each other: `operator:asha` and `operator:ravi`."""
    world.operators("asha", "ravi")


@pytest.fixture
def client(world: World) -> FlaskClient:
    """The API in this process, with a key."""
    client = create_app().test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


@pytest.fixture(autouse=True)
def _open_log() -> None:
    """A test that captures its output closes it afterwards. A handler that an application of that test installed
    would then report an error with every line, on the output of a later test.
    """
    for handler in logging.getLogger().handlers[:]:
        if getattr(getattr(handler, "stream", None), "closed", False):
            logging.getLogger().removeHandler(handler)


@pytest.fixture
def one_day() -> None:
    """For tests that depend on the day in India: wait if it ends in the next 30 seconds. Wait also if its first
    hour ends, because a day can be closed from then on.
    """
    now = datetime.now(INDIA)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for hours in (1, 24):
        left = (midnight + timedelta(hours=hours) - now).total_seconds()
        if 0 < left < 30:
            time.sleep(left + 0.1)
