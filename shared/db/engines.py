"""The engines that connect a process to PostgreSQL."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import NullPool

from shared.db import connections
from shared.db.connections import CONNECT_TIMEOUT_SECONDS, IDLE_TRANSACTION_SECONDS
from shared.settings import settings
from shared.telemetry import tracing

# SQLSTATE classes and codes (PostgreSQL's appendix A): out of disk or memory, or a disk failure.
FULL_STATES = ("53", "58")
READ_ONLY_STATE = "25006"
TOO_MANY_CONNECTIONS_STATE = "53300"
# Space is freed by people or by a vacuum, so retrying sooner is useless. Readiness reports "full" for as
# long, because only a write that needs a new page notices a full disk.
FULL_RETRY_SECONDS = 10
_full_at: float = -FULL_RETRY_SECONDS


def engine() -> Engine:
    """Return this process's connection pool. Only idle connections are pinged before use: pinging busy ones
    would double the round trips of every request.
    """
    return _engine_for(settings().database_url.get_secret_value(), settings().database_pool_size)


@cache
def _engine_for(url: str, pool_size: int) -> Engine:
    pool = create_engine(
        url,
        hide_parameters=True,  # an error may be logged, a UPI id may not
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "client_encoding": "UTF8",
            "application_name": "coin-payouts",
            "keepalives_idle": IDLE_TRANSACTION_SECONDS,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": IDLE_TRANSACTION_SECONDS * 1000,
        },
    )
    _configure_connections(pool, connections.BoundedConnection, connections.LIMITS)
    event.listen(pool, "handle_error", _inspect_error)
    tracing.instrument_engine(pool)
    return pool


def unbounded_engine(url: str | None = None) -> Engine:
    """Return an engine without time limits, for migrations and for commands that read everything."""
    unbounded = create_engine(
        url or settings().database_url.get_secret_value(),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"client_encoding": "UTF8"},
    )
    _configure_connections(unbounded, psycopg.Connection, dict.fromkeys(connections.LIMITS, "0"))
    return unbounded


def _configure_connections(
    engine: Engine, connection_class: type[psycopg.Connection[Any]], limits: Mapping[str, str]
) -> None:
    """Open this engine's connections with `connection_class`, configure them, and replace dead ones."""

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, kwargs: Any) -> Any:
        connection = connection_class.connect(*args, **kwargs)
        try:
            connections.configure(connection, limits)
        except BaseException:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "checkin")
    def _record_idle(connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()
        if connection is not None and connection.autocommit:
            connection.autocommit = False  # a batch began its transaction by itself (batches.py)

    @event.listens_for(engine, "checkout")
    def _replace_dead(connection: Any, record: Any, _fairy: Any) -> None:
        idle_since = record.info.get("idle_since")  # None for a new connection
        if idle_since is not None and connections.is_dead(connection, idle_since):
            raise InvalidatePoolError  # the others are likely dead too: the pool opens new ones


def was_full() -> bool:
    """True if the server reported within the last `FULL_RETRY_SECONDS` that it has no space."""
    return time.monotonic() < _full_at + FULL_RETRY_SECONDS


def note_error(error: BaseException | None) -> bool:
    """Remember a full disk. Return True if the connection must be replaced: the server became read-only, as
    after a failover, and the pool must connect to the new primary.
    """
    global _full_at  # noqa: PLW0603  one fact for the whole process
    code = getattr(error, "sqlstate", None) or ""
    if code.startswith(FULL_STATES) and code != TOO_MANY_CONNECTIONS_STATE:
        _full_at = time.monotonic()
    return code == READ_ONLY_STATE


def wrapped(error: psycopg.Error, *, is_lost: bool) -> DBAPIError:
    """Return SQLAlchemy's error for one of the driver, without the statement and its values."""
    wrapper = DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost
    )
    assert isinstance(wrapper, DBAPIError), "every psycopg.Error has one"
    return wrapper


def _inspect_error(context: ExceptionContext) -> None:
    if note_error(context.original_exception):
        context.is_disconnect = True
