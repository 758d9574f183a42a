"""A connection to PostgreSQL with time limits and the settings we rely on, pinged after it was idle."""

import select
import time
from collections.abc import Generator, Mapping
from typing import Any

import psycopg
from psycopg import sql

# A statement or a lock wait longer than this is a fault: release the connection and fail.
STATEMENT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 3
CONNECT_TIMEOUT_SECONDS = 3
# The server enforces the limits above. A frozen server enforces none, so the client has its own.
RESPONSE_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_SECONDS + 2
# A process that froze inside a transaction must not keep its locks: the server ends the transaction.
IDLE_TRANSACTION_SECONDS = 30
# A firewall drops idle connections silently. So a connection that was idle for longer is pinged before use.
PING_AFTER_SECONDS = 5.0
PING_TIMEOUT_SECONDS = 2.0

MIN_POSTGRES_VERSION = 14  # the oldest version that PostgreSQL supported when this was written
LIMITS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_SECONDS}s",
    "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_SECONDS}s",
}
# A database or a role may have its own defaults (ALTER DATABASE … SET). These settings change what our SQL
# means or how results are formatted, so each connection sets them. `default_transaction_read_only` stays:
# hosting providers set it on purpose when a disk fills up, and the API answers 503 until they unset it.
SESSION_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
}
# An acknowledged commit must survive a crash. Values that also wait for replicas stay.
CONFIGURE = sql.SQL("""
    SELECT current_setting('session_replication_role'),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
               WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false), {}
""")


class UnsuitableDatabase(psycopg.OperationalError):
    """The database answers, but its configuration is not usable. The message says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection with a response timeout of its own, for a server that TCP believes to be alive."""

    response_timeout_seconds: float = RESPONSE_TIMEOUT_SECONDS

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + self.response_timeout_seconds
        return super().wait(_until(self, gen, deadline), *args, **kwargs)


def _until(connection: BoundedConnection, gen: Any, deadline: float) -> Generator[Any, Any, Any]:
    try:
        wait_for = next(gen)
        while True:
            ready = yield wait_for
            if not ready and time.monotonic() > deadline:
                gen.close()
                connection.close()
                raise psycopg.OperationalError("the database does not answer")
            wait_for = gen.send(ready)
    except StopIteration as end:
        return end.value


def configure(connection: psycopg.Connection[Any], limits: Mapping[str, str]) -> None:
    """Apply the settings that we rely on, in one round trip. Raises UnsuitableDatabase.

    With SET, not with `options` in the startup message: connection poolers refuse those.
    """
    version = connection.info.server_version // 10_000
    encoding = connection.info.parameter_status("server_encoding") or "unknown"
    if version < MIN_POSTGRES_VERSION:
        raise UnsuitableDatabase(f"PostgreSQL {version} is too old: use {MIN_POSTGRES_VERSION} or newer")
    if encoding != "UTF8":
        raise UnsuitableDatabase(f"the database's encoding is {encoding}: create it with ENCODING 'UTF8'")
    assignments = [
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in {**SESSION_SETTINGS, **limits}.items()
    ]
    connection.autocommit = True  # else a rollback would undo the settings
    role, *_ = connection.execute(CONFIGURE.format(sql.SQL(", ").join(assignments))).fetchone() or ("",)
    connection.autocommit = False
    if role != "origin":
        raise UnsuitableDatabase(
            f"session_replication_role is {role}, which disables the triggers that protect the money: "
            "run ALTER ROLE … RESET session_replication_role, and the same for the database"
        )


def is_dead(connection: Any, idle_since: float) -> bool:
    """True if a connection broke while it was idle. A connection that was in use recently is not pinged.

    If the server closed it (a restart, `idle_session_timeout`), there is input to read. If a firewall dropped
    it, nothing shows that, so a ping after `PING_AFTER_SECONDS` does.
    """
    if time.monotonic() - idle_since < PING_AFTER_SECONDS and not _has_input(connection):
        return False
    return not _answers_ping(connection)


def _has_input(connection: psycopg.Connection[Any]) -> bool:
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (psycopg.Error, OSError):
        return True  # closed on our side


def _answers_ping(connection: Any) -> bool:
    if connection.closed:
        return False
    connection.response_timeout_seconds = PING_TIMEOUT_SECONDS
    try:
        connection.autocommit = True
        connection.execute("SELECT 1")
        connection.autocommit = False
    except psycopg.Error:
        return False
    connection.response_timeout_seconds = RESPONSE_TIMEOUT_SECONDS
    return True
