"""The responses of an operation: APIFlask's successful one, completed, and errors with an example each.

APIFlask documents one error schema for a status, without examples and without our shared headers.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import error_responses, schemas
from api.idempotency import REPLAYED_HEADER
from api.openapi import error_examples, response_bodies
from api.openapi.descriptions import Description
from shared.db.transactions import as_unavailable
from shared.errors import PayoutsError

JSON = "application/json"
REF_TEMPLATE = "#/components/schemas/{model}"
REQUEST_ID = response_bodies.example(response_bodies.Problem)["request_id"]

# Errors that operations share, by what they have in common.
COMMON_STATUSES = (500,)
AUTHENTICATED_STATUSES = (401, 403, 429, 503)
JSON_BODY_STATUSES = (400, 411, 413, 415)
RAW_BODY_STATUSES = (413, 503)
RETRY_STATUSES = (429, 503)  # with Retry-After

RETRY_AFTER = "Retry-After"
REQUEST_ID_HEADER = "X-Request-Id"
HEADERS: dict[str, Any] = {
    REQUEST_ID_HEADER: ("The request's id in our logs; yours, if you sent a valid one", {"type": "string"}),
    RETRY_AFTER: ("Seconds to wait before you retry", {"type": "integer", "minimum": 0}),
    REPLAYED_HEADER: ("This repeats the first response to this Idempotency-Key", {"const": "true"}),
    "X-RateLimit-Limit": ("Requests allowed per period", {"type": "integer"}),
    "X-RateLimit-Remaining": ("Requests left in the current period", {"type": "integer"}),
    "X-RateLimit-Reset": ("Start of the next period, as Unix time", {"type": "integer"}),
}
RATE_HEADERS = tuple(name for name in HEADERS if name.startswith("X-RateLimit"))

Response = dict[str, Any]


def complete(
    responses: dict[str, Response], described: Description, *, for_apps: bool, has_body: bool
) -> dict[str, Response]:
    """Complete APIFlask's `responses` of an operation."""
    key_errors = error_examples.key_errors() if described.is_idempotent else ()
    own_errors = _by_status([*described.errors(), *key_errors])
    by_status = {
        int(status): _success(int(status), native, for_apps, {}) for status, native in responses.items()
    }
    [first] = responses.values()
    for also in described.also:
        native = {**first, "description": also.description, "content": {JSON: {"schema": ref(also.model)}}}
        by_status[also.status] = _success(also.status, native, for_apps, also.overrides)
    successful = set(by_status)
    for status in _shared_statuses(described, for_apps, has_body):
        if status in own_errors:
            own_errors[status].insert(0, _shared_problem(status))
        elif status not in by_status:
            by_status[status] = {"$ref": f"#/components/responses/{_name(status)}"}
    by_status |= {status: _error(status, problems) for status, problems in own_errors.items()}
    if described.is_idempotent:
        for status in successful | {error.http_status for error in described.errors()}:
            by_status[status]["headers"] |= _header_refs(
                [REPLAYED_HEADER] if status not in RETRY_STATUSES else []
            )
        by_status[409]["headers"] |= _header_refs([RETRY_AFTER])  # while the first request still runs
    return {str(status): by_status[status] for status in sorted(by_status)}


def shared() -> dict[str, Response]:
    """Return the document's `responses`: the errors that are the same everywhere."""
    statuses = sorted({*COMMON_STATUSES, *AUTHENTICATED_STATUSES, *JSON_BODY_STATUSES})
    responses = {_name(status): _error(status, [_shared_problem(status)]) for status in statuses}
    token_errors = map(_problem, error_examples.token_errors())
    responses[_name(401)] = _error(401, [_shared_problem(401), *token_errors])
    return responses


def status_of(name: str) -> str:
    """Return the HTTP status of one of the `shared` responses."""
    return next(str(status.value) for status in HTTPStatus if _name(status) == name)


def ref(model: type[BaseModel]) -> dict[str, str]:
    """Return the reference to a model's schema."""
    return {"$ref": REF_TEMPLATE.format(model=model.__name__)}


def model_name(schema: dict[str, str]) -> str:
    """Return the name of the model to which a reference leads."""
    return schema["$ref"].rpartition("/")[2]


def headers() -> dict[str, Any]:
    """Return the document's `headers`."""
    return {
        name: {"description": description, "required": name == REQUEST_ID_HEADER, "schema": schema}
        for name, (description, schema) in HEADERS.items()
    }


def _shared_statuses(described: Description, for_apps: bool, has_body: bool) -> tuple[int, ...]:
    parsed = JSON_BODY_STATUSES if has_body and not described.raw_body else ()
    raw = RAW_BODY_STATUSES if described.raw_body else ()
    return (*COMMON_STATUSES, *(AUTHENTICATED_STATUSES if for_apps else ()), *parsed, *raw)


def _by_status(errors: Iterable[PayoutsError]) -> dict[int, list[dict[str, Any]]]:
    problems: dict[int, list[dict[str, Any]]] = {}
    for error in errors:
        problems.setdefault(error.http_status, []).append(_problem(error))
    return problems


def _success(status: int, native: Response, for_apps: bool, overrides: dict[str, Any]) -> Response:
    names = [
        REQUEST_ID_HEADER,
        *(RATE_HEADERS if for_apps else ()),
        *([RETRY_AFTER] if status in RETRY_STATUSES else ()),
    ]
    schema = native["content"][JSON]["schema"]
    model = response_bodies.model_named(model_name(schema))
    content = {"schema": schema, "example": response_bodies.example(model, **overrides)}
    links = {"links": native["links"]} if "links" in native else {}
    description = native["description"]
    return {"description": description, "headers": _header_refs(names), "content": {JSON: content}, **links}


def _error(status: int, problems: Iterable[dict[str, Any]]) -> Response:
    names = [
        REQUEST_ID_HEADER,
        *(RATE_HEADERS if status == 429 else ()),
        *([RETRY_AFTER] if status in RETRY_STATUSES else ()),
    ]
    examples: dict[str, Any] = {}
    for problem in problems:
        examples[_example_name(problem, examples)] = {"summary": problem["error"], "value": problem}
    content = {"schema": ref(response_bodies.Problem), "examples": examples}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _header_refs(names),
        "content": {JSON: content},
    }


def _header_refs(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _shared_problem(status: int) -> dict[str, Any]:
    if status == 503:
        unavailable = as_unavailable(PoolTimeout())
        assert unavailable is not None, "a full connection pool is reported as Unavailable"
        return _problem(unavailable)
    if status == 400:
        return _problem(schemas.not_an_object())
    error, details, code = error_responses.HTTP_ERRORS.get(status) or error_responses.INTERNAL_ERROR
    return _problem(PayoutsError(error, details, code=code))


def _problem(error: PayoutsError) -> dict[str, Any]:
    fields = {"error": error.error, "details": error.details, "code": error.code}
    return {"success": False, **fields, "request_id": REQUEST_ID, **error.extra}


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _example_name(problem: dict[str, Any], used: Iterable[str]) -> str:
    name = re.sub(r"\W+", "_", problem["error"].lower())
    return name if name not in used else f"{name}_{problem['code']}"
