"""schemathesis: every response to every input is one of those in docs/openapi.json, and never a 500.

All of its checks are on. `make test` tries 40 cases of each operation; the long run, with 2,000 of each (seven
minutes), is `CASES=2000 .venv/bin/python -m pytest -n 0 --timeout 0 tests/api/openapi`.
"""

import json
from typing import Any

import pytest
from schemathesis import Case
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData

from tests.api.openapi.served import CASE_SETTINGS, HEADERS, make_acceptable, numbers, operation_id, schema
from tests.support.world import World, sign


@pytest.mark.usefixtures("api")
@schema.parametrize()
@CASE_SETTINGS
def test_every_response_matches_the_document(case: Case, world: World, withdrawal_ids: list[str]) -> None:
    assert case.meta is not None
    sent: dict[str, Any] = {"headers": dict(HEADERS)}
    if case.meta.generation.mode.is_positive:
        make_acceptable(case, world)
        if next(numbers) % 2:
            use_existing_ids(case, world, withdrawal_ids)
        if operation_id(case) == "webhook":
            sent["data"] = json.dumps(case.body).encode()
            sent["headers"]["X-Razorpay-Signature"] = sign(sent["data"])
    answer = case.call_and_validate(**sent)
    if has_invalid_query_parameter(case):
        assert 400 <= answer.status_code < 500, (case.query, case.meta.phase.data)


def has_invalid_query_parameter(case: Case) -> bool:
    """True if one query parameter is invalid on purpose. schemathesis 4.32 accepts a 2xx for it
    when any other parameter is good (`_single_element_array_becomes_valid_after_serialization`).
    """
    assert case.meta is not None
    phase = case.meta.phase.data
    return (
        case.meta.generation.mode.is_negative
        and isinstance(phase, CoveragePhaseData)
        and phase.parameter_location == ParameterLocation.QUERY
        and phase.parameter is not None
    )


def use_existing_ids(case: Case, world: World, withdrawal_ids: list[str]) -> None:
    """Use existing ids: random ids never exist, and responses about existing withdrawals need a test too."""
    number = next(numbers)
    if operation_id(case) == "cancel":
        world.credit("user123", coins=500, reference=f"case-{number}")
        case.body = {**case.body, "withdrawal_id": str(world.request("user123"))}
    elif "withdrawal_id" in (case.query or {}):
        case.query["withdrawal_id"] = withdrawal_ids[number // 2 % len(withdrawal_ids)]
    elif "user_id" in (case.query or {}):
        case.query["user_id"] = "user123"
