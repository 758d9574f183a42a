"""What a view says about itself beyond APIFlask's decorators.

`@blueprint.doc`, `@blueprint.input` and `@blueprint.output` give the summary, the body and the response.
APIFlask cannot express the rest: query parameters that a view reads one by one, an example for each error,
and a second successful response.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from api import json_schemas
from api.json_schemas import Schema
from api.openapi import schema_adapter  # noqa: F401  before any view is decorated
from api.schemas import Body
from shared.errors import PayoutsError

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header."""

    name: str
    schema: Schema
    description: str
    example: Any
    location: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Success:
    """A successful response; `overrides` are the fields whose example differs from the model's."""

    status: int
    model: type[BaseModel]
    description: str
    overrides: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """What `documented` adds to a view."""

    parameters: tuple[Parameter, ...]
    errors: Callable[[], tuple[PayoutsError, ...]]
    is_idempotent: bool  # accepts an Idempotency-Key
    also: tuple[Success, ...]
    body: type[Body] | None  # of a view that parses its body itself
    raw_body: dict[str, Any] | None  # media type object of a body that is stored as it is


def success(status: int, model: type[BaseModel], description: str, /, **overrides: Any) -> Success:
    """Return a successful response of this model."""
    return Success(status, model, description, overrides)


def documented(
    *parameters: Parameter,
    errors: Callable[[], tuple[PayoutsError, ...]] = tuple,
    is_idempotent: bool = False,
    also: tuple[Success, ...] = (),
    body: type[Body] | None = None,
    raw_body: dict[str, Any] | None = None,
) -> Callable[[View], View]:
    """Mark a view with its description. Only marked views are in the document; a test finds the others."""

    def mark(view: View) -> View:
        description = Description(parameters, errors, is_idempotent, also, body, raw_body)
        view.described = description  # type: ignore[attr-defined]
        return view

    return mark


def cursor(list_name: str, example: str) -> Parameter:
    """Return the parameter for the next page of a list. Cursors are opaque; the format names the list."""
    schema = {"type": "string", "format": f"{list_name}-cursor"}
    return Parameter("cursor", schema, "`next_cursor` of the previous page, unchanged", example)


USER_ID = Parameter("user_id", json_schemas.USER_ID, "The user's id", "user123", required=True)
LIMIT = Parameter("limit", json_schemas.LIMIT, "Maximum number of rows; above 100 counts as 100", 50)
