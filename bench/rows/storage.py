"""What room in a wallet's page saves: migration 0031."""

import random
from collections.abc import Callable
from functools import partial

import psycopg
from psycopg.rows import TupleRow

from bench.plan import Column, Contender, Figures, Options, Row, Table
from sandbox.services import Postgres
from shared.migrations import migrate

FULL, WITH_ROOM = 100, 70  # percent of a page that rows fill at first
ABOUT = f"""
A hundred thousand wallets whose balances change in random order, thirty thousand times, without a vacuum: in
pages that are full ({FULL} %, PostgreSQL's default) and in pages with room for new versions of some rows
({WITH_ROOM} %, as ours). An update in place needs no new entry in an index.
"""
FILL = """
    INSERT INTO filled (user_id, balance_coins, lifetime_coins)
    SELECT 'user' || n, 100000, 100000 FROM generate_series(1, %s) n
"""
CHANGE = "UPDATE filled SET balance_coins = balance_coins - 1 WHERE user_id = %s"
IN_PLACE = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'filled'"


def contenders(options: Options) -> list[Contender]:
    """The same table, filled to another degree."""

    def filled(percent: int) -> Callable[[], Figures]:
        return partial(_measure, percent, options)

    return [Contender(f"{percent} %", filled(percent)) for percent in (WITH_ROOM, FULL)]


def _measure(percent: int, options: Options) -> Figures:
    wallets = options.pick(100_000, 1_000)
    changes = options.pick(30_000, 300)
    with Postgres() as server:
        url = server.create_database("storage")
        migrate(url.replace("postgresql://", "postgresql+psycopg://", 1))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE filled (LIKE wallets INCLUDING ALL)")
            connection.execute(f"ALTER TABLE filled SET (fillfactor = {percent:d}, autovacuum_enabled = off)")
            connection.execute(FILL, [wallets])
            before = _written(connection)
            users = random.Random(1).choices(range(1, wallets + 1), k=changes)
            with connection.cursor() as cursor:
                cursor.executemany(CHANGE, [(f"user{user}",) for user in users])
            wal_bytes = (_written(connection) - before) / changes
            connection.execute("SELECT pg_stat_force_next_flush()")
            return {
                "in_place": 100 * _value(connection, IN_PLACE) / changes,
                "wal_bytes": wal_bytes,
                "mebibytes": _value(connection, "SELECT pg_total_relation_size('filled')") / 2**20,
            }


def _written(connection: psycopg.Connection[TupleRow]) -> float:
    """The bytes of WAL so far."""
    return _value(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")


def _value(connection: psycopg.Connection[TupleRow], query: str) -> float:
    row = connection.execute(query).fetchone()
    assert row is not None, query
    return float(row[0])


ROW = Row(
    name="storage",
    title="Room for a wallet's next version",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "",
            [
                Column("in_place", "updates in place, %"),
                Column("wal_bytes", "bytes of WAL each"),
                Column("mebibytes", "table and index afterwards, MiB"),
            ],
        )
    ],
)
