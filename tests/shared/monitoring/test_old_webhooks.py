"""Webhooks are kept for WEBHOOK_DAYS; what nobody understood stays."""

import pytest

from shared.monitoring import old_webhooks
from shared.settings import settings
from shared.withdrawals import inbox
from tests.support.shell import invoke
from tests.support.world import World, event_body
from worker import tasks


def stored(world: World) -> set[str]:
    return {row.event_id for row in world.sql("SELECT event_id FROM webhook_events")}


def age(world: World, *event_ids: str, days: float) -> None:
    world.sql(
        "UPDATE webhook_events SET received_at = now() - make_interval(secs => :s)"
        " WHERE event_id = ANY (:event_ids)",
        s=days * 86_400,
        event_ids=list(event_ids),
    )


@pytest.fixture
def paid(world: World) -> World:
    """A paid withdrawal and its webhooks: `first`, `second`, and `odd`, which names no payout."""
    payout = {}
    world.paid()
    [attempt] = world.sql("SELECT id, payout_id FROM payout_attempts")
    payout = {"id": attempt.payout_id, "amount": 5000, "reference_id": str(attempt.id), "status": "processed"}
    for event_id in ("first", "second"):
        world.webhook("payout.processed", payout, event_id)
    world.webhook("payout.processed", {"id": "?"}, "odd")
    return world


def test_the_watch_deletes_webhooks_after_their_days(paid: World) -> None:
    days = settings().webhook_days
    age(paid, "first", days=days + 1)
    age(paid, "second", days=days - 1)
    tasks.watch()
    assert stored(paid) >= {"second", "odd"} and "first" not in stored(paid)


def test_a_webhook_that_nobody_understood_is_kept(paid: World) -> None:
    age(paid, "first", "second", "odd", days=5000)
    old_webhooks.delete_old()
    assert stored(paid) & {"first", "second", "odd"} == {"odd"}


def test_a_webhook_that_waits_is_kept(paid: World) -> None:
    inbox.receive("waits", event_body("payout.processed", {"id": "pout_00000000000001", "amount": 1}))
    age(paid, "waits", days=5000)
    old_webhooks.delete_old()
    assert "waits" in stored(paid)


def test_a_deleted_webhook_that_comes_again_changes_nothing(paid: World) -> None:
    before = paid.sql("SELECT status, version, utr FROM withdrawals"), paid.balance()
    body = paid.sql("SELECT body FROM webhook_events WHERE event_id = 'first'")[0].body
    age(paid, "first", days=5000)
    old_webhooks.delete_old()
    assert inbox.receive("first", bytes(body))
    assert inbox.apply(["first"]) == {"first": "repeat"}
    assert (paid.sql("SELECT status, version, utr FROM withdrawals"), paid.balance()) == before


def test_the_command_deletes_all_at_once(paid: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_webhooks, "ROWS_AT_ONCE", 1)
    age(paid, "first", "second", days=5000)
    done = invoke("delete-old-webhooks")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("2 webhooks deleted.\n")
    assert {"first", "second"}.isdisjoint(stored(paid))
