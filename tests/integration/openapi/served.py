"""The API as docs/openapi.json describes it, for schemathesis; and what no schema can say of a good request."""

import os
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.strategies import builds, datetimes, integers, just, uuids
from schemathesis import Case

from api.parameters import cursor
from tests.world import KEY, World

CASES = int(os.environ.get("CASES", "40"))
AS_MANY = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
HEADERS = {"Authorization": f"Bearer {KEY}"}

numbers = count(1)
schema = schemathesis.openapi.from_path(Path(__file__).parents[3] / "docs" / "openapi.json")
# Opaque: only what the API made is a cursor.
schemathesis.openapi.format("history-cursor", builds(cursor, datetimes(timezones=just(UTC)), uuids()))
schemathesis.openapi.format("transactions-cursor", builds(cursor, integers(0, 2**63 - 1)))


class Served:
    """The API of the test that is running; schemathesis wants to know it before there is one."""

    app: Any = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app.wsgi_app(environ, start_response)


schema.app = served = Served()


def named(case: Case) -> str:
    """The operation that is called."""
    return str(case.operation.definition.raw["operationId"])


def make_possible(case: Case, world: World) -> None:
    """A good request is one that can be granted: there are coins for it, and its key is a new one.

    So a good request that is refused is a finding, and no refusal has to be expected (CONTRACT.md answers
    "not enough coins" with the same 400 as nonsense).
    """
    number = next(numbers)
    case.body = _without_points(case.body)
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"{number}-{case.headers['Idempotency-Key']}"[:255]
    if named(case) == "request_withdrawal":
        world.credit(case.body["user_id"], coins=100_000, reference=f"case-{number}")


def _without_points(body: Any) -> Any:
    """To JSON Schema 1000.0 is an integer; the contract refuses `1e3`, and the two are one number in JSON."""
    if not isinstance(body, dict):
        return body
    return {
        name: int(value) if name in ("amount", "coins") and isinstance(value, float) else value
        for name, value in body.items()
    }
