"""A day to reconcile."""

import pytest

from tests.shared.reconciliation.days import Day, Provider
from tests.support.world import World


@pytest.fixture
def day(world: World) -> Day:
    world.simulator.post("balance", {"paise": 10**9})
    return Day(world, Provider(world))
