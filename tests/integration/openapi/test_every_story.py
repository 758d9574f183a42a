"""schemathesis: requests that go on with what was answered to others, by the document's links."""

from typing import Any

import pytest
from hypothesis import settings
from schemathesis import Case
from schemathesis.checks import CheckFunction
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.integration.openapi.served import AS_MANY, HEADERS, make_possible, named, numbers, schema
from tests.world import World


class Story(schema.as_state_machine()):  # type: ignore[misc]
    """Ask for a withdrawal, look at it, take it back, look again, in any order and more than once."""

    world: World
    told: set[tuple[str, int]]

    def get_call_kwargs(self, case: Case) -> dict[str, Any]:
        return {"headers": dict(HEADERS)}

    def before_call(self, case: Case) -> None:
        if case.meta and case.meta.generation.mode.is_positive:
            make_possible(case, self.world)
        if named(case) == "credit" and isinstance(case.body, dict) and "reference" in case.body:
            # A story that is told again must go as it went: what it credits was not credited before.
            case.body = {**case.body, "reference": f"story-{next(numbers)}"}

    def validate_response(
        self,
        response: Response,
        case: Case,
        additional_checks: list[CheckFunction] | None = None,
        **more: Any,
    ) -> None:
        self.told.add((named(case), response.status_code))
        # Taken back twice: CONTRACT.md answers the second with a 400, as it does nonsense.
        is_late = named(case) == "cancel" and response.json().get("code") == "cannot_cancel"
        excluded = [positive_data_acceptance] if is_late else []
        case.validate_response(
            response, additional_checks, excluded_checks=excluded, headers=HEADERS, transport_kwargs=more
        )


@pytest.mark.usefixtures("api")
def test_every_story(world: World) -> None:
    Story.world, Story.told = world, set()
    Story.run(settings=settings(AS_MANY, stateful_step_count=6))
    assert {
        ("request_withdrawal", 201),
        ("status", 200),
        ("cancel", 200),
        ("cancel", 400),
        ("history", 200),
    } <= Story.told
