"""What an operation may answer: its good answers, its own refusals, and the errors that all share."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import problems, schemas
from api.once import REPLAYED
from api.openapi import answers, refusals
from api.openapi.described import Good, Operation
from shared.db import unavailable
from shared.errors import PayoutsError

JSON, REFER = "application/json", "#/components/schemas/{model}"
REQUEST_ID = answers.example(answers.Problem)["request_id"]

# Which errors come from what they have in common, whatever the operation is.
ANY, APPS, BODIES, KEPT_BODIES = (500,), (401, 403, 429, 503), (400, 411, 413, 415), (413, 503)
LATER = (429, 503)  # these say when to come again

AGAIN, ID = "Retry-After", "X-Request-Id"
HEADERS: dict[str, Any] = {
    ID: ("Names this request in our logs; yours, if you sent a usable one", {"type": "string"}),
    AGAIN: ("Seconds to wait before it is sent again", {"type": "integer", "minimum": 0}),
    REPLAYED: ("This is the first answer to this Idempotency-Key again", {"const": "true"}),
    "X-RateLimit-Limit": ("Requests that are let through in a period", {"type": "integer"}),
    "X-RateLimit-Remaining": ("Requests that are left in it", {"type": "integer"}),
    "X-RateLimit-Reset": ("When the next period begins, in seconds since 1970", {"type": "integer"}),
}
RATES = tuple(name for name in HEADERS if name.startswith("X-RateLimit"))


def of(told: Operation, *, for_apps: bool) -> dict[str, Any]:
    """The operation's responses, by status."""
    own = _by_status([*told.refusals(), *(refusals.of_key() if told.once else ())])
    found = {good.status: _good(good, told, for_apps) for good in told.answers}
    for status in _common(told, for_apps):
        if status in own:
            own[status].insert(0, _common_problem(status))
        elif status not in found:
            found[status] = {"$ref": f"#/components/responses/{_title(status)}"}
    found |= {status: _bad(status, told_problems) for status, told_problems in own.items()}
    if told.once:
        for status in {*(good.status for good in told.answers), *(r.http_status for r in told.refusals())}:
            found[status]["headers"] |= _headers([REPLAYED] if status not in LATER else [])
        found[409]["headers"] |= _headers([AGAIN])  # while the first request still runs
    return {str(status): found[status] for status in sorted(found)}


def shared() -> dict[str, Any]:
    """The document's `responses`: the errors that are the same everywhere."""
    statuses = sorted({*ANY, *APPS, *BODIES})
    made = {_title(status): _bad(status, [_common_problem(status)]) for status in statuses}
    made[_title(401)] = _bad(401, [_common_problem(401), *map(_problem, refusals.of_token())])
    return made


def status_of(title: str) -> str:
    """The HTTP status of one of `shared`."""
    return next(str(status.value) for status in HTTPStatus if _title(status) == title)


def refer(model: type[Any]) -> dict[str, str]:
    """Where the document describes a shape."""
    return {"$ref": REFER.format(model=model.__name__)}


def _common(told: Operation, for_apps: bool) -> tuple[int, ...]:
    bodies = BODIES if told.body else KEPT_BODIES if told.any_body else ()
    return (*ANY, *(APPS if for_apps else ()), *bodies)


def _by_status(errors: Iterable[PayoutsError]) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = {}
    for error in errors:
        grouped.setdefault(error.http_status, []).append(_problem(error))
    return grouped


def _good(good: Good, told: Operation, for_apps: bool) -> dict[str, Any]:
    names = [ID, *(RATES if for_apps else ()), *([AGAIN] if good.status in LATER else ())]
    content = {"schema": refer(good.shape), "example": answers.example(good.shape, **good.other)}
    links = {"links": told.links} if told.links else {}
    return {"description": good.about, "headers": _headers(names), "content": {JSON: content}, **links}


def _bad(status: int, told: Iterable[dict[str, Any]]) -> dict[str, Any]:
    names = [ID, *(RATES if status == 429 else ()), *([AGAIN] if status in LATER else ())]
    examples: dict[str, Any] = {}
    for problem in told:
        examples[_name(problem, examples)] = {"summary": problem["error"], "value": problem}
    content = {"schema": refer(answers.Problem), "examples": examples}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(names),
        "content": {JSON: content},
    }


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def headers() -> dict[str, Any]:
    """The document's `headers`."""
    return {
        name: {"description": about, "required": name == ID, "schema": schema}
        for name, (about, schema) in HEADERS.items()
    }


def _common_problem(status: int) -> dict[str, Any]:
    if status == 503:
        away = unavailable(PoolTimeout())
        assert away is not None, "no connection left is an absent database"
        return _problem(away)
    if status == 400:
        return _problem(schemas.no_object())
    error, details, code = problems.WORDS.get(status) or problems.INTERNAL
    return _problem(PayoutsError(error, details, code=code))


def _problem(error: PayoutsError) -> dict[str, Any]:
    told = {"error": error.error, "details": error.details, "code": error.code}
    return {"success": False, **told, "request_id": REQUEST_ID, **error.extra}


def _title(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


def _name(problem: dict[str, Any], taken: Iterable[str]) -> str:
    words = re.sub(r"\W+", "_", problem["error"].lower())
    return words if words not in taken else f"{words}_{problem['code']}"
