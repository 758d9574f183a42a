"""One statement through psycopg itself: prepared, its own transaction, with SQLAlchemy's pool and errors."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.db.engines import engine
from shared.db.statements import Statement
from shared.db.transactions import map_db_errors, transaction
from shared.errors import Unavailable
from shared.states import Status
from tests.support.counting_proxy import Counts, counting_postgres
from tests.support.world import World, forget_settings

ECHO = Statement("SELECT CAST(:number AS bigint) AS number")
INSERT = Statement("INSERT INTO wallets (user_id) VALUES (:user_id) RETURNING user_id")


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    with counting_postgres(os.environ["DATABASE_URL"]) as (url, counts):
        monkeypatch.setenv("DATABASE_URL", url)
        forget_settings()
        yield counts
        engine().dispose()


def test_a_statement_is_prepared_once_on_a_connection_and_is_then_one_round_trip(wire: Counts) -> None:
    ECHO.first({"number": 1})
    wire.reset()
    assert [ECHO.first({"number": number}) for number in range(3)] == [(0,), (1,), (2,)]
    assert (sum(wire.statements.values()), wire.round_trips) == (3, 3), wire


def test_a_statement_is_committed_and_leaves_the_connection_to_transactions(wire: Counts) -> None:
    assert INSERT.first({"user_id": "asha"}) == ("asha",)
    with pytest.raises(RuntimeError), transaction() as session:
        session.execute(text("INSERT INTO wallets (user_id) VALUES ('ravi')"))
        raise RuntimeError
    with transaction() as session:
        assert session.scalars(text("SELECT user_id FROM wallets")).all() == ["asha"]


def test_it_returns_none_without_a_row(world: World) -> None:
    assert Statement("SELECT 1 WHERE false").first({}) is None
    assert Statement("UPDATE wallets SET name = 'x' WHERE false RETURNING 1").first({}) is None


def test_constants_become_literals_and_percent_signs_stay(world: World) -> None:
    statement = Statement(
        "SELECT :word, :number + 1, :nothing IS NULL, :status, 'a%b' LIKE '%' || :sign, CAST(:value AS text)",
        {"word": "it's :value %s", "number": 2.5, "nothing": None, "status": Status.PENDING, "sign": "%b"},
    )
    row = statement.first({"value": "100 %"})
    assert row is not None
    assert (row[0], float(row[1]), *row[2:]) == ("it's :value %s", 3.5, True, "pending", True, "100 %")


def test_an_error_of_the_database_is_sqlalchemys_and_the_connection_stays(wire: Counts) -> None:
    INSERT.first({"user_id": "asha"})
    for _ in range(3):
        with pytest.raises(IntegrityError, match="pk_wallets") as raised:
            INSERT.first({"user_id": "asha"})
        assert not raised.value.connection_invalidated
        assert "user_id" not in str(raised.value.params), "no value is shown"
        with pytest.raises(DataError):
            Statement("SELECT 1 / CAST(:number AS int)").first({"number": 0})
    assert ECHO.first({"number": 5}) == (5,)
    with pytest.raises(RuntimeError), transaction() as session:
        session.execute(text("UPDATE wallets SET name = 'x'"))
        raise RuntimeError
    with transaction() as session:
        assert session.scalars(text("SELECT name FROM wallets")).all() == [None]


def test_a_connection_that_is_lost_meanwhile_is_reported_as_such_and_the_pool_heals(world: World) -> None:
    with pytest.raises(DBAPIError) as raised:
        Statement("SELECT pg_terminate_backend(pg_backend_pid())").first({})
    assert raised.value.connection_invalidated
    assert ECHO.first({"number": 5}) == (5,)


def test_a_connection_that_was_lost_while_idle_is_replaced_silently(world: World) -> None:
    ECHO.first({"number": 1})
    world.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert [ECHO.first({"number": number}) for number in range(5)] == [(number,) for number in range(5)]


def test_a_database_that_cannot_be_reached_means_that_nothing_ran(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.point_database_at_nothing(monkeypatch)
    with pytest.raises(OperationalError) as raised:
        ECHO.first({"number": 1})
    assert not raised.value.connection_invalidated
    with pytest.raises(Unavailable) as unavailable, map_db_errors():
        ECHO.first({"number": 1})
    assert unavailable.value.code == "database_away"
    world.point_database_back(monkeypatch)


def test_a_full_pool_is_reported_as_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine().pool, "_timeout", 0.1)
    held = [engine().raw_connection() for _ in range(engine().pool.size())]  # type: ignore[attr-defined]
    try:
        with pytest.raises(PoolTimeout):
            ECHO.first({"number": 1})
    finally:
        for connection in held:
            connection.close()
    assert ECHO.first({"number": 1}) == (1,)


def test_what_interrupts_a_statement_does_not_leave_its_reply_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stop

    ECHO.first({"number": 1})
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(psycopg.Cursor, "fetchone", stop)
        ECHO.first({"number": 2})
    assert ECHO.first({"number": 3}) == (3,)


def test_many_threads_get_their_own_rows(world: World) -> None:
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda number: ECHO.first({"number": number}), range(500)))
    assert rows == [(number,) for number in range(500)]
