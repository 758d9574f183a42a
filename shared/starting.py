"""What a process looks at before it starts: can PostgreSQL and Redis be used as they are set up?

What passes by itself is logged, and the process starts and waits for it. What lasts until somebody changes a
setting, a grant or the database is named, and the process ends.
"""

from pathlib import Path

import psycopg
import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import causes, sessions
from shared.errors import SettingsError
from shared.settings import places, settings

REDIS_SECONDS = 3
VERSIONS = Path(__file__).parent / "migrations" / "versions"
# What old rows are deleted from; no other table loses a row.
DELETED_FROM = (
    "counted_days", "day_totals", "deliveries", "emails", "idempotent_requests", "operator_recovery_codes",
    "operator_tokens", "spot_checks", "told_records",
)  # fmt: skip
TABLES = "SELECT to_regclass('withdrawals') IS NOT NULL AND to_regclass('alembic_version') IS NOT NULL"
VERSION = "SELECT max(version_num) FROM alembic_version"
# Ours are those of the owner of alembic_version, beside it. An append-only table is never updated.
MISSING = """
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


def look(*, at_database: bool, needs_broker: bool) -> None:
    """Look before a start, and log what is sent where others may read it. Raises SettingsError."""
    for sentence in places.in_the_open(settings()):
        log.warning("[START] not protected", what=sentence)
    faults = [*(_of_database() if at_database else []), *(_of_broker() if needs_broker else [])]
    if faults:
        raise SettingsError(faults)


def _of_database() -> list[str]:
    url = settings().database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(url, connect_timeout=sessions.CONNECT_SECONDS) as connection:
            sessions.settle(connection, sessions.LIMITS)
            return unusable(connection)
    except psycopg.Error as error:
        cause = causes.of(error)
        if cause and cause.lasts:
            return [f"DATABASE_URL: {cause.words}"]
        log.warning("[START] the database cannot be used yet", cause=causes.words_of(error))
        return []


def unusable(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """What has to be done before this code can work with the database; nothing when all is well."""
    if not _value(connection, TABLES):
        path = _value(connection, "SHOW search_path")
        return [
            f"DATABASE_URL: there are no tables of ours in {path}: run `payouts migrate`; where they are in"
            " another schema, set search_path and grant USAGE on it"
        ]
    if missing := connection.execute(MISSING, [list(DELETED_FROM)]).fetchall():
        user, kinds = _value(connection, "SELECT quote_ident(current_user)"), {"USAGE": "SEQUENCE "}
        return [
            f"DATABASE_URL: a right is missing: GRANT {right} ON {kinds.get(str(right), '')}{name} TO {user}"
            for right, name in missing
        ]
    there, ours = str(_value(connection, VERSION)), _newest()
    if there < ours:
        return [f"DATABASE_URL: the tables are those of {there}, we need {ours}: run `payouts migrate`"]
    return []


def _value(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _newest() -> str:
    return max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def _of_broker() -> list[str]:
    place = places.Redis.at(settings().redis_url.get_secret_value())
    try:
        with redis.Redis.from_url(
            place.url, socket_timeout=REDIS_SECONDS, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.ping()
    except redis.RedisError as error:
        cause = causes.of(error)
        if cause and cause.lasts:
            return [f"REDIS_URL: {cause.words}"]
        log.warning("[START] Redis cannot be used yet", cause=causes.words_of(error))
    return []
