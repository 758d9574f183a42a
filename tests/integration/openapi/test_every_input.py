"""schemathesis: whatever is sent, the answer is one of those in docs/openapi.json, and never our own fault.

All of its checks are on. `make test` tries 40 cases of each operation; the long run, with 2,000 of each (seven
minutes), is `CASES=2000 .venv/bin/python -m pytest -n 0 --timeout 0 tests/integration/openapi`.
"""

import json
from typing import Any

import pytest
from schemathesis import Case
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData

from tests.integration.openapi.served import AS_MANY, HEADERS, make_possible, named, numbers, schema
from tests.world import World, sign


@pytest.mark.usefixtures("api")
@schema.parametrize()
@AS_MANY
def test_every_input(case: Case, world: World, there: list[str]) -> None:
    assert case.meta is not None
    sent: dict[str, Any] = {"headers": dict(HEADERS)}
    if case.meta.generation.mode.is_positive:
        make_possible(case, world)
        if next(numbers) % 2:
            ask_for_what_is_there(case, world, there)
        if named(case) == "webhook":
            sent["data"] = json.dumps(case.body).encode()
            sent["headers"]["X-Razorpay-Signature"] = sign(sent["data"])
    answer = case.call_and_validate(**sent)
    if breaks_a_parameter(case):
        assert 400 <= answer.status_code < 500, (case.query, case.meta.phase.data)


def breaks_a_parameter(case: Case) -> bool:
    """Whether one parameter of the address was made bad on purpose. schemathesis 4.32 lets a 2xx for it pass
    when any other parameter is good (`_single_element_array_becomes_valid_after_serialization`).
    """
    assert case.meta is not None
    told = case.meta.phase.data
    return (
        case.meta.generation.mode.is_negative
        and isinstance(told, CoveragePhaseData)
        and told.parameter_location == ParameterLocation.QUERY
        and told.parameter is not None
    )


def ask_for_what_is_there(case: Case, world: World, there: list[str]) -> None:
    """No random id is one of ours; the answer to one that is has to be looked at too."""
    number = next(numbers)
    if named(case) == "cancel":
        world.credit("user123", coins=500, reference=f"case-{number}")
        case.body = {**case.body, "withdrawal_id": str(world.request("user123"))}
    elif "withdrawal_id" in (case.query or {}):
        case.query["withdrawal_id"] = there[number // 2 % len(there)]
    elif "user_id" in (case.query or {}):
        case.query["user_id"] = "user123"
