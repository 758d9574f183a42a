"""Apps that listen, and a notifier in this process."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from shared import db
from shared.models import Endpoint
from shared.notifications import endpoints, following, turns
from tests.world import World


def listen(url: str, *, allow_private: bool = True) -> tuple[Endpoint, str]:
    """An app listens there from now on; the endpoint and its secret."""
    with db.transaction() as session:
        return endpoints.add(session, url, actor="operator:asha", allow_private=allow_private)


def tell() -> int:
    """What the notifier does at one beat: follow, then each endpoint's turn. How many tries."""
    following.follow()
    return sum(turns.take_turn(f"{endpoint_id}#0") for endpoint_id in turns.due())


def tell_all(world: World, *, seconds: float = 86_400, beats: int = 40) -> None:
    """Beat after beat, so long apart, until nothing waits."""
    for _ in range(beats):
        tell()
        if not world.sql("SELECT FROM deliveries WHERE state = 'waiting'"):
            return
        world.advance(seconds)


def rows(world: World, endpoint_id: UUID | None = None) -> list[Row[Any]]:
    """The deliveries, in the order of what they tell."""
    where = "WHERE endpoint_id = :e" if endpoint_id else ""
    values = {"e": endpoint_id} if endpoint_id else {}
    return world.sql(f"SELECT * FROM deliveries {where} ORDER BY event_id", **values)
