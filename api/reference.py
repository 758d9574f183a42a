"""`python -m api.reference docs`: writes docs/openapi.json and docs/api.md; a test compares them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlencode

from pydantic import SecretStr

from api import error_responses
from api.app import create_app
from api.openapi import responses
from api.openapi.responses import JSON
from shared.settings import Settings

# Reads no settings of this machine, and connects to nothing.
DEFAULTS = Settings.model_construct(redis_url=SecretStr("redis://localhost:6379/0"))
BASE_URL = "http://localhost:8000"
INTRODUCTION = """\
# The API

Generated from [openapi.json](openapi.json) by `make openapi`; a running API serves the same at `/docs/`, to
read and to try. The URLs are those of `make demo`.

Send `Authorization: Bearer <key>` with every request; the demo requires none. A server sends its app's API
key (`payouts keys create`); each operation names the scope that it needs. A web page or a phone sends the
user's own token, a JWT that your server signs: it acts for that user only. Bodies are JSON; unknown fields
are refused. Responses may get more fields. Times are ISO 8601 in UTC.
"""
RETRYING = """\
429 and 503 tell you in `Retry-After` how many seconds to wait. After a 503 or a timeout, you do not know
whether the request ran: retry it with the same `Idempotency-Key`.
"""


def document() -> dict[str, Any]:
    """Return the document of an API with default settings."""
    spec = create_app(DEFAULTS).spec
    assert isinstance(spec, dict), "APIFlask returns a dict for the format json"
    return spec


def as_json(spec: dict[str, Any]) -> str:
    """Return the text of docs/openapi.json."""
    return json.dumps(spec, indent=1, ensure_ascii=False) + "\n"


def as_text(spec: dict[str, Any]) -> str:
    """Return the text of docs/api.md."""
    parts = [INTRODUCTION]
    for method, path, operation in operations(spec):
        parts += _section(spec, method, path, operation)
    return "\n".join([*parts, *_errors(spec), *_webhooks(spec)])


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of each operation."""
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def curl(method: str, path: str, operation: dict[str, Any]) -> str | None:
    """Return the operation's example as a command; None if only the provider can sign it."""
    inputs: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "cursor":
            continue
        inputs[parameter["in"]][parameter["name"]] = str(parameter["example"])
    if "X-Razorpay-Signature" in inputs["header"]:
        return None
    query = f"?{urlencode(inputs['query'])}" if inputs["query"] else ""
    arguments = [f"curl {'-X POST ' if method == 'POST' else ''}{quote(BASE_URL + path + query)}"]
    if operation["security"]:
        arguments.append("-H 'Authorization: Bearer <key>'")
    arguments += [f"-H {quote(f'{name}: {value}')}" for name, value in inputs["header"].items()]
    if "requestBody" in operation:
        body = json.dumps(operation["requestBody"]["content"][JSON]["example"], ensure_ascii=False)
        arguments += [f"-H 'Content-Type: {JSON}'", f"-d {quote(body)}"]
    return " \\\n  ".join(arguments)


def _section(spec: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {operation['summary']}\n"
    yield f"`{method} {path}` · {_authentication(operation)}\n"
    if "description" in operation:
        yield operation["description"] + "\n"
    yield from _inputs(spec, operation)
    command = curl(method, path, operation)
    if command:
        yield f"```sh\n{command}\n```\n"
    for status, response in operation["responses"].items():
        if "example" in _content(response):
            yield f"{status}: {response['description']}.\n"
            yield _block(_content(response)["example"])
    errors = {
        status: response
        for status, response in operation["responses"].items()
        if "examples" in _content(response)
    }
    yield from _table(errors, omit_code=error_responses.HTTP_ERRORS[400][2])


def _authentication(operation: dict[str, Any]) -> str:
    if not operation["security"]:
        return "no key needed"
    scope = operation["security"][0]["appKey"][0]
    users = ", or the user's own token" if len(operation["security"]) > 1 else ""
    return f"a key with the scope `{scope}`{users}"


def _inputs(spec: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    parameters = operation.get("parameters", [])
    rows = [(item["name"], item["in"], item["required"], item["description"]) for item in parameters]
    reference = _content(operation.get("requestBody", {})).get("schema", {}).get("$ref")
    if reference:
        schema = spec["components"]["schemas"][reference.rpartition("/")[2]]
        rows += [
            (name, "body", name in schema["required"], field["description"])
            for name, field in schema["properties"].items()
        ]
    if rows:
        yield "| | in | | |\n| --- | --- | --- | --- |"
        for name, location, required, description in rows:
            yield f"| `{name}` | {location} | {'required' if required else ''} | {description} |"
        yield ""


def _errors(spec: dict[str, Any]) -> Iterator[str]:
    yield "## Errors of every operation\n"
    yield (
        "All errors have this format. Handle them by `code`, show `error` and `details`, and quote "
        "`request_id` to us.\n"
    )
    shared = spec["components"]["responses"]
    yield _block(next(iter(_content(shared["Unauthorized"])["examples"].values()))["value"])
    yield RETRYING
    yield from _table({responses.status_of(name): response for name, response in shared.items()})


def _table(by_status: dict[str, Any], omit_code: str = "") -> Iterator[str]:
    if not by_status:
        return
    yield "| HTTP | `code` | `error` | `details` |\n| --- | --- | --- | --- |"
    for status, response in by_status.items():
        for example in _content(response)["examples"].values():
            problem = example["value"]
            if problem["code"] == omit_code:  # it is in the table of errors of every operation
                continue
            yield f"| {status} | `{problem['code']}` | {problem['error']} | {problem['details']} |"
    yield ""


def _webhooks(spec: dict[str, Any]) -> Iterator[str]:
    for hook in spec["webhooks"].values():
        post = hook["post"]
        yield f"## Webhook to your app: {post['summary'].lower()}\n"
        yield post["description"] + "\n"
        yield from _inputs(spec, {**post, "requestBody": {}})
        yield _block(post["requestBody"]["content"][JSON]["example"])


def _content(response: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = response.get("content", {}).get(JSON, {})
    return content


def _block(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


def main(directory: Path) -> None:
    """Write both files."""
    spec = document()
    (directory / "openapi.json").write_text(as_json(spec))
    (directory / "api.md").write_text(as_text(spec))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
