"""A batch reads in one round trip, writes in another, and is all or nothing."""

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.db import batches
from shared.db.batches import NotInBatch, Query, any_of, columns
from shared.db.engines import engine
from shared.db.transactions import now, transaction
from shared.errors import Unavailable
from shared.models import WebhookEvent, Withdrawal
from shared.withdrawals.cases import IDS
from tests.support.counting_proxy import Counts, counting_postgres
from tests.support.world import World

LOCK = Query(
    select(*columns(Withdrawal)).where(Withdrawal.id == IDS).order_by(Withdrawal.id).with_for_update()
)
EVENTS = Query(
    select(*columns(WebhookEvent)).where(WebhookEvent.event_id == any_of("ids", WebhookEvent.event_id.type))
)


@pytest.fixture
def ids(world: World) -> list:
    world.credit(coins=10_000)
    return sorted(world.request(coins=100) for _ in range(5))


@pytest.fixture
def counted(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """What is sent to the database from now on, over a connection that is open already."""
    with counting_postgres(os.environ["DATABASE_URL"]) as (url, counts):
        monkeypatch.setenv("DATABASE_URL", url)
        world.forget_settings()
        world.sql("SELECT 1")
        counts.reset()
        yield counts
        engine().dispose()


def test_five_rows_are_read_in_one_round_trip_and_written_in_another(ids: list, counted: Counts) -> None:
    with batches.batch(5) as session:
        (rows,) = batches.read(session, LOCK(ids=ids))
        assert counted.round_trips == 1
        withdrawals = batches.attach(session, Withdrawal, rows)
        for number, withdrawal in enumerate(withdrawals):
            withdrawal.due_at = now(session) + timedelta(seconds=number)
            withdrawal.admin_notes = f"note {number}"
    assert (counted.round_trips, counted.commits) == (2, 1), str(counted)
    with transaction() as session:
        read = session.scalars(select(Withdrawal).order_by(Withdrawal.id)).all()
        assert [row.admin_notes for row in read] == [f"note {number}" for number in range(5)]
        assert {row.version for row in read} == {withdrawals[0].version + 1}


def test_rows_with_other_columns_changed_keep_what_they_had(ids: list) -> None:
    with batches.batch(2) as session:
        (rows,) = batches.read(session, LOCK(ids=ids[:2]))
        first, second = batches.attach(session, Withdrawal, rows)
        first.admin_notes = "seen"
        second.utr = "500000000001"
    with transaction() as session:
        assert session.get_one(Withdrawal, ids[0]).admin_notes == "seen"
        assert session.get_one(Withdrawal, ids[0]).utr is None
        assert session.get_one(Withdrawal, ids[1]).utr == "500000000001"


def test_new_rows_get_the_defaults_of_the_database(ids: list) -> None:
    with batches.batch(1) as session:
        batches.read(session)
        session.add(WebhookEvent(event_id="ev_1", body=b"{}"))
        session.add(WebhookEvent(event_id="ev_2", body=b"{}", outcome="ignored", applied_at=now(session)))
    with transaction() as session:
        first, second = session.scalars(select(WebhookEvent).order_by(WebhookEvent.event_id))
        assert first.received_at and first.due_at and first.tries == 0
        assert (first.outcome, second.outcome) == (None, "ignored")


def test_a_row_that_changed_since_it_was_read_stops_the_whole_batch(world: World, ids: list) -> None:
    without_lock = Query(select(*columns(Withdrawal)).where(Withdrawal.id == IDS))
    with pytest.raises(IntegrityError, match="1 of 5 rows have changed"), batches.batch(5) as session:
        (rows,) = batches.read(session, without_lock(ids=ids))
        for withdrawal in batches.attach(session, Withdrawal, rows):
            withdrawal.admin_notes = "overwritten"
        world.sql("UPDATE withdrawals SET version = version + 1 WHERE id = :id", id=ids[0])
    assert {row.admin_notes for row in world.sql("SELECT admin_notes FROM withdrawals")} == {None}


def test_a_failed_batch_leaves_nothing_and_its_connection_can_be_used_again(world: World, ids: list) -> None:
    with pytest.raises(IntegrityError), batches.batch(5) as session:
        (rows,) = batches.read(session, LOCK(ids=ids))
        first, second, *_ = batches.attach(session, Withdrawal, rows)
        first.utr = second.utr = "500000000001"  # a UTR names one payment
    with pytest.raises(RuntimeError, match="our own"), batches.batch(1) as session:
        (rows,) = batches.read(session, LOCK(ids=ids[:1]))
        batches.attach(session, Withdrawal, rows)[0].admin_notes = "never written"
        raise RuntimeError("our own")
    with transaction() as session:
        session.get_one(Withdrawal, ids[0]).admin_notes = "rolled back too"
        session.flush()
        session.rollback()
    assert (
        world.sql("SELECT count(*) AS n FROM withdrawals WHERE utr IS NOT NULL OR admin_notes IS NOT NULL")[
            0
        ].n
        == 0
    )


def test_after_a_batch_an_ordinary_transaction_is_one_again(world: World, ids: list) -> None:
    """A batch sends its own BEGIN; the next user of its connection must not be in autocommit mode."""
    for _ in range(3):
        with batches.batch(1) as session:
            batches.read(session, LOCK(ids=ids))
    with pytest.raises(RuntimeError), transaction() as session:
        session.execute(Withdrawal.__table__.update().values(admin_notes="half"))
        raise RuntimeError
    assert {row.admin_notes for row in world.sql("SELECT admin_notes FROM withdrawals")} == {None}


def test_a_value_that_the_database_computes_is_written_too(world: World, ids: list) -> None:
    with batches.batch(1) as session:
        (rows,) = batches.read(session, LOCK(ids=ids[:1]))
        [withdrawal] = batches.attach(session, Withdrawal, rows)
        withdrawal.due_at = func.now() + timedelta(days=1)
    assert (
        world.sql("SELECT count(*) AS n FROM withdrawals WHERE due_at > now() + interval '1 hour'")[0].n == 1
    )


def test_rows_read_again_are_refreshed_unless_they_were_changed(world: World, ids: list) -> None:
    with batches.batch(1) as session:
        (rows,) = batches.read(session, LOCK(ids=ids[:2]))
        first, second = batches.attach(session, Withdrawal, rows)
        first.admin_notes = "ours"
        (rows,) = batches.read(session, LOCK(ids=ids[:2]))
        assert batches.attach(session, Withdrawal, rows) == [first, second]
        assert first.admin_notes == "ours"


def test_now_is_when_the_transaction_began(world: World, ids: list) -> None:
    before = world.clock()
    with batches.batch(1) as session:
        batches.read(session)
        first = now(session)
        batches.read(session)
        assert now(session) == first
    assert before <= first <= world.clock()


def test_only_a_batch_of_one_may_take_other_locks(ids: list) -> None:
    with transaction() as session:
        batches.require_alone(session)
    with batches.batch(1) as session:
        batches.require_alone(session)
    with pytest.raises(NotInBatch), batches.batch(2) as session:
        batches.require_alone(session)


def test_a_locked_row_and_a_lost_connection_are_unavailable(world: World, ids: list) -> None:
    with engine().connect() as other:
        other.execute(select(Withdrawal.id).with_for_update())
        with pytest.raises(Unavailable), batches.batch(1) as session:
            session.connection().exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
            batches.read(session, LOCK(ids=ids))
    with pytest.raises((Unavailable, DBAPIError)), batches.batch(1) as session:
        (rows,) = batches.read(session, LOCK(ids=ids))
        batches.attach(session, Withdrawal, rows)[0].admin_notes = "lost"
        pid = session.connection().connection.driver_connection.info.backend_pid
        world.sql("SELECT pg_terminate_backend(:pid)", pid=pid)
    with batches.batch(1) as session:  # the pool has replaced it
        (rows,) = batches.read(session, LOCK(ids=ids))
        assert batches.attach(session, Withdrawal, rows)[0].admin_notes is None


def test_a_statement_that_was_added_runs_after_what_changed(world: World, ids: list) -> None:
    world.paid()
    count = Query("UPDATE withdrawals SET admin_notes = 'after ' || admin_notes WHERE id = ANY(%(ids)s)")
    with batches.batch(1) as session:
        (rows,) = batches.read(session, LOCK(ids=ids[:1]))
        batches.add_query(session, count(ids=ids[:1]))
        batches.attach(session, Withdrawal, rows)[0].admin_notes = "note"
    assert world.read(ids[0]).admin_notes == "after note"


@pytest.mark.parametrize(
    "text", ["", "NULL", "null", "{}", "a,b", 'say "so"', "back\\slash", "'", " ", "₹ 日本", "a\nb"]
)
def test_any_text_is_written_and_found_as_it_is(world: World, text: str) -> None:
    with batches.batch(1) as session:
        batches.read(session)
        session.add(WebhookEvent(event_id=text, body=text.encode(), reference_id=text))
        session.add(WebhookEvent(event_id="another", body=bytes(range(256))))
    with batches.batch(1) as session:
        (rows,) = batches.read(session, EVENTS(ids=[text, "no such id"]))
        [event] = batches.attach(session, WebhookEvent, rows)
        assert (event.event_id, event.body, event.reference_id) == (text, text.encode(), text)
        (rows,) = batches.read(session, EVENTS(ids=["another"]))
        assert batches.attach(session, WebhookEvent, rows)[0].body == bytes(range(256))
        assert batches.read(session, EVENTS(ids=[])) == [[]]
