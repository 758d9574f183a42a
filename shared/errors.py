"""What can go wrong, told by what the caller must do about it.

PayoutsError
├── BadRequest         mend the request, then send it again
│   ├── NotFound       there is no such thing
│   └── Conflict       the thing is no longer in a state that allows this
│       ├── Stale      ... for it has changed since the caller looked at it
│       └── Passed     ... and now it is again: send the same once more
├── Unavailable        not now; try again later
└── SettingsError      mend the environment, then start again
"""

from typing import Any, TypeVar

Error = TypeVar("Error", bound=BaseException)


class Portable(Exception):
    """An error that can be copied and pickled, whatever its constructor takes.

    Python calls the class again with `args` only, which fails for a constructor that needs more. Celery
    pickles what a task raises; an error that it cannot pickle it takes for one that nobody expected.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """All that it holds, past its constructor."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PayoutsError(Portable):
    """Something that a caller is told about.

    `error` is the short sentence, `details` one more, `code` the word for machines,
    `extra` the further fields of the answer (CONTRACT.md).
    """

    http_status = 400

    def __init__(self, error: str, details: str = "", *, code: str, **extra: Any) -> None:
        super().__init__(error)
        self.error, self.details, self.code, self.extra = error, details or error, code, extra


class BadRequest(PayoutsError):
    """Mend the request, then send it again."""


class NotFound(BadRequest):
    """There is no such thing."""

    http_status = 404


class Conflict(BadRequest):
    """The thing is no longer in a state that allows this."""

    http_status = 409


class Stale(Conflict):
    """Somebody or the system went on with it since it was looked at: look again, then decide anew."""

    def __init__(self, details: str = "Look at it again, then decide anew") -> None:
        super().__init__("It has changed", details, code="stale")


class Passed(Conflict):
    """What stood in the way is gone since: send the same once more. It is no answer that is kept."""


class Unavailable(PayoutsError):
    """Not now; try again after `retry_after` seconds. `details` says what is known of this try."""

    http_status = 503
    retry_after = 2


class SettingsError(PayoutsError):
    """Mend the environment, then start again. `faults` has one sentence for each thing that is wrong."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("The settings are not usable", "; ".join(faults), code="bad_settings")
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join([f"{self.error}:", *(f"  - {fault}" for fault in self.faults)])
