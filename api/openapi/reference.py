"""`python -m api.openapi.reference docs`: writes openapi.json and api.md there; a test knows when to."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlencode

from pydantic import SecretStr

from api import problems
from api.app import create_app
from api.openapi import responses
from api.openapi.responses import JSON
from shared.settings import Settings

# Whatever is set on this machine is not read, and nothing is connected to.
DEFAULTS = Settings.model_construct(redis_url=SecretStr("redis://localhost:6379/0"))
HERE = "http://localhost:8000"
HEAD = """\
# The API

Written from [openapi.json](openapi.json) by `make openapi`; a running API shows the same at `/docs/`, to read
and to try. The addresses here are those of `make demo`.

Send `Authorization: Bearer <key>` with every request; the demo asks for none. A server sends its app's key
(`payouts keys create`), whose scope is named below. A page or a phone sends the user's own token, a JWT that
your server signs: it acts for that user only. Bodies are JSON; a field that is not known is refused. Answers
may get more fields. Times are ISO 8601 in UTC.
"""
LATER = """\
429 and 503 say in `Retry-After` how many seconds to wait. After a 503, or no answer at all, nobody knows what
was done: send it again under the same `Idempotency-Key`.
"""


def document() -> dict[str, Any]:
    """The document of an API with every setting at its default."""
    made = create_app(DEFAULTS)._get_spec()
    assert isinstance(made, dict), "it was asked for as JSON"
    return made


def as_json(made: dict[str, Any]) -> str:
    """The document as it stands in docs/openapi.json."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def as_text(made: dict[str, Any]) -> str:
    """The document for people: docs/api.md."""
    parts = [HEAD]
    for method, path, operation in operations(made):
        parts += _section(made, method, path, operation)
    return "\n".join([*parts, *_errors(made), *_webhooks(made)])


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation."""
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def curl(method: str, path: str, operation: dict[str, Any]) -> str | None:
    """The operation's example as a command; None where only RazorpayX can sign it."""
    given: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for one in operation.get("parameters", []):
        if one["name"] == "cursor":
            continue
        given[one["in"]][one["name"]] = str(one["example"])
    if "X-Razorpay-Signature" in given["header"]:
        return None
    query = f"?{urlencode(given['query'])}" if given["query"] else ""
    words = [f"curl {'-X POST ' if method == 'POST' else ''}{quote(HERE + path + query)}"]
    if operation["security"]:
        words.append("-H 'Authorization: Bearer <key>'")
    words += [f"-H {quote(f'{name}: {value}')}" for name, value in given["header"].items()]
    if "requestBody" in operation:
        body = json.dumps(operation["requestBody"]["content"][JSON]["example"], ensure_ascii=False)
        words += [f"-H 'Content-Type: {JSON}'", f"-d {quote(body)}"]
    return " \\\n  ".join(words)


def _section(made: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {operation['summary']}\n"
    yield f"`{method} {path}` · {_who(operation)}\n"
    if "description" in operation:
        yield operation["description"] + "\n"
    yield from _given(made, operation)
    command = curl(method, path, operation)
    if command:
        yield f"```sh\n{command}\n```\n"
    for status, good in operation["responses"].items():
        if "example" in _content(good):
            yield f"{status}: {good['description']}.\n"
            yield _block(_content(good)["example"])
    own = {status: told for status, told in operation["responses"].items() if "examples" in _content(told)}
    yield from _table(own, but=problems.WORDS[400][2])


def _who(operation: dict[str, Any]) -> str:
    if not operation["security"]:
        return "nobody needs a key"
    scope = operation["security"][0]["appKey"][0]
    users = ", or the user's own token" if len(operation["security"]) > 1 else ""
    return f"a key with the scope `{scope}`{users}"


def _given(made: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    parameters = operation.get("parameters", [])
    rows = [(one["name"], one["in"], one["required"], one["description"]) for one in parameters]
    reference = _content(operation.get("requestBody", {})).get("schema", {}).get("$ref")
    if reference:
        shape = made["components"]["schemas"][reference.rpartition("/")[2]]
        rows += [
            (name, "body", name in shape["required"], field["description"])
            for name, field in shape["properties"].items()
        ]
    if rows:
        yield "| | in | | |\n| --- | --- | --- | --- |"
        for name, place, required, about in rows:
            yield f"| `{name}` | {place} | {'required' if required else ''} | {about} |"
        yield ""


def _errors(made: dict[str, Any]) -> Iterator[str]:
    yield "## Errors that every operation can answer\n"
    yield "All errors have this shape. Go by `code`; show `error` and `details`; tell us `request_id`.\n"
    shared = made["components"]["responses"]
    yield _block(next(iter(_content(shared["Unauthorized"])["examples"].values()))["value"])
    yield LATER
    yield from _table({responses.status_of(name): told for name, told in shared.items()})


def _table(by_status: dict[str, Any], but: str = "") -> Iterator[str]:
    if not by_status:
        return
    yield "| HTTP | `code` | `error` | `details` |\n| --- | --- | --- | --- |"
    for status, told in by_status.items():
        for example in _content(told)["examples"].values():
            problem = example["value"]
            if problem["code"] == but:  # it stands with those that every operation can answer
                continue
            yield f"| {status} | `{problem['code']}` | {problem['error']} | {problem['details']} |"
    yield ""


def _webhooks(made: dict[str, Any]) -> Iterator[str]:
    for hook in made["webhooks"].values():
        post = hook["post"]
        yield f"## What your app is sent: {post['summary'].lower()}\n"
        yield post["description"] + "\n"
        yield from _given(made, {**post, "requestBody": {}})
        yield _block(post["requestBody"]["content"][JSON]["example"])


def _content(response: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = response.get("content", {}).get(JSON, {})
    return content


def _block(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


def main(directory: Path) -> None:
    """Write both files."""
    made = document()
    (directory / "openapi.json").write_text(as_json(made))
    (directory / "api.md").write_text(as_text(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
