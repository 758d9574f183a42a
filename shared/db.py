"""Connections to PostgreSQL: one engine per process, two ways to use it, and what its absence is called."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, ExceptionContext, Select, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from shared import tracing
from shared.errors import Unavailable
from shared.settings import settings

# A statement or a lock wait longer than this is a fault: give the connection back and say so.
STATEMENT_SECONDS, LOCK_SECONDS, CONNECT_SECONDS = 10, 3, 3
# The server keeps the limits above; a server that is frozen keeps none, so the client has its own.
ANSWER_SECONDS = STATEMENT_SECONDS + 2
# A process that froze inside a transaction must not keep its locks: the database ends it.
IDLE_SECONDS = 30

# SQLSTATE classes and codes (PostgreSQL's appendix A): cannot be reached, and reached but cannot now.
AWAY = ("08", "57P", "53300", "25006")  # 25006: read-only, as an old primary is after a failover
BUSY = ("55P03", "57014", "40P01", "40001")  # lock or statement timeout, deadlock, serialization
READ_ONLY = "25006"
ON_COMMIT = "on_commit"


class _Bounded(psycopg.Connection[Any]):
    """A connection that waits for an answer only so long, even when TCP has nothing to say."""

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        return super().wait(_until(self, gen, time.monotonic() + ANSWER_SECONDS), *arguments, **named)


def _until(connection: _Bounded, gen: Any, deadline: float) -> Generator[Any, Any, Any]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                gen.close()
                connection.close()
                raise psycopg.OperationalError("the database does not answer")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


@cache
def engine() -> Engine:
    """This process's connections. No ping before use: it would double the round trips of every request."""
    limits = {
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "lock_timeout": f"{LOCK_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
        "timezone": "UTC",
    }
    made = create_engine(
        settings().database_url.get_secret_value(),
        hide_parameters=True,  # an error may be logged, a UPI id may not
        pool_size=settings().database_pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
            "application_name": "coin-payouts",
            "keepalives_idle": IDLE_SECONDS,
            "tcp_user_timeout": IDLE_SECONDS * 1000,
        },
    )
    event.listen(made, "do_connect", lambda _dialect, _record, args, named: _Bounded.connect(*args, **named))
    event.listen(made, "handle_error", _leave_the_old_primary)
    tracing.of_engine(made)
    return made


def patient_engine() -> Engine:
    """Connections without limits, for a command that reads everything."""
    url = settings().database_url.get_secret_value()
    return create_engine(url, poolclass=NullPool, hide_parameters=True)


@contextmanager
def transaction() -> Iterator[Session]:
    """One transaction: committed at the end, or nothing. Raises Unavailable when the database is away."""
    with told_plainly(), Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
        for then in session.info.pop(ON_COMMIT, ()):
            then()


def on_commit(session: Session, then: Callable[[], None]) -> None:
    """Do this once the session's transaction is committed, and never otherwise. It must not raise."""
    session.info.setdefault(ON_COMMIT, []).append(then)


@contextmanager
def one_statement() -> Iterator[Connection]:
    """A connection on which each statement is a transaction of its own: no BEGIN, no COMMIT on the wire."""
    with engine().connect() as plain:
        yield plain.execution_options(isolation_level="AUTOCOMMIT")


def locked_once(rows: Select[Any]) -> Select[Any]:
    """The rows of a query with LIMIT and FOR UPDATE, for `column.in_(…)` of the statement that changes them.

    Written as a plain subquery, PostgreSQL may plan it as the inner side of a nested loop and run it once for
    each row of the table: each run skips what the one before changed, and LIMIT 1 changes them all.
    """
    chosen = rows.cte("chosen").prefix_with("MATERIALIZED")
    return select(*chosen.c)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turns "the database is away" and "it is busy" into Unavailable; every other error passes."""
    try:
        yield
    except (PoolTimeout, DBAPIError) as error:
        if (told := unavailable(error)) is None:
            raise
        raise told from error


def unavailable(error: Exception) -> Unavailable | None:
    """What to tell a caller when `error` is about reaching the database; None when it is not."""
    if isinstance(error, PoolTimeout):
        return Unavailable("Service unavailable", "All connections are in use", code="database_busy")
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    if state in BUSY:
        return Unavailable("Service unavailable", "The database is busy", code="database_busy")
    lost = error.connection_invalidated or (
        state is None and isinstance(error.orig, psycopg.OperationalError)
    )
    if lost or (state or "").startswith(AWAY):
        return Unavailable("Service unavailable", "The database cannot be reached", code="database_away")
    return None


def answers() -> bool:
    """Whether the database answers now, and can be written to."""
    try:
        with one_statement() as connection:
            return connection.execute(text("SHOW transaction_read_only")).scalar() == "off"
    except (DBAPIError, PoolTimeout):
        return False


def _leave_the_old_primary(context: ExceptionContext) -> None:
    """A connection to a server that became read-only is of no use any more: the pool finds the new one."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
