"""A database that somebody else set up: what matters is pinned, or refused in words before a process starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from sandbox.services import Databases
from shared import db, operator_tokens, sealing, second_factor, spot_checks, starting
from shared.cli import main
from shared.errors import SettingsError, Unavailable
from shared.models import Operator
from tests.world import World

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
    """What ALTER DATABASE sets for each connection that comes from now on."""
    world.altered = True
    name = sql.Identifier(urlsplit(os.environ["DATABASE_URL"]).path[1:])
    with as_superuser() as connection:
        for setting, value in defaults.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(value)
                )
            )
    db.engine().dispose()


def look() -> list[str]:
    """What a process would say before it starts."""
    try:
        starting.look(at_database=True, needs_broker=True)
    except SettingsError as error:
        return error.faults
    return []


def test_a_database_with_other_defaults_pays_seals_and_proves_the_same(world: World) -> None:
    set_for_all(world, OTHER_DEFAULTS)
    assert look() == []
    world.credit()
    assert world.finish(world.request()) == "completed"
    world.simulator.scenario("fail.bank_account_closed", next=1)
    assert world.finish(world.request(upi_id="asha@ybl")) == "failed"
    sealing.seal()
    done = CliRunner().invoke(main, ["check"])
    assert done.exit_code == 0, done.output
    names = {**OTHER_DEFAULTS, "statement_timeout": "", "lock_timeout": ""}
    now = {name: world.sql(f"SHOW {name}")[0][0] for name in names}
    assert now == {
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


def test_triggers_that_do_not_run_are_refused(world: World) -> None:
    set_for_all(world, {"session_replication_role": "replica"})
    [told] = look()
    assert "session_replication_role is replica" in told
    with pytest.raises(Unavailable):
        world.credit()
    set_for_all(world, {"session_replication_role": "origin"})


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused_in_words(
    world: World, databases: Databases, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    made = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    with as_superuser() as connection:
        connection.execute(made.format(sql.Identifier(name), sql.Literal(encoding)))
    ours = os.environ["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", databases.url_of(name))
    world.forget_settings()
    migrated = CliRunner().invoke(main, ["migrate", "--wait", "60"])
    told = look()
    db.engine().dispose()
    databases.drop_database(name)
    monkeypatch.setenv("DATABASE_URL", ours)
    world.forget_settings()
    assert told == [f"DATABASE_URL: the database's encoding is {encoding}: make it with ENCODING 'UTF8'"]
    assert migrated.exit_code == 1 and f"the database's encoding is {encoding}" in migrated.output


def test_tables_that_are_not_found_are_told_with_the_search_path(world: World) -> None:
    set_for_all(world, {"search_path": "elsewhere"})
    [told] = look()
    assert "no tables of ours in elsewhere" in told and "payouts migrate" in told
    set_for_all(world, {"search_path": "public"})
    world.sql("UPDATE alembic_version SET version_num = '0001'")
    [told] = look()
    assert "the tables are those of 0001" in told


@pytest.fixture
def limited(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """We sign in as a role without any right on our tables; the address of the one that has them all."""
    name = sql.Identifier(ROLE)
    with as_superuser() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'limited'").format(name))
    world.altered = True
    ours = os.environ["DATABASE_URL"]
    parts = urlsplit(ours)
    where = f"{ROLE}:limited@{parts.hostname}:{parts.port}"
    db.engine().dispose()
    monkeypatch.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=where)))
    world.forget_settings()
    yield ours
    db.engine().dispose()
    monkeypatch.setenv("DATABASE_URL", ours)
    world.forget_settings()
    with as_superuser() as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_each_missing_right_is_named_and_those_are_enough(world: World, limited: str) -> None:
    told = look()
    assert f"DATABASE_URL: a right is missing: GRANT INSERT ON wallets TO {ROLE}" in told
    assert not any("GRANT UPDATE ON coin_transactions" in one or "DELETE ON wallets" in one for one in told)
    with pytest.raises(Unavailable):
        world.credit()
    grants = [one.partition("missing: ")[2] for one in told]
    with psycopg.connect(limited, autocommit=True) as connection:
        connection.execute("; ".join(grants))
    assert look() == []
    world.credit()
    assert world.finish(world.request()) == "completed"
    world.simulator.scenario("fail.bank_account_closed", next=1)
    assert world.finish(world.request(upi_id="asha@ybl")) == "failed"
    spot_checks.run()
    world.operators("asha")
    with db.transaction() as session:
        asha = session.get_one(Operator, "asha")
        operator_tokens.revoke(session, operator_tokens.issue(session, asha))
        second_factor.renew_codes(session, asha)
