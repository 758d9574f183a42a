"""One statement on a hot route, through psycopg itself: prepared once on each connection, one round trip.

SQLAlchemy around a statement costs more than psycopg and the wire together. Connections, their checks and the
errors stay SQLAlchemy's: a connection comes from the engine's pool, and an error is SQLAlchemy's for it.
"""

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.pool import PoolProxiedConnection

from shared.db.engines import engine, note_error, wrapped
from shared.telemetry import tracing

PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
CURSOR = "cursor"  # in a connection's `info`: making a cursor costs as much as sending a statement


class Statement:
    """A statement that returns rows and is a transaction of its own: no BEGIN and no COMMIT are sent.

    Its SQL has `:name` parameters. Those that never change may be given as `constants`: they become literals.
    """

    def __init__(self, text: str, constants: Mapping[str, Any] | None = None) -> None:
        self._sql = _in_drivers_form(text, constants or {})

    def first(self, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run the statement and return its first row, or None.

        Raises PoolTimeout and DBAPIError. If the connection was lost meanwhile, the error has
        `connection_invalidated`: the statement may have been committed or not.
        """
        connection = _connect()
        try:
            with tracing.statement(self._sql):
                return self._run(connection, values)
        finally:
            connection.close()  # gives it back to the pool

    def _run(self, connection: PoolProxiedConnection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        driver: psycopg.Connection[Any] = connection.driver_connection  # type: ignore[assignment]
        cursor: psycopg.Cursor[Any] = connection.info.get(CURSOR) or connection.info.setdefault(
            CURSOR, driver.cursor()
        )
        try:
            driver.autocommit = True
            cursor.execute(self._sql, values, prepare=True)
            row: tuple[Any, ...] | None = cursor.fetchone()
            driver.autocommit = False
            return row
        except psycopg.Error as error:
            raise wrapped(error, is_lost=_restore(connection, driver, error)) from error
        except BaseException:
            connection.invalidate()  # the reply may still come
            raise


def _in_drivers_form(text: str, constants: Mapping[str, Any]) -> str:
    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return literal(constants[name]) if name in constants else f"%({name})s"

    return PARAMETER.sub(replaced, text.replace("%", "%%"))


def literal(value: Any) -> str:
    """Return a value as a part of psycopg's statement.

    A plan that the server keeps can use a partial index for a literal, but not for a parameter.
    """
    plain = str(value) if isinstance(value, str) else value  # psycopg does not know our enums
    return sql.Literal(plain).as_string().replace("%", "%%")


def _connect() -> PoolProxiedConnection:
    """Return a connection of the pool. Raises PoolTimeout, DBAPIError."""
    try:
        return engine().raw_connection()
    except psycopg.Error as error:
        note_error(error)
        raise wrapped(error, is_lost=False) from error


def _restore(
    connection: PoolProxiedConnection, driver: psycopg.Connection[Any], error: psycopg.Error
) -> bool:
    """Make a connection usable for the next one who takes it; True if it was lost instead."""
    if not (note_error(error) or driver.closed or driver.broken):
        driver.autocommit = False
        return False
    # The pool's other connections are likely lost too: it replaces them. SQLAlchemy does the same.
    engine().pool._invalidate(connection, error)
    return True
