"""The OpenAPI 3.1 document: of the routes (APIFlask), what each view says of itself, and what all share."""

import inspect
from collections.abc import Iterator
from typing import Any
from uuid import uuid5

from apiflask import APIFlask
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from api import schemas, shapes
from api.once import HEADER
from api.openapi import answers, notices, responses
from api.openapi.described import Operation, Parameter
from api.openapi.responses import JSON, REFER, refer
from shared.settings import Settings

VERSION = "1.0.0"
ABOUT = """\
Users turn coins into rupees. All money is whole coins here; 1 coin is ₹0.10 unless it was set otherwise.

Send what was not answered again under the same `Idempotency-Key`: it is done once. Every error has one \
shape; go by its `code`, show its `error` and `details`, and tell us its `request_id`. Times are ISO 8601.
"""
BEARER = {"type": "http", "scheme": "bearer"}
SCHEMES = {
    "appKey": {**BEARER, "description": "An app's key, `cpk_…` (`payouts keys create`). It has scopes"},
    "userToken": {
        **BEARER,
        "bearerFormat": "JWT",
        "description": "A user's own token; its `sub` is the `user_id` that it may act for, and no other",
    },
}


def complete(app: APIFlask, spec: dict[str, Any]) -> dict[str, Any]:
    """APIFlask's document of `app`, with everything that it cannot know."""
    views = {rule.rule: app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules()}
    paths = {
        path: {method: _operation(made, view) for method, made in spec["paths"][path].items()}
        for path, view in views.items()
        if hasattr(view, "described")
    }
    return {
        "openapi": spec["openapi"],
        "info": {**spec["info"], "version": VERSION, "description": ABOUT},
        "tags": [*spec["tags"], {"name": notices.TAG}],
        "paths": paths,
        "webhooks": notices.described(),
        "components": {
            "schemas": _schemas(app.config["SETTINGS"]),
            "responses": responses.shared(),
            "headers": responses.headers(),
            "securitySchemes": SCHEMES,
        },
    }


def _schemas(settings: Settings) -> dict[str, Any]:
    bodies = schemas.Body.__subclasses__()
    models: list[type[BaseModel]] = [*bodies, answers.Problem, answers.Notice, answers.Readiness]
    models += _all_of(answers.Answer)
    made = models_json_schema([(model, "validation") for model in models], ref_template=REFER)[1]["$defs"]
    made["WithdrawIn"]["properties"]["amount"] = shapes.withdrawal_coins(
        settings.min_withdrawal_coins, settings.max_withdrawal_coins
    )
    # Anything may stand in a batch: what is no wish is refused in the results, not by the answer's status.
    made["BatchIn"]["properties"]["items"]["items"] = {"anyOf": [refer(schemas.WithdrawIn), {}]}
    return dict(sorted(made.items()))


def _all_of(model: type[answers.Answer]) -> Iterator[type[answers.Answer]]:
    for one in model.__subclasses__():
        yield one
        yield from _all_of(one)


def _operation(made: dict[str, Any], view: Any) -> dict[str, Any]:
    told: Operation = view.described
    scope = getattr(view, "needs", None)
    described = {
        "operationId": view.__name__,
        "tags": made["tags"],
        "summary": told.title,
        "description": told.about or inspect.getdoc(view),
        "security": _security(view, scope),
        "parameters": [_parameter(one) for one in (*told.parameters, *_key(view))],
        "requestBody": _request_body(told),
        "responses": responses.of(told, for_apps=scope is not None),
    }
    return {name: value for name, value in described.items() if value or name == "security"}


def _security(view: Any, scope: str | None) -> list[dict[str, list[str]]]:
    if scope is None:
        return []
    ways: list[dict[str, list[str]]] = [{"appKey": [scope]}]
    return [*ways, {"userToken": []}] if getattr(view, "lets_users_in", False) else ways


def _key(view: Any) -> Iterator[Parameter]:
    if view.described.once:
        example = str(
            uuid5(answers.WITHDRAWAL, view.__name__)
        )  # another one for each: it is never used twice
        yield Parameter(HEADER, shapes.IDEMPOTENCY_KEY, "Your own key for this wish", example, "header")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told = ("description", "examples")
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.about,
        "schema": {name: value for name, value in parameter.schema.items() if name not in told},
        "example": parameter.example,
    }


def _request_body(told: Operation) -> dict[str, Any] | None:
    if told.any_body:
        return {"required": True, "content": {JSON: told.any_body}}
    if told.body is None:
        return None
    example = {name: _example(field) for name, field in told.body.model_fields.items()}
    return {"required": True, "content": {JSON: {"schema": refer(told.body), "example": example}}}


def _example(field: FieldInfo) -> Any:
    as_sent = next(told for told in field.metadata if isinstance(told, WithJsonSchema))
    assert as_sent.json_schema is not None, "each field of a body says what may be sent for it (shapes.py)"
    return as_sent.json_schema["examples"][0]
