"""Empty databases for tests, which are reused.

Creating and dropping a database takes a third of a second, emptying one a fiftieth.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sandbox.services import Databases
from shared.db.engines import unbounded_engine
from shared.migrations import migrate

OUR_TABLES = "SELECT relname FROM pg_stat_user_tables WHERE relname <> 'alembic_version' ORDER BY relname"
WITHOUT_RULES = sql.SQL("SET LOCAL session_replication_role = replica")  # the rules forbid deletion
DELETE = sql.SQL("DELETE FROM {table}")
INSERT_ROWS = sql.SQL("INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, {rows})")
# ALTER SEQUENCE would create a new file for each sequence.
RESTART_SEQUENCES = sql.SQL("SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence")
# Otherwise the server would count what the DELETEs read seconds later, during the next test.
COUNT_NOW = sql.SQL("SELECT pg_stat_force_next_flush()")
_numbers = count(1)


def reset_statement(tables: dict[str, list[dict[str, Any]]]) -> sql.Composed:
    """Return the statement that resets a database to these tables and rows, those of a new database.

    One message is one transaction, and a busy machine takes long over each message.
    """
    delete = [DELETE.format(table=sql.Identifier(table)) for table in tables]
    restore = [
        INSERT_ROWS.format(table=sql.Identifier(table), rows=sql.Literal(Jsonb(rows)))
        for table, rows in tables.items()
        if rows
    ]
    return sql.SQL("; ").join([WITHOUT_RULES, *delete, *restore, RESTART_SEQUENCES, COUNT_NOW])


# What a test may have changed besides rows: tables, columns, triggers, constraints, functions, rights, settings.
SCHEMA = """
    SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
        SELECT concat_ws(' ', oid::regclass, relkind, relacl) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
        UNION ALL
        SELECT concat_ws(' ', attrelid::regclass, attname, atttypid, atttypmod, attnotnull, attisdropped)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0
        UNION ALL SELECT concat_ws(' ', oid, tgenabled) FROM pg_trigger
        UNION ALL SELECT concat_ws(' ', oid, conname, convalidated) FROM pg_constraint
        UNION ALL SELECT concat_ws(' ', oid, proname, prosrc) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT setconfig::text FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()
    ) AS schema (line)
"""


class EmptyDatabases:
    """Migrated databases that contain only the rows that a migration wrote."""

    def __init__(self, server: Databases) -> None:
        self._server = server
        self._template = f"template_{os.getpid()}"
        migrate(server.create_database(self._template).replace("postgresql://", "postgresql+psycopg://", 1))
        self._empty: list[str] = []
        self._connections: dict[str, Connection] = {}
        self._reset = reset_statement(self._migrated_rows())
        with self.connection(self._template) as connection:
            self._schema = _schema(connection)
        self._connections.pop(self._template).close()  # a template has no users

    def take(self) -> str:
        """Return the name of an empty database; create one if none is free."""
        if self._empty:
            return self._empty.pop()
        name = f"world_{os.getpid()}_{next(_numbers)}"
        self._server.create_database(name, template=self._template)
        return name

    def url(self, name: str) -> str:
        return self._server.database_url(name)

    @contextmanager
    def connection(self, name: str) -> Iterator[Connection]:
        """A connection that is kept for the next test, because the server reuses its plans."""
        kept = self._connections.pop(name, None)
        if kept is None or not _is_alive(kept):  # a test may have closed every connection
            kept = unbounded_engine(
                self.url(name).replace("postgresql://", "postgresql+psycopg://", 1)
            ).connect()
        try:
            yield kept
            kept.commit()  # psycopg forgets its prepared statements when it rolls back
            self._connections[name] = kept
        except BaseException:
            kept.close()
            raise

    def give_back(self, name: str, *, may_have_changed: bool = False) -> None:
        """Empty a database for the next test, or drop it if more than its rows changed."""
        with self.connection(name) as connection:
            is_reusable = not may_have_changed or _schema(connection) == self._schema
        if not is_reusable:
            self._drop(name)
            return
        with self.connection(name) as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.execute(self._reset)
            driver.commit()
        self._empty.append(name)

    def close(self) -> None:
        for name in (*self._empty, self._template):
            self._drop(name)

    def _drop(self, name: str) -> None:
        if connection := self._connections.pop(name, None):
            connection.close()
        self._server.drop_database(name)

    def _migrated_rows(self) -> dict[str, list[dict[str, Any]]]:
        with psycopg.connect(self.url(self._template)) as connection:
            tables = [table for (table,) in connection.execute(OUR_TABLES).fetchall()]
            query = sql.SQL("SELECT to_jsonb(t) FROM {} t")
            return {
                table: [row for (row,) in connection.execute(query.format(sql.Identifier(table))).fetchall()]
                for table in tables
            }


def _schema(connection: Connection) -> str:
    return str(connection.exec_driver_sql(SCHEMA).scalar_one())


def _is_alive(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
    except DBAPIError:
        return False
    return True
