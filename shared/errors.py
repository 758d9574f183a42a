"""The errors, one class for each thing that a caller can do about them.

PayoutsError
├── BadRequest         correct the request, then send it again
│   ├── NotFound       the object does not exist
│   └── Conflict       the object's state does not allow this
│       ├── Stale      the object changed after the caller read it
│       └── RetryNow   the obstacle is already gone: send the same request again
├── Unavailable        temporary: retry later
└── SettingsError      correct the environment, then start again
"""

from typing import Any, TypeVar

Error = TypeVar("Error", bound=BaseException)


class Portable(Exception):
    """An error that can be copied and pickled, whatever its constructor takes.

    Python calls the class again with `args` only, which fails if the constructor needs more. Celery pickles
    what a task raises, and treats an error that it cannot pickle as unexpected.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild it from its state, without calling the constructor."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(error_class: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = error_class.__new__(error_class, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PayoutsError(Portable):
    """An error that callers see.

    `error` is the short sentence, `details` explains it, `code` is for programs, and `extra` holds further
    fields of the response body (CONTRACT.md).
    """

    http_status = 400

    def __init__(self, error: str, details: str = "", *, code: str, **extra: Any) -> None:
        super().__init__(error)
        self.error = error
        self.details = details or error
        self.code = code
        self.extra = extra


class BadRequest(PayoutsError):
    """Correct the request, then send it again."""


class NotFound(BadRequest):
    """The object does not exist."""

    http_status = 404


class Conflict(BadRequest):
    """The object's state does not allow this."""

    http_status = 409


class Stale(Conflict):
    """The object changed after the caller read it: read it again, then decide."""

    def __init__(self, details: str = "Reload it, then decide again") -> None:
        super().__init__("It has changed", details, code="stale")


class RetryNow(Conflict):
    """The obstacle is already gone: send the same request again. Never stored as an idempotent response."""


class Unavailable(PayoutsError):
    """Temporary: retry after `retry_after` seconds. `details` says what is known about this attempt."""

    http_status = 503
    retry_after = 2


class SettingsError(PayoutsError):
    """Correct the environment, then start again. `faults` has one sentence for each problem."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("The settings are not valid", "; ".join(faults), code="bad_settings")
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join([f"{self.error}:", *(f"  - {fault}" for fault in self.faults)])
