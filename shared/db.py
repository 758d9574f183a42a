"""Connections to PostgreSQL: one engine per process, two ways to use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from shared.errors import Unavailable
from shared.settings import settings

# A statement or a lock wait longer than this is a fault: give the connection back and say so.
STATEMENT_SECONDS, LOCK_SECONDS, CONNECT_SECONDS = 30, 10, 3


@cache
def engine() -> Engine:
    """This process's connections. No ping before use: it would double the round trips of every request."""
    options = f"-c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s -c timezone=UTC"
    return create_engine(
        settings().database_url.get_secret_value(),
        pool_size=settings().database_pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": options,
            "application_name": "coin-payouts",
        },
    )


@contextmanager
def transaction() -> Iterator[Session]:
    """One transaction: committed at the end, or nothing. Raises Unavailable when the database is away."""
    with told_plainly(), Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def one_statement() -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own: no BEGIN, no COMMIT on the wire."""
    with engine().connect() as plain:
        yield plain.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turns "the database is away" into Unavailable; every other error passes."""
    try:
        yield
    except (PoolTimeout, DBAPIError) as error:
        if not is_away(error):
            raise
        raise Unavailable(
            "Service unavailable", "The database cannot be reached", code="database_away"
        ) from error


def is_away(error: Exception) -> bool:
    """Whether `error` is about reaching the database, not about what was asked of it."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError, PoolTimeout))


def answers() -> bool:
    """Whether the database answers now."""
    try:
        with one_statement() as connection:
            return connection.execute(text("SELECT 1")).scalar() == 1
    except (DBAPIError, PoolTimeout):
        return False
