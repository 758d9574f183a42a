"""The API of each test, where schemathesis finds it."""

from collections.abc import Iterator

import pytest

from api.app import create_app
from shared import withdrawals
from tests.api.openapi.served import served
from tests.support.world import World


@pytest.fixture
def api(world: World) -> Iterator[None]:
    served.app = create_app()
    yield
    served.app = None


@pytest.fixture
def withdrawal_ids(world: World) -> list[str]:
    """The ids of withdrawals of user123, one of each status."""
    world.credit(coins=5000)
    pending = world.request()
    cancelled = world.request()
    sent = world.first_send(upi_id="never@sim")
    withdrawals.cancel(cancelled, reason="Changed my mind", actor="app:test")
    paid, failed = world.paid(), world.paid(upi_id="fail.beneficiary_vpa_invalid@sim")
    return [str(id_) for id_ in (pending, cancelled, sent.withdrawal_id, paid, failed)]
