"""The API under the schema of docs/openapi.json, for schemathesis, with what no schema can express."""

import os
from datetime import UTC
from itertools import count
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.strategies import builds, datetimes, integers, just, uuids
from schemathesis import Case

from api.query_parameters import encode_cursor
from tests.support.paths import ROOT
from tests.support.world import KEY, World

CASES = int(os.environ.get("CASES", "40"))
CASE_SETTINGS = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
HEADERS = {"Authorization": f"Bearer {KEY}"}

numbers = count(1)
schema = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.json")
# Cursors are opaque: only those that the API created are valid.
schemathesis.openapi.format("history-cursor", builds(encode_cursor, datetimes(timezones=just(UTC)), uuids()))
schemathesis.openapi.format("transactions-cursor", builds(encode_cursor, integers(0, 2**63 - 1)))


class Served:
    """The API of the running test; schemathesis needs it before it exists."""

    app: Any = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app.wsgi_app(environ, start_response)


schema.app = served = Served()


def operation_id(case: Case) -> str:
    """Return the operation that is called."""
    return str(case.operation.definition.raw["operationId"])


def make_acceptable(case: Case, world: World) -> None:
    """Make a valid request succeed: the user has the coins, and the key is new.

    A valid request that is refused is then a failure. (CONTRACT.md answers "not enough coins" with the same 400
    as invalid input.)
    """
    number = next(numbers)
    case.body = _with_integers(case.body)
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"{number}-{case.headers['Idempotency-Key']}"[:255]
    if operation_id(case) == "request_withdrawal":
        world.credit(case.body["user_id"], coins=100_000, reference=f"case-{number}")


def _with_integers(body: Any) -> Any:
    """JSON Schema counts 1000.0 as an integer; the contract refuses `1e3`, the same number in JSON."""
    if not isinstance(body, dict):
        return body
    return {
        name: int(value) if name in ("amount", "coins") and isinstance(value, float) else value
        for name, value in body.items()
    }
