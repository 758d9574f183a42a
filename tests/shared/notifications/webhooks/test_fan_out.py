"""Fan-out: one delivery for each change and endpoint, in whatever order transactions commit."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import DBAPIError

from shared import withdrawals
from shared.db.transactions import transaction
from shared.models import Withdrawal
from shared.notifications import event_cursor
from shared.notifications.webhooks import endpoints, fan_out
from shared.states import Status
from shared.withdrawals import transitions
from tests.support import steps
from tests.support.webhook_steps import add_endpoint, rows
from tests.support.world import World

HOOK = "http://127.0.0.1:9/hook"


def delivered_events(world: World) -> list[tuple[str, int]]:
    """Type and sequence of every delivery."""
    bodies = [json.loads(row.body) for row in rows(world)]
    return [(body["type"], body["data"]["sequence"]) for body in bodies]


def cursor_of(world: World) -> tuple[int, int | None]:
    row = world.sql("SELECT followed_to, mark_to FROM endpoints WHERE removed_at IS NULL")[0]
    return row.followed_to, row.mark_to


def last_event(world: World) -> int:
    return int(world.sql("SELECT max(id) AS last FROM withdrawal_events")[0].last)


def test_each_change_is_one_delivery(world: World) -> None:
    add_endpoint(HOOK)
    withdrawal_id = world.paid()
    assert fan_out.create_deliveries() == 3
    assert delivered_events(world) == [
        ("withdrawal.pending", 1),
        ("withdrawal.processing", 2),
        ("withdrawal.completed", 3),
    ]
    assert {row.withdrawal_id for row in rows(world)} == {withdrawal_id}
    assert fan_out.create_deliveries() == 0, "and only once"


def test_the_body_matches_the_documented_format(world: World) -> None:
    add_endpoint(HOOK)
    withdrawal_id = world.paid()
    fan_out.create_deliveries()
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


def test_the_failure_reason_is_sent_with_the_failure_and_not_before(world: World) -> None:
    add_endpoint(HOOK)
    withdrawal_id = world.paid()
    payout = world.simulator.payouts()[0]
    world.receive_report({**payout, "status": "reversed"})
    assert world.read(withdrawal_id).status == "failed"
    fan_out.create_deliveries()
    assert [name for name, _ in delivered_events(world)][-2:] == ["withdrawal.completed", "withdrawal.failed"]
    reasons = [json.loads(row.body)["data"]["failure_reason"] for row in rows(world)]
    assert reasons == [None, None, None, world.read(withdrawal_id).failure_reason] and reasons[-1]


def test_events_without_a_change_of_status_are_not_delivered(world: World) -> None:
    add_endpoint(HOOK)
    world.credit()
    send = world.first_send()
    world.simulator.scenario("504.json", next=1)
    steps.record_answer(send, world.perform(send))
    world.bring_on(send.withdrawal_id)
    events = world.sql("SELECT from_status, to_status FROM withdrawal_events")
    assert any(event.from_status == event.to_status for event in events), (
        "an event without a change was recorded"
    )
    fan_out.create_deliveries()
    assert len(delivered_events(world)) == sum(event.from_status != event.to_status for event in events)


def test_two_endpoints_have_deliveries_of_their_own(world: World) -> None:
    first = add_endpoint(HOOK)[0]
    second = add_endpoint(HOOK + "/other")[0]
    world.paid()
    assert fan_out.create_deliveries() == 6
    ours, theirs = rows(world, first.id), rows(world, second.id)
    assert [row.body for row in ours] == [row.body for row in theirs]
    assert not {row.id for row in ours} & {row.id for row in theirs}


def test_an_endpoint_gets_the_changes_after_it_was_added(world: World) -> None:
    world.credit()
    withdrawal_id = world.request()
    add_endpoint(HOOK)
    world.finish(withdrawal_id)
    fan_out.create_deliveries()
    assert delivered_events(world) == [("withdrawal.processing", 2), ("withdrawal.completed", 3)]


def test_a_removed_endpoint_gets_no_more_deliveries(world: World) -> None:
    add_endpoint(HOOK)
    with transaction() as session:
        endpoints.remove(session, HOOK, actor="operator:asha")
    world.paid()
    assert fan_out.create_deliveries() == 0


def test_a_change_that_commits_late_is_delivered_though_its_id_is_small(world: World) -> None:
    """Its id was assigned first and its transaction ends last, several beats later."""
    add_endpoint(HOOK)
    world.credit()
    world.credit("another")
    late, early = world.request(), world.request("another")
    fan_out.create_deliveries()
    with transaction() as slow:
        withdrawal = withdrawals.find(slow, late, lock=True)
        transitions.transition(slow, withdrawal, Status.CANCELLED, actor="user", reason="slowly")
        slow.flush()  # its event has an id from now on
        withdrawals.cancel(early, reason="quickly", actor="user")
        for _ in range(3):
            fan_out.create_deliveries()
        assert [row.withdrawal_id for row in rows(world)].count(late) == 1, "the change is not visible yet"
        floor, mark = cursor_of(world)
        assert floor < last_event(world) and mark is not None, "no mark settles while it may still appear"
    for _ in range(3):
        fan_out.create_deliveries()
    assert [(row.withdrawal_id, row.event_id) for row in rows(world)][2:] == [(late, 3), (early, 4)]
    assert cursor_of(world) == (last_event(world), None), "now the mark has settled"


def test_settled_rows_are_not_read_again(world: World) -> None:
    add_endpoint(HOOK)
    world.paid()
    for _ in range(2):
        fan_out.create_deliveries()
    assert cursor_of(world) == (last_event(world), None)


def test_a_backlog_is_fanned_out_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_cursor, "ROWS_PER_BATCH", 4)
    add_endpoint(HOOK)
    for _ in range(5):
        world.paid()
    assert fan_out.create_deliveries() == 15
    assert len(rows(world)) == 15
    fan_out.create_deliveries()
    assert cursor_of(world) == (last_event(world), None)


def test_a_mark_from_another_server_blocks_nothing(world: World) -> None:
    """A backup restored on a new server, whose transaction numbers start low."""
    add_endpoint(HOOK)
    world.paid()
    fan_out.create_deliveries()
    world.sql("UPDATE endpoints SET mark_xid = 9000000000000")
    fan_out.create_deliveries()
    assert cursor_of(world) == (last_event(world), None)


def test_twenty_concurrent_fan_outs_create_each_delivery_once(world: World) -> None:
    add_endpoint(HOOK)
    for _ in range(5):
        world.paid()
    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(fan_out.create_deliveries) for _ in range(20)]
    assert sum(result.result() for result in results) == 15
    assert len(rows(world)) == 15


def test_a_lost_delivery_is_created_again_with_the_same_id(world: World) -> None:
    """A restored backup loses the delivery; the app must see the same id again."""
    add_endpoint(HOOK)
    before = cursor_of(world)[0]
    world.paid()
    fan_out.create_deliveries()
    ids = [row.id for row in rows(world)]
    world.sql("DELETE FROM deliveries")
    world.sql("UPDATE endpoints SET followed_to = :before, mark_to = NULL, mark_xid = NULL", before=before)
    fan_out.create_deliveries()
    assert [row.id for row in rows(world)] == ids


def test_payments_never_wait_for_webhook_fan_out(world: World) -> None:
    """While fan-out has a transaction open, the withdrawal's row can be locked at once."""
    endpoint, _ = add_endpoint(HOOK)
    world.credit()
    withdrawal_id = world.request()
    with transaction() as fan_out_session:
        assert event_cursor.advance_batch(fan_out_session, fan_out.subscriber(endpoint.id)) == 1
        with transaction() as paying:
            locked = paying.get(Withdrawal, withdrawal_id, with_for_update={"nowait": True})
            assert locked is not None


@pytest.mark.parametrize(
    ("statement", "error"),
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
def test_the_database_refuses_forbidden_changes_of_deliveries(
    world: World, statement: str, error: str
) -> None:
    add_endpoint(HOOK)
    world.credit()
    world.request()
    fan_out.create_deliveries()
    with pytest.raises(DBAPIError, match=error):
        world.sql(statement)
