"""Steps for webhook tests: add endpoints, and run a notifier in this process."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from shared.db.transactions import transaction
from shared.models import Endpoint
from shared.notifications.webhooks import dispatcher, endpoints, fan_out
from tests.support.world import World


def add_endpoint(url: str, *, allow_private: bool = True) -> tuple[Endpoint, str]:
    """Register an app's URL; returns the endpoint and its secret."""
    with transaction() as session:
        return endpoints.add(session, url, actor="operator:asha", allow_private=allow_private)


def run_notifier() -> int:
    """One beat of the notifier: fan out, then a turn for each endpoint. Returns the number of attempts."""
    fan_out.create_deliveries()
    return sum(dispatcher.take_turn(f"{endpoint_id}#0") for endpoint_id in dispatcher.count_due())


def run_until_done(world: World, *, seconds: float = 86_400, beats: int = 40) -> None:
    """Run the notifier every `seconds` until nothing waits."""
    for _ in range(beats):
        run_notifier()
        if not world.sql("SELECT FROM deliveries WHERE state = 'waiting'"):
            return
        world.advance(seconds)


def rows(world: World, endpoint_id: UUID | None = None) -> list[Row[Any]]:
    """The deliveries, in the order of their events."""
    where = "WHERE endpoint_id = :e" if endpoint_id else ""
    values = {"e": endpoint_id} if endpoint_id else {}
    return world.sql(f"SELECT * FROM deliveries {where} ORDER BY event_id", **values)
