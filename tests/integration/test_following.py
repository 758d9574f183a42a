"""From events to deliveries: one for each change and endpoint, whatever is committed when."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError

from shared import db, withdrawals
from shared.models import Withdrawal
from shared.notifications import endpoints, following, positions
from shared.states import Status
from shared.withdrawals import journey
from tests.integration.telling import listen, rows
from tests.world import World

HOOK = "http://127.0.0.1:9/hook"


def told(world: World) -> list[tuple[str, int]]:
    """Type and sequence of all that apps are to be told."""
    bodies = [json.loads(row.body) for row in rows(world)]
    return [(body["type"], body["data"]["sequence"]) for body in bodies]


def position(world: World) -> tuple[int, int | None]:
    row = world.sql("SELECT followed_to, mark_to FROM endpoints WHERE removed_at IS NULL")[0]
    return row.followed_to, row.mark_to


def last_event(world: World) -> int:
    return int(world.sql("SELECT max(id) AS last FROM withdrawal_events")[0].last)


def test_each_change_is_one_delivery(world: World) -> None:
    listen(HOOK)
    withdrawal_id = world.paid()
    assert following.follow() == 3
    assert told(world) == [
        ("withdrawal.pending", 1),
        ("withdrawal.processing", 2),
        ("withdrawal.completed", 3),
    ]
    assert {row.withdrawal_id for row in rows(world)} == {withdrawal_id}
    assert following.follow() == 0, "and once"


def test_the_body_has_what_was_agreed(world: World) -> None:
    listen(HOOK)
    withdrawal_id = world.paid()
    following.follow()
    events = world.sql(
        "SELECT created_at FROM withdrawal_events WHERE from_status IS DISTINCT FROM to_status ORDER BY id"
    )
    withdrawal = world.read(withdrawal_id)
    bodies = [json.loads(row.body) for row in rows(world)]
    at = events[2].created_at.isoformat().replace("+00:00", "Z")
    assert bodies[2] == {
        "type": "withdrawal.completed",
        "timestamp": at,
        "data": {
            "withdrawal_id": str(withdrawal_id),
            "user_id": "user123",
            "amount": 500,
            "rupees_amount": 50.0,
            "upi_id": "user@okhdfcbank",
            "status": "completed",
            "previous_status": "processing",
            "sequence": 3,
            "failure_reason": None,
            "utr": withdrawal.utr,
            "created_at": withdrawal.created_at.isoformat().replace("+00:00", "Z"),
            "changed_at": at,
        },
    }
    assert withdrawal.utr
    assert [body["data"]["previous_status"] for body in bodies] == [None, "pending", "processing"]
    assert [body["data"]["utr"] for body in bodies] == [None, None, withdrawal.utr]


def test_why_it_failed_is_told_with_the_failure_and_not_before(world: World) -> None:
    listen(HOOK)
    withdrawal_id = world.paid()
    payout = world.simulator.payouts()[0]
    world.hears({**payout, "status": "reversed"})
    assert world.read(withdrawal_id).status == "failed"
    following.follow()
    assert [name for name, _ in told(world)][-2:] == ["withdrawal.completed", "withdrawal.failed"]
    reasons = [json.loads(row.body)["data"]["failure_reason"] for row in rows(world)]
    assert reasons == [None, None, None, world.read(withdrawal_id).failure_reason] and reasons[-1]


def test_notes_are_no_changes(world: World) -> None:
    listen(HOOK)
    world.credit()
    send = world.first_send()
    world.simulator.scenario("504.json", next=1)
    withdrawals.record_answer(send, world.perform(send))
    world.bring_on(send.withdrawal_id)
    events = world.sql("SELECT from_status, to_status FROM withdrawal_events")
    assert any(event.from_status == event.to_status for event in events), "something was noted"
    following.follow()
    assert len(told(world)) == sum(event.from_status != event.to_status for event in events)


def test_two_endpoints_have_deliveries_of_their_own(world: World) -> None:
    one, other = listen(HOOK)[0], listen(HOOK + "/other")[0]
    world.paid()
    assert following.follow() == 6
    ours, theirs = rows(world, one.id), rows(world, other.id)
    assert [row.body for row in ours] == [row.body for row in theirs]
    assert not {row.id for row in ours} & {row.id for row in theirs}


def test_an_endpoint_is_told_what_happens_after_it_was_added(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    listen(HOOK)
    world.finish(withdrawal_id)
    following.follow()
    assert told(world) == [("withdrawal.processing", 2), ("withdrawal.completed", 3)]


def test_a_removed_endpoint_is_told_nothing_more(world: World) -> None:
    listen(HOOK)
    with db.transaction() as session:
        endpoints.remove(session, HOOK, actor="operator:asha")
    world.paid()
    assert following.follow() == 0


def test_a_change_that_commits_late_is_told_though_its_id_is_small(world: World) -> None:
    """Its id was given out first and its transaction ends last, several beats later."""
    listen(HOOK)
    world.credit()
    world.credit("another")
    late, early = world.request(), world.request("another")
    following.follow()
    with db.transaction() as slow:
        withdrawal = withdrawals.find(slow, late, lock=True)
        journey.move(slow, withdrawal, Status.CANCELLED, actor="user", reason="slowly")
        withdrawals.cancel(early, reason="quickly", actor="user")
        for _ in range(3):
            following.follow()
        assert [row.withdrawal_id for row in rows(world)].count(late) == 1, "it cannot be seen yet"
        floor, mark = position(world)
        assert floor < last_event(world) and mark is not None, "nothing is settled while it may still appear"
    for _ in range(3):
        following.follow()
    assert [(row.withdrawal_id, row.event_id) for row in rows(world)][2:] == [(late, 3), (early, 4)]
    assert position(world) == (last_event(world), None), "now it is"


def test_what_has_settled_is_not_read_again(world: World) -> None:
    listen(HOOK)
    world.paid()
    for _ in range(2):
        following.follow()
    assert position(world) == (last_event(world), None)


def test_a_backlog_is_followed_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "ROWS_AT_ONCE", 4)
    listen(HOOK)
    for _ in range(5):
        world.paid()
    assert following.follow() == 15
    assert len(rows(world)) == 15
    following.follow()
    assert position(world) == (last_event(world), None)


def test_a_mark_of_another_server_holds_nothing_up(world: World) -> None:
    """Restored from a backup onto a new server, whose transactions begin at small numbers."""
    listen(HOOK)
    world.paid()
    following.follow()
    world.sql("UPDATE endpoints SET mark_xid = 9000000000000")
    following.follow()
    assert position(world) == (last_event(world), None)


def test_twenty_followers_at_once_make_each_delivery_once(world: World) -> None:
    listen(HOOK)
    for _ in range(5):
        world.paid()
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(following.follow) for _ in range(20)]
    assert sum(one.result() for one in made) == 15
    assert len(rows(world)) == 15


def test_a_lost_delivery_comes_again_under_its_old_id(world: World) -> None:
    """The database is set back to before it was made (a restored backup): the app is not told two things."""
    listen(HOOK)
    before = position(world)[0]
    world.paid()
    following.follow()
    ids = [row.id for row in rows(world)]
    world.sql("DELETE FROM deliveries")
    world.sql("UPDATE endpoints SET followed_to = :before, mark_to = NULL, mark_xid = NULL", before=before)
    following.follow()
    assert [row.id for row in rows(world)] == ids


def test_nobody_who_pays_waits_for_the_follower(world: World) -> None:
    """While a follower is at it, in an open transaction, the withdrawal's row can be locked at once."""
    endpoint, _ = listen(HOOK)
    world.credit()
    withdrawal_id = world.request()
    with db.transaction() as following_session:
        assert positions.go_on(following_session, following.listener(endpoint.id)) == 1
        with db.transaction() as paying:
            locked = paying.get(Withdrawal, withdrawal_id, with_for_update={"nowait": True})
            assert locked is not None


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("UPDATE deliveries SET body = '{}'", "never changes"),
        ("UPDATE deliveries SET event_id = 9", "never changes"),
        ("UPDATE deliveries SET id = gen_random_uuid()", "never changes"),
        ("UPDATE deliveries SET state = 'lost', due_at = NULL", "ck_deliveries_state"),
        ("UPDATE deliveries SET due_at = NULL", "due_iff_waiting"),
        ("UPDATE deliveries SET delivered_at = now()", "delivered_at_iff_delivered"),
        (
            "UPDATE deliveries SET state = 'failed', due_at = NULL, leased_until = now()",
            "leased_while_waiting",
        ),
        (
            "INSERT INTO deliveries (id, endpoint_id, event_id, withdrawal_id, body)"
            " SELECT gen_random_uuid(), endpoint_id, event_id, withdrawal_id, body FROM deliveries",
            "uq_deliveries_endpoint_id_event_id",
        ),
        ("DELETE FROM endpoints", "never deleted"),
        ("UPDATE endpoints SET url = 'http://app.example', allow_private = false", "url_scheme"),
        ("UPDATE endpoints SET generation = 2", "rotated_by_someone"),
        ("UPDATE endpoints SET removed_at = now()", "removed_by_someone"),
    ],
)
def test_the_database_refuses(world: World, statement: str, word: str) -> None:
    listen(HOOK)
    world.credit()
    world.request()
    following.follow()
    with pytest.raises(DBAPIError, match=word):
        world.sql(statement)
