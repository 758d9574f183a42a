"""The notifier is killed (SIGKILL) before every line between an event and its delivery, one after the other.

At every line: each change arrives, and a change that arrives twice has one id.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from shared.notifications.webhooks import dispatcher, fan_out
from tests.chaos.killing import BEFORE_THE_RECORD, kill_at, moments
from tests.support.receiver import webhook_receiver
from tests.support.webhook_steps import add_endpoint, rows, run_until_done
from tests.support.world import World

PATH = ("shared/notifications/", "shared/net/")
# Sets aside what a killed notifier left behind, so that the next one runs through the same lines.
ASIDE = (
    "UPDATE deliveries SET leased_until = NULL, due_at = now() + interval '1 hour' WHERE state = 'waiting'"
)


@pytest.mark.failure(28)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_notifier_killed_before_every_line_delivers_each_change_under_one_id(
    world: World, tmp_path: Path
) -> None:
    world.credit(coins=1_000_000)
    with webhook_receiver() as app:
        endpoint, secret = add_endpoint(app.url)

        def notify() -> None:
            fan_out.create_deliveries()
            dispatcher.take_turn(f"{endpoint.id}#0")

        world.request(coins=100)

        def request_another() -> None:
            world.sql(ASIDE)
            world.request(coins=100)

        survived = 0
        requested = 1
        for moment in moments(notify, tmp_path, *PATH, always=BEFORE_THE_RECORD):
            children, alive = kill_at(moment, request_another, lambda _: notify())
            survived += alive
            requested += len(children)
        assert survived < max(3, requested / 20)
        run_until_done(world)
        ids = defaultdict(set)
        for message in app.messages:
            ids[message.verified(secret)["data"]["withdrawal_id"]].add(message.id)
        assert len(ids) == requested and all(len(same) == 1 for same in ids.values())
        assert len(app.messages) > requested, "some were killed between send and record"
        assert {row.state for row in rows(world)} == {"delivered"} and len(rows(world)) == requested
