"""The notifier is killed (SIGKILL) before every line between an event and its delivery, one after the other.

Whatever the line is: every change arrives, and whatever arrives twice has one id.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from shared.notifications import following, turns
from tests.chaos.killing import Killer, in_child, moments
from tests.integration.telling import listen, rows, tell_all
from tests.receiver import receiving
from tests.world import World

PATH = ("shared/notifications/",)
# What a killed one left behind is set aside, so that the next one goes through the same lines.
ASIDE = (
    "UPDATE deliveries SET leased_until = NULL, due_at = now() + interval '1 hour' WHERE state = 'waiting'"
)


@pytest.mark.failure(28)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_before_every_line_tells_each_change_under_one_id(world: World, tmp_path: Path) -> None:
    world.credit(coins=1_000_000)
    with receiving() as app:
        endpoint, secret = listen(app.url)

        def notify() -> None:
            following.follow()
            turns.take_turn(f"{endpoint.id}#0")

        world.request(coins=100)
        lived, asked = 0, 1
        for moment in moments(notify, tmp_path, *PATH):
            world.sql(ASIDE)
            world.request(coins=100)
            asked += 1
            lived += in_child(notify, Killer(*moment))
        assert lived < asked / 20
        tell_all(world)
        told = defaultdict(set)
        for message in app.messages:
            told[message.verified(secret)["data"]["withdrawal_id"]].add(message.id)
        assert len(told) == asked and all(len(ids) == 1 for ids in told.values())
        assert len(app.messages) > asked, "some were killed between the wire and the record"
        assert {row.state for row in rows(world)} == {"delivered"} and len(rows(world)) == asked
