"""Errors keep all their data: copied, pickled, and as Celery sees them when a task raises them."""

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
from shared.errors import Unavailable
from shared.providers.razorpayx.answers import Reply
from shared.queues import messages
from tests.shared.queues.test_messages import worker_settings  # noqa: F401  a fixture
from worker.app import celery

PACKAGES = (api, shared, worker)
ENTRY_POINTS = ("__main__", "migrations.env", "migrations.versions")  # these run at import
# A value of each type that our constructors accept.
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
    """Return every error class that the product defines."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in module.name for part in ENTRY_POINTS):
                importlib.import_module(module.name)
    ours = {package.__name__ for package in PACKAGES}
    defined = [item for item in _below(Exception) if item.__module__.partition(".")[0] in ours]
    return sorted(defined, key=lambda item: f"{item.__module__}.{item.__qualname__}")


def _below(kind: type[Exception]) -> set[type[Exception]]:
    return {item for sub in kind.__subclasses__() for item in (sub, *_below(sub))}


def create_error(kind: type[Exception]) -> Exception:
    """Return an error with a value for each argument of its constructor."""
    if not inspect.isfunction(kind.__init__):
        return kind("why", 7)  # Python's own constructor accepts anything
    hints = get_type_hints(kind.__init__)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            named[name] = value_of(hints[name])
        else:
            positional.append(value_of(hints[name]))
    return kind(*positional, **named)


def value_of(hint: Any) -> Any:
    """Return a value of this type, or of one of several types."""
    for item in (hint, get_origin(hint), *get_args(hint)):
        if item in OF_TYPE:
            return OF_TYPE[item]
    raise AssertionError(f"OF_TYPE needs a value for {hint}")


def content(error: Exception) -> tuple[Any, ...]:
    """Return all data of an error. Exceptions inside are compared by their text."""
    return type(error), str(error), repr(error.args), {name: repr(v) for name, v in vars(error).items()}


@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
                         ids=["pickled", "copied", "copied deeply"])  # fmt: skip
def test_a_copied_or_pickled_error_keeps_its_arguments(copied: Any, worker_settings: None) -> None:  # noqa: F811
    kinds = error_classes()
    assert len(kinds) > 20
    for kind in kinds:
        error = create_error(kind)
        error.add_note("a note")
        assert content(copied(error)) == content(error)


def test_every_task_expects_an_unavailable_database(worker_settings: None) -> None:  # noqa: F811
    importlib.import_module("worker.tasks")
    ours = {name: task for name, task in celery.tasks.items() if not name.startswith("celery.")}
    assert set(ours) == set(messages.QUEUE_OF)
    assert all(Unavailable in task.throws for task in ours.values())


@pytest.mark.parametrize("name", [messages.COUNT, messages.SEAL, messages.SWEEP, messages.NOTIFY])
def test_without_the_database_a_task_logs_a_sentence_and_no_traceback(
    name: str,
    worker_settings: None,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    importlib.import_module("worker.tasks")
    with caplog.at_level("INFO", "celery.app.trace"):
        raised = celery.tasks[name].apply().result
    assert isinstance(raised, Unavailable)
    [record] = [record for record in caplog.records if record.name == "celery.app.trace"]
    assert "raised expected" in record.getMessage()
    assert record.levelname == "INFO" and record.exc_info is None
