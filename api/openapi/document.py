"""The OpenAPI 3.1 document: APIFlask's, completed with what APIFlask cannot express."""

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid5

from apiflask import APIFlask
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from api import json_schemas, schemas
from api.idempotency import KEY_HEADER
from api.openapi import response_bodies, responses, webhooks
from api.openapi.descriptions import Description, Parameter
from api.openapi.responses import JSON, REF_TEMPLATE, model_name, ref
from shared.settings import Settings

VERSION = "1.0.0"
ABOUT = """\
Users turn coins into rupees. All amounts are whole coins; by default 1 coin is ₹0.10.

If a request times out, retry it with the same `Idempotency-Key`; it runs once and you get the first \
response. All errors have the same format: handle them by `code`, show `error` and `details`, and quote \
`request_id` to us. Times are ISO 8601.
"""
BEARER = {"type": "http", "scheme": "bearer"}
SECURITY_SCHEMES = {
    "appKey": {**BEARER, "description": "An app's API key, `cpk_…` (`payouts keys create`), with scopes"},
    "userToken": {
        **BEARER,
        "bearerFormat": "JWT",
        "description": "A user's own token. It acts only for the `user_id` in its `sub`",
    },
}


def configure(app: APIFlask) -> None:
    """Set up the app's document: `app.spec` builds it."""
    app.description = ABOUT
    app.config["SECURITY_SCHEMES"] = SECURITY_SCHEMES
    app.config["AUTO_SERVERS"] = False  # clients use the URL from which they load the document
    app.config["AUTO_OPERATION_DESCRIPTION"] = False  # it drops the first line of a docstring
    app.config["AUTO_VALIDATION_ERROR_RESPONSE"] = False  # invalid bodies are a 400, with examples
    app.spec_processor(partial(_complete, app))


def _complete(app: APIFlask, spec: dict[str, Any]) -> dict[str, Any]:
    """Complete APIFlask's document of `app`."""
    views = {rule.rule: app.view_functions[rule.endpoint] for rule in app.url_map.iter_rules()}
    paths = {
        path: {method: _operation(operation, view) for method, operation in spec["paths"][path].items()}
        for path, view in views.items()
        if hasattr(view, "described")
    }
    return {
        "openapi": spec["openapi"],
        "info": spec["info"],
        "tags": [*spec["tags"], {"name": webhooks.TAG}],
        "paths": paths,
        "webhooks": webhooks.described(),
        "components": {
            "schemas": _schemas(app.config["SETTINGS"]),
            "responses": responses.shared(),
            "headers": responses.headers(),
            "securitySchemes": spec["components"]["securitySchemes"],
        },
    }


def _schemas(settings: Settings) -> dict[str, Any]:
    """Return all schemas. APIFlask would repeat a nested model, under a new name, for each parent."""
    models: list[type[BaseModel]] = [
        *schemas.Body.__subclasses__(),
        response_bodies.Problem,
        response_bodies.Notice,
        response_bodies.Readiness,
        *_subclasses(response_bodies.Answer),
    ]
    inputs = [(model, "validation") for model in models]
    definitions = models_json_schema(inputs, ref_template=REF_TEMPLATE)[1]["$defs"]  # type: ignore[arg-type]
    definitions["WithdrawIn"]["properties"]["amount"] = json_schemas.withdrawal_coins(
        settings.min_withdrawal_coins, settings.max_withdrawal_coins
    )
    # A batch accepts any item: an invalid one is refused in the results, not by the response's status.
    definitions["BatchIn"]["properties"]["items"]["items"] = {"anyOf": [ref(schemas.WithdrawIn), {}]}
    return dict(sorted(definitions.items()))


def _subclasses(model: type[response_bodies.Answer]) -> Iterator[type[response_bodies.Answer]]:
    for subclass in model.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _operation(operation: dict[str, Any], view: Any) -> dict[str, Any]:
    described: Description = view.described
    scope = getattr(view, "needs", None)
    idempotency_key = [_idempotency_key(view)] if described.is_idempotent else []
    body = _request_body(operation, described)
    complete = {
        "operationId": operation["operationId"],
        "tags": operation["tags"],
        "summary": operation["summary"],
        "description": operation.get("description") or inspect.getdoc(view),
        "security": _security(view, scope),
        "parameters": [_parameter(parameter) for parameter in (*described.parameters, *idempotency_key)],
        "requestBody": body,
        "responses": responses.complete(
            operation["responses"], described, for_apps=scope is not None, has_body=body is not None
        ),
    }
    return {name: value for name, value in complete.items() if value or name == "security"}


def _security(view: Any, scope: str | None) -> list[dict[str, list[str]]]:
    """Return the schemes from the same mark that `auth.require_access` checks.

    APIFlask's `auth_required` would protect only the views that carry it; our blueprints refuse every caller
    unless a view is marked. And it would list the key's scope for user tokens too, which have none.
    """
    if scope is None:
        return []
    schemes: list[dict[str, list[str]]] = [{"appKey": [scope]}]
    return [*schemes, {"userToken": []}] if getattr(view, "accepts_users", False) else schemes


def _idempotency_key(view: Any) -> Parameter:
    # An example of its own for each operation, because a key must never be used twice.
    example = str(uuid5(response_bodies.WITHDRAWAL, view.__name__))
    description = "Your key for this request"
    return Parameter(KEY_HEADER, json_schemas.IDEMPOTENCY_KEY, description, example, "header")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    elsewhere = ("description", "examples")
    return {
        "name": parameter.name,
        "in": parameter.location,
        "required": parameter.required,
        "description": parameter.description,
        "schema": {name: value for name, value in parameter.schema.items() if name not in elsewhere},
        "example": parameter.example,
    }


def _request_body(operation: dict[str, Any], described: Description) -> dict[str, Any] | None:
    if described.raw_body:
        return {"required": True, "content": {JSON: described.raw_body}}
    if described.body:
        schema = ref(described.body)
    elif "requestBody" in operation:
        schema = operation["requestBody"]["content"][JSON]["schema"]
    else:
        return None
    models = {model.__name__: model for model in schemas.Body.__subclasses__()}
    fields = models[model_name(schema)].model_fields
    example = {name: _example(field) for name, field in fields.items()}
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def _example(field: FieldInfo) -> Any:
    as_sent = next(item for item in field.metadata if isinstance(item, WithJsonSchema))
    assert as_sent.json_schema is not None, "each field of a body has a schema (json_schemas.py)"
    return as_sent.json_schema["examples"][0]
