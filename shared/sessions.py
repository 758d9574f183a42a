"""One connection to PostgreSQL: bounded in time, set to what we rely on, and tried after it was idle."""

import select
import time
from collections.abc import Generator, Mapping
from typing import Any

import psycopg
from psycopg import sql

# A statement or a lock wait longer than this is a fault: give the connection back and say so.
STATEMENT_SECONDS, LOCK_SECONDS, CONNECT_SECONDS = 10, 3, 3
# The server keeps the limits above; a server that is frozen keeps none, so the client has its own.
ANSWER_SECONDS = STATEMENT_SECONDS + 2
# A process that froze inside a transaction must not keep its locks: the database ends it.
IDLE_SECONDS = 30
# A firewall forgets an idle connection without a word. So one that was idle for longer is tried before it is
# used, and has so long to answer.
TRY_AFTER_SECONDS, TRY_SECONDS = 5.0, 2.0

OLDEST_SERVER = 14  # the oldest that PostgreSQL's own people still mended when this was written
LIMITS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
}
# A database or a role may have defaults of its own (ALTER DATABASE … SET). These change what our SQL means or
# how its answers are written, so each connection sets them. `default_transaction_read_only` stays as it is:
# hosts set it when a disk fills up, and they mean it. We answer 503 as long as it lasts.
PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
}
# A commit that was acknowledged must survive a crash. Where replicas are waited for, they still are.
SETTLE = sql.SQL("""
    SELECT current_setting('session_replication_role'),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
               WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false), {}
""")


class Unfit(psycopg.OperationalError):
    """The database answers, and cannot be used as it is set up. The message says what to change."""

    def __init__(self, said: str) -> None:
        super().__init__(said)


class Bounded(psycopg.Connection[Any]):
    """A connection that waits for an answer only so long, even when TCP has nothing to say."""

    answer_seconds: float = ANSWER_SECONDS

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        deadline = time.monotonic() + self.answer_seconds
        return super().wait(_until(self, gen, deadline), *arguments, **named)


def _until(connection: Bounded, gen: Any, deadline: float) -> Generator[Any, Any, Any]:
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


def settle(connection: psycopg.Connection[Any], limits: Mapping[str, str]) -> None:
    """Set what we rely on, in one round trip. Raises Unfit.

    By SET and not by `options` in the first message: a pooler between us and the server refuses those.
    """
    told = connection.info.parameter_status
    version, encoding = connection.info.server_version // 10_000, told("server_encoding") or "unknown"
    if version < OLDEST_SERVER:
        raise Unfit(f"PostgreSQL {version} is too old: use {OLDEST_SERVER} or newer")
    if encoding != "UTF8":
        raise Unfit(f"the database's encoding is {encoding}: make it with ENCODING 'UTF8'")
    each = [
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in {**PINNED, **limits}.items()
    ]
    connection.autocommit = True  # else a rollback would take it all back
    role, *_ = connection.execute(SETTLE.format(sql.SQL(", ").join(each))).fetchone() or ("",)
    connection.autocommit = False
    if role != "origin":
        raise Unfit(
            f"session_replication_role is {role}, so the rules that protect the money do not run: "
            "ALTER ROLE … RESET session_replication_role, and the same for the database"
        )


def is_gone(connection: Any, idle_since: float) -> bool:
    """Whether a connection went away while nobody used it. Of a busy one nothing is asked: nothing is sent.

    When the server has ended it (a restart, `idle_session_timeout`) there is something to read. When a
    firewall has dropped it nothing tells, so time does.
    """
    if time.monotonic() - idle_since < TRY_AFTER_SECONDS and not _has_news(connection):
        return False
    return not _answers(connection)


def _has_news(connection: psycopg.Connection[Any]) -> bool:
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except (psycopg.Error, OSError):
        return True  # closed on our side


def _answers(connection: Any) -> bool:
    if connection.closed:
        return False
    connection.answer_seconds = TRY_SECONDS
    try:
        connection.autocommit = True
        connection.execute("SELECT 1")
        connection.autocommit = False
    except psycopg.Error:
        return False
    connection.answer_seconds = ANSWER_SECONDS
    return True
