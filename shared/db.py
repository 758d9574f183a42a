"""Connections to PostgreSQL: one engine per process, two ways to use it, and what its absence is called."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import psycopg
import structlog
from sqlalchemy import Connection, Engine, ExceptionContext, Select, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from shared import causes, sessions, tracing
from shared.errors import Unavailable
from shared.sessions import CONNECT_SECONDS, IDLE_SECONDS
from shared.settings import settings

# SQLSTATE classes and codes (PostgreSQL's appendix A): cannot be reached; reached but cannot now; out of disk
# or memory, or its disk fails.
AWAY = ("08", "57P", "53300", "25006")  # 25006: read-only, as an old primary is after a failover
BUSY = ("55P03", "57014", "40P01", "40001")  # lock or statement timeout, deadlock, serialization
FULL = ("53", "58")
READ_ONLY, TOO_MANY = "25006", "53300"
MISSING_RIGHT = "42501"
# Room is made by people, or by a vacuum: there is no use in asking sooner. Readiness tells it for so long,
# for only a write that needs a new page meets a full disk.
FULL_SECONDS = 10
ON_COMMIT = "on_commit"


log = structlog.get_logger()
State = Literal["ok", "full", "read_only", "unavailable"]
_full_at: float = -FULL_SECONDS


@cache
def engine() -> Engine:
    """This process's connections. One that was idle is tried before it is used; a busy one is not, for that
    would double the round trips of every request.
    """
    made = create_engine(
        settings().database_url.get_secret_value(),
        hide_parameters=True,  # an error may be logged, a UPI id may not
        pool_size=settings().database_pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "client_encoding": "UTF8",
            "application_name": "coin-payouts",
            "keepalives_idle": IDLE_SECONDS,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": IDLE_SECONDS * 1000,
        },
    )
    _prepare(made, sessions.Bounded, sessions.LIMITS)
    event.listen(made, "handle_error", _notice)
    tracing.of_engine(made)
    return made


def patient_engine(url: str | None = None) -> Engine:
    """Connections without limits, for a command that reads everything, and for migrations."""
    made = create_engine(
        url or settings().database_url.get_secret_value(),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"client_encoding": "UTF8"},
    )
    _prepare(made, psycopg.Connection, dict.fromkeys(sessions.LIMITS, "0"))
    return made


def _prepare(engine: Engine, kind: type[psycopg.Connection[Any]], limits: Mapping[str, str]) -> None:
    """Make each connection of this engine one of this kind that can be relied on (sessions.py)."""

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, named: Any) -> Any:
        connection = kind.connect(*args, **named)
        try:
            sessions.settle(connection, limits)
        except BaseException:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "checkin")
    def _rests(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _is_taken(connection: Any, record: Any, _fairy: Any) -> None:
        idle_since = record.info.get("idle_since")  # None of a new one
        if idle_since is not None and sessions.is_gone(connection, idle_since):
            raise InvalidatePoolError  # the others went the same way; the pool makes new ones


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
    return _of_driver(error) if isinstance(error, DBAPIError) else None


def _of_driver(error: DBAPIError) -> Unavailable | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in BUSY:
        return Unavailable("Service unavailable", "The database is busy", code="database_busy")
    if (state or "").startswith(FULL) and state != TOO_MANY:
        told = Unavailable("Service unavailable", "The database has no room", code="database_full")
        told.retry_after = FULL_SECONDS
        return told
    if state == MISSING_RIGHT:
        return Unavailable("Service unavailable", "The database is not set up", code="database_away")
    lost = error.connection_invalidated or (
        state is None and isinstance(error.orig, psycopg.OperationalError)
    )
    if lost or (state or "").startswith(AWAY):
        return Unavailable("Service unavailable", "The database cannot be reached", code="database_away")
    return None


def reach() -> State:
    """Whether the database takes what is written, by asking it now. Raises Unavailable."""
    if time.monotonic() < _full_at + FULL_SECONDS:
        return "full"
    with told_plainly(), one_statement() as connection:
        is_read_only = connection.execute(text("SHOW transaction_read_only")).scalar() != "off"
    return "read_only" if is_read_only else "ok"


def state() -> State:
    """The same in a word."""
    try:
        return reach()
    except Unavailable as error:
        log.warning("[DATABASE] unavailable", cause=causes.words_of(error))
        return "unavailable"


def _notice(context: ExceptionContext) -> None:
    """Learn from what the server says, whoever asked it."""
    global _full_at  # noqa: PLW0603  one fact for the whole process
    code = getattr(context.original_exception, "sqlstate", None) or ""
    if code == READ_ONLY:
        # A connection to a server that became read-only is of no use any more: the pool finds the new one.
        context.is_disconnect = True
    if code.startswith(FULL) and code != TOO_MANY:
        _full_at = time.monotonic()
