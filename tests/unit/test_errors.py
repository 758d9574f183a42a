"""Errors travel whole: copied, pickled, and as Celery sees them when a task raises them."""

import copy
import importlib
import inspect
import pickle
import pkgutil
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import pytest

import api
import shared
import worker
from shared import queues
from shared.errors import Unavailable
from shared.razorpayx.answers import Reply
from tests.unit.test_queues import worker_settings  # noqa: F401  a fixture
from worker.app import celery

PACKAGES = (api, shared, worker)
ENTRANCES = ("__main__", "migrations.env", "migrations.versions")  # these run when they are imported
# Something of each type that a constructor of ours takes.
OF_TYPE: dict[Any, Any] = {
    str: "a word",
    int: 404,
    bool: True,
    Any: "anything",
    UUID: UUID(int=7),
    Exception: ValueError("the cause"),
    Reply: Reply(503, {"error": {"code": "x"}}),
    list: ["one fault", "another"],
    dict: {"of": "many"},
}


def error_classes() -> list[type[Exception]]:
    """Every error class that the product defines."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in module.name for part in ENTRANCES):
                importlib.import_module(module.name)
    ours = {package.__name__ for package in PACKAGES}
    found = [one for one in _below(Exception) if one.__module__.partition(".")[0] in ours]
    return sorted(found, key=lambda one: f"{one.__module__}.{one.__qualname__}")


def _below(kind: type[Exception]) -> set[type[Exception]]:
    return {one for sub in kind.__subclasses__() for one in (sub, *_below(sub))}


def with_all_its_arguments(kind: type[Exception]) -> Exception:
    """One of them, with something in each argument that its constructor takes."""
    if not inspect.isfunction(kind.__init__):
        return kind("why", 7)  # Python's own constructor takes anything
    hints = get_type_hints(kind.__init__)
    given: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            named[name] = something(hints[name])
        else:
            given.append(something(hints[name]))
    return kind(*given, **named)


def something(hint: Any) -> Any:
    """A value of this type; of several types one that we know."""
    for one in (hint, get_origin(hint), *get_args(hint)):
        if one in OF_TYPE:
            return OF_TYPE[one]
    raise AssertionError(f"OF_TYPE wants a value for {hint}")


def told(error: Exception) -> tuple[Any, ...]:
    """All that it says. Exceptions inside are compared by their words."""
    return type(error), str(error), repr(error.args), {name: repr(v) for name, v in vars(error).items()}


@pytest.mark.parametrize("way", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy],
                         ids=["pickled", "copied", "copied deeply"])  # fmt: skip
def test_every_error_travels_with_all_its_arguments(way: Any, worker_settings: None) -> None:  # noqa: F811
    kinds = error_classes()
    assert len(kinds) > 20
    for kind in kinds:
        error = with_all_its_arguments(kind)
        error.add_note("seen at night")
        assert told(way(error)) == told(error)


def test_every_task_says_that_an_absent_database_is_nobodys_fault(worker_settings: None) -> None:  # noqa: F811
    importlib.import_module("worker.tasks")
    ours = {name: task for name, task in celery.tasks.items() if not name.startswith("celery.")}
    assert set(ours) == set(queues.QUEUE_OF)
    assert all(Unavailable in task.throws for task in ours.values())


@pytest.mark.parametrize("name", [queues.COUNT, queues.SEAL, queues.SWEEP, queues.NOTIFY])
def test_without_the_database_a_task_logs_a_sentence_and_no_traceback(
    name: str,
    worker_settings: None,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    importlib.import_module("worker.tasks")
    with caplog.at_level("INFO", "celery.app.trace"):
        raised = celery.tasks[name].apply().result
    assert isinstance(raised, Unavailable)
    [record] = [one for one in caplog.records if one.name == "celery.app.trace"]
    assert "raised expected" in record.getMessage()
    assert record.levelname == "INFO" and record.exc_info is None
