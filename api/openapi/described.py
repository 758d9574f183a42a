"""What a view says of itself for the OpenAPI document."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from api.schemas import Body
from api.shapes import Schema
from shared.errors import PayoutsError

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something in the address or the headers."""

    name: str
    schema: Schema
    about: str
    example: Any
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Good:
    """A good answer; `other` are the fields whose example differs from the shape's own."""

    status: int
    shape: type[BaseModel]
    about: str
    other: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """A view, described. What all views have in common is not repeated here (document.py)."""

    title: str
    answers: tuple[Good, ...]
    about: str | None = None  # where the view's docstring is not for callers
    parameters: tuple[Parameter, ...] = ()
    body: type[Body] | None = None
    any_body: dict[str, Any] | None = None  # a body that is only kept: its media type object
    refusals: Callable[[], tuple[PayoutsError, ...]] = tuple
    once: bool = False  # takes an Idempotency-Key
    links: dict[str, dict[str, object]] | None = None


def answer(status: int, shape: type[BaseModel], about: str, /, **other: Any) -> Good:
    """A good answer of this shape."""
    return Good(status, shape, about, other)


def described(operation: Operation) -> Callable[[View], View]:
    """Marks a view with its description. Without one a view is not in the document; a test says so."""

    def mark(view: View) -> View:
        view.described = operation  # type: ignore[attr-defined]
        return view

    return mark
