"""Checks before a process starts: are PostgreSQL and Redis configured correctly?

A temporary problem is logged; the process starts and waits for it to end. A problem that lasts until an
operator changes a setting, a grant or the database is reported, and the process exits.
"""

from pathlib import Path

import psycopg
import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.db import causes, connections
from shared.errors import SettingsError
from shared.settings import addresses, settings

REDIS_TIMEOUT_SECONDS = 3
VERSIONS = Path(__file__).parents[1] / "migrations" / "versions"
# The tables from which old rows are deleted. No other table ever loses a row.
TABLES_WITH_DELETES = (
    "counted_days",
    "day_totals",
    "deliveries",
    "emails",
    "idempotent_requests",
    "operator_recovery_codes",
    "operator_tokens",
    "spot_checks",
    "told_records",
    "webhook_events",
)
TABLES_EXIST = "SELECT to_regclass('withdrawals') IS NOT NULL AND to_regclass('alembic_version') IS NOT NULL"
VERSION = "SELECT max(version_num) FROM alembic_version"
# Our tables have the schema and the owner of alembic_version. An append-only table is never updated.
MISSING_RIGHTS = """
    WITH ours AS (
        SELECT c.oid, c.relname, c.relkind, c.oid = a.oid AS is_version, EXISTS (
            SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'append_only') AS is_append_only
        FROM pg_class c JOIN pg_class a ON a.oid = to_regclass('alembic_version')
        WHERE c.relnamespace = a.relnamespace AND c.relowner = a.relowner
    )
    SELECT name, relname FROM ours, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS name
    WHERE CASE WHEN relkind IN ('r', 'p') THEN NOT has_table_privilege(oid, name) END
      AND (name = 'SELECT' OR NOT is_version)
      AND (name IN ('SELECT', 'INSERT') OR (name = 'UPDATE' AND NOT is_append_only)
           OR (name = 'DELETE' AND relname = ANY(%s)))
    UNION ALL
    SELECT 'USAGE', relname FROM ours
    WHERE CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') END
      AND EXISTS (SELECT FROM pg_depend d WHERE d.objid = ours.oid AND d.deptype = 'a')
    ORDER BY 2, 1
"""

log = structlog.get_logger()


def check(*, needs_database: bool, needs_redis: bool) -> None:
    """Check PostgreSQL and Redis, and log connections that are not encrypted. Raises SettingsError."""
    for warning in addresses.unencrypted_connections(settings()):
        log.warning("[START] connection not encrypted", what=warning)
    faults = [*(_database_faults() if needs_database else []), *(_redis_faults() if needs_redis else [])]
    if faults:
        raise SettingsError(faults)


def _database_faults() -> list[str]:
    url = settings().database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(url, connect_timeout=connections.CONNECT_TIMEOUT_SECONDS) as connection:
            connections.configure(connection, connections.LIMITS)
            return schema_faults(connection)
    except psycopg.Error as error:
        cause = causes.cause_of(error)
        if cause and cause.is_lasting:
            return [f"DATABASE_URL: {cause.message}"]
        log.warning("[START] the database cannot be used yet", cause=causes.message_of(error))
        return []


def schema_faults(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Return what must be done before this code can use the database's tables; empty if nothing."""
    if not _value(connection, TABLES_EXIST):
        path = _value(connection, "SHOW search_path")
        return [
            f"DATABASE_URL: our tables do not exist in {path}: run `payouts migrate`. If they are in another"
            " schema, set search_path and grant USAGE on it"
        ]
    if missing := connection.execute(MISSING_RIGHTS, [list(TABLES_WITH_DELETES)]).fetchall():
        user = _value(connection, "SELECT quote_ident(current_user)")
        object_kinds = {"USAGE": "SEQUENCE "}
        return [
            "DATABASE_URL: a privilege is missing: "
            f"GRANT {privilege} ON {object_kinds.get(str(privilege), '')}{name} TO {user}"
            for privilege, name in missing
        ]
    current = str(_value(connection, VERSION))
    required = _newest_migration()
    if current < required:
        return [f"DATABASE_URL: the tables have version {current}, we need {required}: run `payouts migrate`"]
    return []


def _value(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _newest_migration() -> str:
    return max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def _redis_faults() -> list[str]:
    address = addresses.RedisAddress.parse(settings().redis_url.get_secret_value())
    try:
        with redis.Redis.from_url(
            address.url, socket_timeout=REDIS_TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.ping()
    except redis.RedisError as error:
        cause = causes.cause_of(error)
        if cause and cause.is_lasting:
            return [f"REDIS_URL: {cause.message}"]
        log.warning("[START] Redis cannot be used yet", cause=causes.message_of(error))
    return []
