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
NUMBERED = (
    "SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
)
_numbers = count(1)


class EmptyDatabases:
    """Migrated databases without a row but for those that a migration wrote."""

    def __init__(self, server: Databases) -> None:
        self._server = server
        self._template = f"template_{os.getpid()}"
        migrate(server.create_database(self._template).replace("postgresql://", "postgresql+psycopg://", 1))
        self._empty: list[str] = []
        self._tables = self._rows_of_a_new_one()

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
        with psycopg.connect(self.url(name)) as connection:
            connection.execute("SET session_replication_role = replica")  # the rules forbid to delete
            # Many statements in one message: a busy machine takes its time over each.
            delete = sql.SQL("DELETE FROM {}")
            connection.execute(
                sql.SQL("; ").join(delete.format(sql.Identifier(table)) for table in self._tables)
            )
            for table, rows in self._tables.items():
                again = "INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %s)"
                if rows:
                    connection.execute(sql.SQL(again).format(table=sql.Identifier(table)), [Jsonb(rows)])
            restart = sql.SQL("ALTER SEQUENCE {} RESTART")
            numbered = connection.execute(NUMBERED).fetchall()
            connection.execute(sql.SQL("; ").join(restart.format(sql.SQL(name)) for (name,) in numbered))
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
