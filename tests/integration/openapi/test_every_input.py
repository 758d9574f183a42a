"""schemathesis: whatever is sent, the answer is one of those in docs/openapi.json, and never our own fault.

All of its checks are on. `make test` tries 25 cases of each operation; the long run, with 2,000 of each, is
`CASES=2000 .venv/bin/python -m pytest -n 0 --timeout 0 tests/integration/openapi/test_every_input.py`
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.strategies import builds, datetimes, integers, just, uuids
from schemathesis import Case

from api.app import create_app
from api.parameters import cursor
from tests.world import KEY, World, sign

CASES = int(os.environ.get("CASES", "25"))
DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"

schema = schemathesis.openapi.from_path(DOCUMENT)
schemathesis.openapi.format("history-cursor", builds(cursor, datetimes(timezones=just(UTC)), uuids()))
schemathesis.openapi.format("transactions-cursor", builds(cursor, integers(0, 2**63 - 1)))


class Served:
    """The API of the test that is running; schemathesis wants to know it before there is one."""

    app: Any = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app.wsgi_app(environ, start_response)


schema.app = served = Served()
_numbers = count(1)


@pytest.fixture(autouse=True)
def served_here(world: World) -> Iterator[None]:
    served.app = create_app()
    yield
    served.app = None


@schema.parametrize()
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_input(case: Case, world: World) -> None:
    assert case.meta is not None
    sent: dict[str, Any] = {"headers": {"Authorization": f"Bearer {KEY}"}}
    if case.meta.generation.mode.is_positive:
        make_possible(case, world, sent)
    case.call_and_validate(**sent)


def make_possible(case: Case, world: World, sent: dict[str, Any]) -> None:
    """What no schema can say of a request that is taken: there are coins, the key is a new one, and so on.

    So a good body that is refused is a finding, and no refusal has to be expected (CONTRACT.md answers "not
    enough coins" with the same 400 as nonsense).
    """
    operation = case.operation.definition.raw["operationId"]
    case.body = without_points(case.body)
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"{next(_numbers)}-{case.headers['Idempotency-Key']}"[:255]
    if operation == "request_withdrawal":
        world.credit(case.body["user_id"], coins=100_000, reference=f"for-{next(_numbers)}")
    if operation == "cancel" and next(_numbers) % 2:
        world.credit("user123", coins=500, reference=f"for-{next(_numbers)}")
        case.body = {**case.body, "withdrawal_id": str(world.request("user123"))}
    if operation == "webhook":
        sent["data"] = json.dumps(case.body).encode()
        sent["headers"]["X-Razorpay-Signature"] = sign(sent["data"])


def without_points(body: Any) -> Any:
    """To JSON Schema 1000.0 is an integer; the contract refuses `1e3`, and the two are one number in JSON."""
    if not isinstance(body, dict):
        return body
    return {
        name: int(value) if name in ("amount", "coins") and isinstance(value, float) else value
        for name, value in body.items()
    }
