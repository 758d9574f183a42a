"""A database with a foreign configuration: each connection sets what matters, or the start reports it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from cli import main
from sandbox.services import Databases
from shared.db import startup
from shared.db.engines import engine
from shared.db.transactions import transaction
from shared.errors import SettingsError, Unavailable
from shared.models import Operator
from shared.people import operator_tokens, second_factor
from shared.proof import sealing, spot_checks
from tests.support.world import World

OTHER_DEFAULTS = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "synchronous_commit": "off",
}
ROLE = "payouts_limited"


@contextmanager
def as_superuser() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection


def set_for_all(world: World, defaults: dict[str, str]) -> None:
    """Set a default for all new connections with ALTER DATABASE."""
    world.altered = True
    name = sql.Identifier(urlsplit(os.environ["DATABASE_URL"]).path[1:])
    with as_superuser() as connection:
        for setting, value in defaults.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(value)
                )
            )
    engine().dispose()


def start_faults() -> list[str]:
    """Return the faults that a process would report at start."""
    try:
        startup.check(needs_database=True, needs_redis=True)
    except SettingsError as error:
        return error.faults
    return []


def test_payouts_seals_and_checks_work_with_other_database_defaults(world: World) -> None:
    set_for_all(world, OTHER_DEFAULTS)
    assert start_faults() == []
    world.credit()
    assert world.finish(world.request()) == "completed"
    world.simulator.scenario("fail.bank_account_closed", next=1)
    assert world.finish(world.request(upi_id="asha@ybl")) == "failed"
    sealing.seal()
    done = CliRunner().invoke(main, ["check"])
    assert done.exit_code == 0, done.output
    names = {**OTHER_DEFAULTS, "statement_timeout": "", "lock_timeout": ""}
    current = {name: world.sql(f"SHOW {name}")[0][0] for name in names}
    assert current == {
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "bytea_output": "hex",
        "standard_conforming_strings": "on",
        "array_nulls": "on",
        "client_encoding": "UTF8",
        "default_transaction_isolation": "read committed",
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "synchronous_commit": "on",
    }


def test_a_database_with_disabled_triggers_is_refused(world: World) -> None:
    set_for_all(world, {"session_replication_role": "replica"})
    [faults] = start_faults()
    assert "session_replication_role is replica" in faults
    with pytest.raises(Unavailable):
        world.credit()
    set_for_all(world, {"session_replication_role": "origin"})


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused_with_a_plain_error(
    world: World, databases: Databases, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    create = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    with as_superuser() as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Literal(encoding)))
    original = os.environ["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", databases.database_url(name))
    world.forget_settings()
    migrated = CliRunner().invoke(main, ["migrate", "--wait", "60"])
    faults = start_faults()
    engine().dispose()
    databases.drop_database(name)
    monkeypatch.setenv("DATABASE_URL", original)
    world.forget_settings()
    assert faults == [f"DATABASE_URL: the database's encoding is {encoding}: create it with ENCODING 'UTF8'"]
    assert migrated.exit_code == 1 and f"the database's encoding is {encoding}" in migrated.output


def test_missing_tables_are_reported_with_the_search_path(world: World) -> None:
    set_for_all(world, {"search_path": "elsewhere"})
    [faults] = start_faults()
    assert "our tables do not exist in elsewhere" in faults and "payouts migrate" in faults
    set_for_all(world, {"search_path": "public"})
    world.sql("UPDATE alembic_version SET version_num = '0001'")
    [faults] = start_faults()
    assert "the tables have version 0001" in faults


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Connect as a role without privileges on our tables; yields the owner's address."""
    name = sql.Identifier(ROLE)
    with as_superuser() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'limited'").format(name))
    world.altered = True
    original = os.environ["DATABASE_URL"]
    parts = urlsplit(original)
    login = f"{ROLE}:limited@{parts.hostname}:{parts.port}"
    engine().dispose()
    monkeypatch.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=login)))
    world.forget_settings()
    yield original
    engine().dispose()
    monkeypatch.setenv("DATABASE_URL", original)
    world.forget_settings()
    with as_superuser() as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_each_missing_privilege_is_named_and_granting_them_is_enough(world: World, limited: str) -> None:
    faults = start_faults()
    assert f"DATABASE_URL: a privilege is missing: GRANT INSERT ON wallets TO {ROLE}" in faults
    assert not any(
        "GRANT UPDATE ON coin_transactions" in fault or "DELETE ON wallets" in fault for fault in faults
    )
    with pytest.raises(Unavailable):
        world.credit()
    grants = [fault.partition("missing: ")[2] for fault in faults]
    with psycopg.connect(limited, autocommit=True) as connection:
        connection.execute("; ".join(grants))
    assert start_faults() == []
    world.credit()
    assert world.finish(world.request()) == "completed"
    world.simulator.scenario("fail.bank_account_closed", next=1)
    assert world.finish(world.request(upi_id="asha@ybl")) == "failed"
    spot_checks.run()
    world.operators("asha")
    with transaction() as session:
        asha = session.get_one(Operator, "asha")
        operator_tokens.revoke(session, operator_tokens.issue(session, asha))
        second_factor.renew_recovery_codes(session, asha)
