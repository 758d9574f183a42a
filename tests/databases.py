"""Databases for tests: each test finds an empty one, and few are ever made.

Making and dropping a database costs a third of a second, emptying one a fiftieth.
"""

import os
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from sandbox.services import Databases
from shared.migrations import migrate

OURS = "SELECT relname FROM pg_stat_user_tables WHERE relname <> 'alembic_version' ORDER BY relname"
WITHOUT_RULES = sql.SQL("SET session_replication_role = replica")  # they forbid to delete
DELETE = sql.SQL("DELETE FROM {table}")
AS_MIGRATED = sql.SQL("INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, {rows})")
# Not ALTER SEQUENCE, which makes a new file for each.
FROM_THE_START = sql.SQL("SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence")
_numbers = count(1)


def emptying(tables: dict[str, list[dict[str, Any]]]) -> sql.Composed:
    """What makes a database as if it were new, where these are the tables and the rows of a new one.

    Many statements in one message, which is one transaction: a busy machine takes its time over each message.
    """
    delete = [DELETE.format(table=sql.Identifier(table)) for table in tables]
    again = [
        AS_MIGRATED.format(table=sql.Identifier(table), rows=sql.Literal(Jsonb(rows)))
        for table, rows in tables.items()
        if rows
    ]
    return sql.SQL("; ").join([WITHOUT_RULES, *delete, *again, FROM_THE_START])


class EmptyDatabases:
    """Migrated databases without a row but for those that a migration wrote."""

    def __init__(self, server: Databases) -> None:
        self._server = server
        self._template = f"template_{os.getpid()}"
        migrate(server.create_database(self._template).replace("postgresql://", "postgresql+psycopg://", 1))
        self._empty: list[str] = []
        self._emptying = emptying(self._rows_of_a_new_one())

    def take(self) -> str:
        """The name of one."""
        if self._empty:
            return self._empty.pop()
        name = f"world_{os.getpid()}_{next(_numbers)}"
        self._server.create_database(name, template=self._template)
        return name

    def url(self, name: str) -> str:
        return self._server.url_of(name)

    def give_back(self, name: str, *, as_it_was: bool = True) -> None:
        """Empty it for the next one. One whose tables may be others now is dropped."""
        if not as_it_was:
            self._server.drop_database(name)
            return
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(self._emptying)
        self._empty.append(name)

    def close(self) -> None:
        for name in (*self._empty, self._template):
            self._server.drop_database(name)

    def _rows_of_a_new_one(self) -> dict[str, list[dict[str, Any]]]:
        with psycopg.connect(self.url(self._template)) as connection:
            tables = [table for (table,) in connection.execute(OURS).fetchall()]
            every = sql.SQL("SELECT to_jsonb(t) FROM {} t")
            return {
                table: [row for (row,) in connection.execute(every.format(sql.Identifier(table))).fetchall()]
                for table in tables
            }
