"""Transactions, and the translation of database errors to Unavailable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, object_session

from shared.db.engines import FULL_RETRY_SECONDS, FULL_STATES, TOO_MANY_CONNECTIONS_STATE, engine
from shared.errors import Unavailable

# SQLSTATE classes and codes (PostgreSQL's appendix A).
AWAY_STATES = ("08", "57P", "53300", "25006")  # not reachable; 25006: read-only, as after a failover
BUSY_STATES = ("55P03", "57014", "40P01", "40001")  # lock or statement timeout, deadlock, serialization
MISSING_RIGHT_STATE = "42501"
ON_COMMIT = "on_commit"
NOW = "now"


@contextmanager
def transaction() -> Iterator[Session]:
    """Run a transaction: commit at the end, roll back on an error. Raises Unavailable."""
    with map_db_errors(), Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for callback in session.info.pop(ON_COMMIT, ()):
            callback()


def on_commit(session: Session, callback: Callable[[], None]) -> None:
    """Call `callback` after the session's transaction commits, and never otherwise. It must not raise."""
    session.info.setdefault(ON_COMMIT, []).append(callback)


def now(session: Session) -> datetime:
    """Return the time at which the transaction began, by the database's clock."""
    if NOW not in session.info:
        with session.no_autoflush:  # in the middle of a change, which is not to be written yet
            session.info[NOW] = session.scalar(select(func.now()))
    moment: datetime = session.info[NOW]
    return moment


def now_for(row: object) -> datetime:
    """Return `now` of the transaction in which this row was loaded."""
    session = object_session(row)
    assert session is not None, "rows are changed in the transaction that loaded them"
    return now(session)


@contextmanager
def autocommit() -> Iterator[Connection]:
    """Yield a connection on which each statement is its own transaction: no BEGIN and no COMMIT are sent."""
    with engine().connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def select_locked_once(rows: Select[Any]) -> Select[Any]:
    """Wrap a query with LIMIT and FOR UPDATE for `column.in_(…)` of the statement that changes its rows.

    PostgreSQL may run a plain subquery as the inner side of a nested loop, once for each row of the table.
    Each run would skip the rows that the previous one changed, so LIMIT 1 would change them all.
    """
    chosen = rows.cte("chosen").prefix_with("MATERIALIZED")
    return select(*chosen.c)


@contextmanager
def map_db_errors() -> Iterator[None]:
    """Turn errors that mean "the database is away" or "busy" into Unavailable; other errors pass."""
    try:
        yield
    except (PoolTimeout, DBAPIError) as error:
        if (unavailable := as_unavailable(error)) is None:
            raise
        raise unavailable from error


def as_unavailable(error: Exception) -> Unavailable | None:
    """Return Unavailable for an error that means the database cannot be used now; None for other errors."""
    if isinstance(error, PoolTimeout):
        return Unavailable("Service unavailable", "All connections are in use", code="database_busy")
    return _from_driver(error) if isinstance(error, DBAPIError) else None


def _from_driver(error: DBAPIError) -> Unavailable | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in BUSY_STATES:
        return Unavailable("Service unavailable", "The database is busy", code="database_busy")
    if (state or "").startswith(FULL_STATES) and state != TOO_MANY_CONNECTIONS_STATE:
        full = Unavailable("Service unavailable", "The database has no space left", code="database_full")
        full.retry_after = FULL_RETRY_SECONDS
        return full
    if state == MISSING_RIGHT_STATE:
        return Unavailable("Service unavailable", "The database is not set up", code="database_away")
    is_lost = error.connection_invalidated or (
        state is None and isinstance(error.orig, psycopg.OperationalError)
    )
    if is_lost or (state or "").startswith(AWAY_STATES):
        return Unavailable("Service unavailable", "The database cannot be reached", code="database_away")
    return None
