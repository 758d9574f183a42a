"""Evidence: `payouts check` reports each row about decisions, access or payees that was changed outside the
rules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from shared import proposals
from shared.access import app_keys
from shared.clock import INDIA
from shared.coins import adjustments
from shared.db.engines import engine, unbounded_engine
from shared.db.transactions import transaction
from shared.migrations import config, migrate
from shared.models import Base, Operator
from shared.notifications.webhooks import endpoints
from shared.people import operators, second_factor
from shared.proof import checks, evidence, seal_checks, sealing
from shared.proof.evidence import NOT_EVIDENCE, VERSIONED_TABLES, VersionedTable
from shared.providers.answers import Refused
from shared.roles import Role
from shared.settings import settings
from shared.withdrawals import blocks
from tests.support.steps import record_answer
from tests.support.world import World

# A different value for a column of each type. Row constraints are dropped while it is set.
OTHER = {
    "text": "'other'",
    "bigint": "{} + 1",
    "boolean": "NOT {}",
    "uuid": "gen_random_uuid()",
    "bytea": "'\\x00'",
    "timestamp with time zone": "coalesce({}, now()) + interval '1 microsecond'",
    "ARRAY": "ARRAY['credit']",
    "date": "'2026-01-01'",
    "jsonb": """'{{"other": 1}}'""",
}


def add_ravi(session: Session, role: Role) -> None:
    """Add an operator without hashing a password, which would take as long as everything else here."""
    session.add(Operator(name="ravi", role=role, password_hash="$argon2id$of nobody", created_by="asha"))
    session.flush()


@pytest.fixture
def evidence_world(world: World) -> World:
    """One row with recorded changes in each versioned table."""
    world.credit()
    world.operators("asha", "meera")
    adjustments.propose("user123", 10, reason="mended", actor="operator:asha")
    proposal = adjustments.propose("user123", 10**9, reason="too much", actor="operator:asha")
    adjustments.reject(proposal.id, actor="operator:asha")
    record_answer(world.first_send(), Refused("fund_account_invalid", "no", 400))
    withdrawal_id = world.request()
    world.sql(
        "INSERT INTO resolutions (id, withdrawal_id, decision, evidence, fingerprint, proposed_by)"
        " VALUES (gen_random_uuid(), :id, 'refund', 'seen', 'x', 'operator:asha')",
        id=withdrawal_id,
    )
    world.sql("UPDATE resolutions SET outcome = 'rejected', decided_by = 'operator:ravi', decided_at = now()")
    proposals.propose(
        proposals.KINDS["key_create"], "quiz", {"scopes": ["read"]}, reason="x", actor="operator:asha"
    )
    with transaction() as session:
        blocks.add(session, "thief@okaxis", reason="odd", actor="operator:asha")
        end = blocks.propose_unblock(session, "thief@okaxis", reason="seen", actor="operator:asha")
        blocks.approve(session, end.id, actor="operator:meera")
        add_ravi(session, Role.VIEWER)
        ravi = operators.lock(session, "ravi")
        offer = second_factor.offer(session, ravi)
        second_factor.enrol(session, ravi, pyotp.TOTP(offer.secret).now(), offer.mark)
        operators.disable(session, "ravi", actor="asha")
        key, _ = app_keys.create(session, app="quiz", scopes=["read"], actor="shell")
        app_keys.revoke(session, key.prefix, actor="shell")
        endpoint, _ = endpoints.add(session, "https://app.example/hook", actor="shell")
        endpoints.remove(session, str(endpoint.id), actor="shell")
    return world


def faults() -> list[str]:
    """The evidence faults that `payouts check` reports."""
    return [
        message
        for finding in checks.run().findings
        if finding.check.invariant == seal_checks.EVIDENCE_UNCHANGED
        for message in finding.ids
    ]


@contextmanager
def without_triggers() -> Iterator[Connection]:
    """A connection without triggers, which rolls back at the end."""
    with engine().connect() as connection, connection.begin() as outer:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield connection
        outer.rollback()


def drop_row_constraints(connection: Connection, table: str) -> None:
    rules = "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype IN ('c', 'u')"
    for name in connection.execute(text(rules), {"table": table}).scalars().all():
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))


def columns(world: World, table: str) -> dict[str, str]:
    rows = world.sql(
        "SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE table_name = :t",
        t=table,
    )
    return {row.name: row.type for row in rows}


def newest_key(versioned: VersionedTable) -> str:
    return f"(SELECT max({versioned.key}::text) FROM {versioned.table})"


def test_normal_operations_cause_no_fault(evidence_world: World) -> None:
    assert faults() == []
    versions = evidence_world.sql("SELECT of_table, count(*) AS n FROM evidence GROUP BY of_table")
    assert {row.of_table for row in versions} == {versioned.table for versioned in VERSIONED_TABLES}
    assert all(row.n > 1 for row in versions)


def test_an_unrecorded_change_is_reported_with_table_key_and_column(evidence_world: World) -> None:
    for versioned in VERSIONED_TABLES:
        key = evidence_world.sql(f"SELECT {newest_key(versioned)} AS key")[0].key
        for column, type_ in columns(evidence_world, versioned.table).items():
            if column == versioned.key:
                continue
            with without_triggers() as connection:
                drop_row_constraints(connection, versioned.table)
                changed = (
                    f"SET {column} = {OTHER[type_].format(column)} WHERE {versioned.key}::text = '{key}'"
                )
                connection.execute(text(f"UPDATE {versioned.table} {changed}"))
                messages = list(evidence.faults(connection))
            if column in versioned.excluded:
                assert messages == []
            else:
                [line] = messages
                assert line.startswith(f"{versioned.table} {key} (changed since version ")
                assert line.endswith(f": {column})")


def test_an_unrecorded_deletion_or_insertion_is_reported(evidence_world: World) -> None:
    for versioned in VERSIONED_TABLES:
        key = evidence_world.sql(f"SELECT {newest_key(versioned)} AS key")[0].key
        with without_triggers() as connection:
            connection.execute(text(f"DELETE FROM {versioned.table} WHERE {versioned.key}::text = '{key}'"))
            [line] = evidence.faults(connection)
            assert line.startswith(f"{versioned.table} {key} (deleted since version ")
        with without_triggers() as connection:
            condition = f"of_table = '{versioned.table}' AND of_key = '{key}'"
            connection.execute(text(f"DELETE FROM evidence WHERE {condition}"))
            assert list(evidence.faults(connection)) == [
                f"{versioned.table} {key} (created without a version)"
            ]


def test_a_recorded_change_does_not_hide_an_unrecorded_one(evidence_world: World) -> None:
    """A role raised by hand is still reported after the panel changes the row again."""
    evidence_world.broken_on_purpose = True
    evidence_world.sql_without_rules("UPDATE operators SET role = 'admin' WHERE name = 'ravi'")
    with transaction() as session:
        operators.enable(session, "ravi")
    [line] = faults()
    assert line.startswith("operators ravi (changed before version ") and line.endswith(": role)")


def test_a_row_deleted_and_inserted_again_is_reported(evidence_world: World) -> None:
    evidence_world.broken_on_purpose = True
    evidence_world.sql_without_rules("DELETE FROM operators WHERE name = 'ravi'")
    with transaction() as session:
        add_ravi(session, Role.ADMIN)
    [line] = faults()
    assert line.startswith("operators ravi (deleted and recreated as version ")


def test_a_changed_version_is_reported_with_its_row(evidence_world: World) -> None:
    sealing.seal()
    evidence_world.broken_on_purpose = True
    evidence_world.sql_without_rules("UPDATE operators SET role = 'admin' WHERE name = 'ravi'")
    evidence_world.sql_without_rules(
        "UPDATE evidence SET was = jsonb_set(was, '{role}', '\"admin\"') WHERE of_key = 'ravi' AND was IS NOT NULL"
    )
    evidence_world.sql_without_rules(
        "UPDATE evidence SET content = jsonb_set(content, '{role}', '\"admin\"') WHERE of_key = 'ravi'"
    )
    assert faults() == [], "row and versions agree"
    [finding] = [
        finding for finding in checks.run().findings if finding.check.invariant == seal_checks.ROWS_UNCHANGED
    ]
    assert len(finding.ids) == 3 and all(
        "of operators ravi (changed since block" in message for message in finding.ids
    )


def test_versions_contain_no_secret(evidence_world: World) -> None:
    secrets = evidence_world.sql("SELECT password_hash, totp_secret FROM operators WHERE name = 'ravi'")[0]
    versions = str(evidence_world.sql("SELECT was, content FROM evidence WHERE of_table = 'operators'"))
    assert secrets.password_hash not in versions and secrets.totp_secret not in versions


def test_session_settings_do_not_change_the_versions(evidence_world: World) -> None:
    with engine().begin() as connection:
        connection.execute(text("SET LOCAL timezone = 'Asia/Kolkata'; SET LOCAL bytea_output = 'escape'"))
        connection.execute(text("UPDATE app_keys SET app = 'quiz2'"))
        connection.execute(text("UPDATE operators SET disabled_by = 'asha2' WHERE name = 'ravi'"))
    assert faults() == []


def test_a_rolled_back_change_leaves_no_version(evidence_world: World) -> None:
    count = "SELECT count(*) AS n FROM evidence"
    before = evidence_world.sql(count)[0].n
    with engine().connect() as connection:
        connection.execute(text("UPDATE operators SET role = 'finance' WHERE name = 'ravi'"))
        connection.rollback()
    with transaction() as session:
        session.execute(text("UPDATE operators SET last_sign_in_at = now(), totp_step = totp_step + 1"))
        session.execute(text("UPDATE app_keys SET last_used_at = now()"))
    assert evidence_world.sql(count)[0].n == before, "neither a sign-in nor a use of a key creates a version"


def test_a_version_is_never_changed(evidence_world: World) -> None:
    for statement in ("UPDATE evidence SET of_key = 'x'", "DELETE FROM evidence", "TRUNCATE evidence"):
        with pytest.raises(Exception, match="append-only"):
            evidence_world.sql(statement)


def test_later_column_changes_break_no_old_version(evidence_world: World) -> None:
    evidence_world.sql("ALTER TABLE operators ADD COLUMN colour text DEFAULT 'red'")
    evidence_world.sql("ALTER TABLE operators DROP COLUMN totp_secret CASCADE")
    assert faults() == []
    evidence_world.sql("UPDATE operators SET colour = 'blue' WHERE name = 'ravi'")
    assert faults() == []
    evidence_world.broken_on_purpose = True
    evidence_world.sql_without_rules("UPDATE operators SET colour = 'green' WHERE name = 'ravi'")
    [line] = faults()
    assert line.startswith("operators ravi ") and line.endswith(": colour)")


def test_existing_rows_are_adopted_without_faults(world: World) -> None:
    """An upgrade: rows from before evidence existed, and a certificate over seals that do not cover them."""
    world.credit()
    url = settings().database_url.get_secret_value()
    command.downgrade(config(url), "0020")
    world.sql(
        "INSERT INTO operators (name, role, password_hash, created_by) VALUES ('asha', 'admin', 'x', 'shell')"
    )
    world.sql(
        "INSERT INTO audit_log (at, operator, address, action, outcome)"
        " VALUES (now() - interval '9 days', 'asha', 'shell', 'export', 'done')"
    )
    migrate(url)
    world.altered = True
    assert checks.run().findings == []
    sealing.seal()
    assert checks.run().findings == []
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE operators SET password_hash = 'y'")
    [line] = faults()
    # Version 2 comes from migration 0024, which records the operator's role.
    assert line.startswith("operators asha (changed since version 2: password_hash")


def test_seals_of_the_previous_release_stay_valid_and_certify_only_their_tables(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC) - timedelta(days=9)
    world.credit()
    world.sql(
        "INSERT INTO audit_log (at, operator, address, action, outcome) VALUES (:at, 'asha', 'shell', 'x', 'done')",
        at=at,
    )
    with monkeypatch.context() as before:
        before.setattr(sealing, "SOURCES", sealing.LEDGER_SOURCES)
        before.setattr(sealing, "OTHER_SOURCES", ())
        before.setattr(sealing, "BLOCK_VERSION", 1)
        assert sealing.seal() == 1
    world.sql_without_rules("UPDATE seal_blocks SET others_to = NULL")
    certified_day = seal_checks._CertifiedDay(
        1, datetime.now(INDIA).timestamp(), frozenset({"journal", "events"})
    )
    assert sealing.seal() == 1
    with unbounded_engine().connect() as connection:
        assert list(seal_checks._check_chain(connection, [certified_day])) == []
        audit_certified = seal_checks._CertifiedDay(1, certified_day.ends_at, frozenset({"audit"}))
        [fault] = seal_checks._check_chain(connection, [audit_certified])
        assert fault.message == "audit_log 1 (added to a day that was already certified)"
    assert checks.run().findings == []


# --- completeness


def test_every_table_is_versioned_or_excluded_with_a_reason() -> None:
    """A new table makes this fail: decide whether a change made by hand must be reported."""
    sealed = [source.table for source in sealing.SOURCES]
    places = [*sealed, *(versioned.table for versioned in VERSIONED_TABLES), *NOT_EVIDENCE]
    assert sorted(places) == sorted(Base.metadata.tables)


def test_each_trigger_stores_the_columns_that_the_check_compares(world: World) -> None:
    rows = world.sql(
        "SELECT tgrelid::regclass::text AS name, tgargs FROM pg_trigger WHERE tgname = 'version'"
    )
    triggers = {row.name: bytes(row.tgargs).decode().split("\0")[:3] for row in rows}
    assert triggers.keys() == {versioned.table for versioned in VERSIONED_TABLES}, (
        "and no table that a request writes has one"
    )
    for versioned in VERSIONED_TABLES:
        lists = [f"{{{','.join(names)}}}" for names in (versioned.excluded, versioned.hashed)]
        assert triggers[versioned.table] == [versioned.key, *lists]
        assert {versioned.key, *versioned.excluded, *versioned.hashed} <= columns(
            world, versioned.table
        ).keys()


# --- payees


def test_an_unrecorded_change_of_a_payee_is_reported(world: World) -> None:
    """All later payouts would go to another account, while every journal entry names the right payee."""
    world.paid()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE destinations SET fund_account_id = 'fa_thief'")
    [row] = world.sql("SELECT id FROM destinations")
    [line] = faults()
    assert line == f"destinations {row.id} (changed since version {_version(world)}: fund_account_id)"


def test_existing_payees_are_adopted_and_the_migration_can_be_reverted(world: World) -> None:
    """An upgrade and a downgrade: the newest destination of each payee stays and is paid."""
    record_answer_of_an_unknown_account(world)
    world.paid()
    url = settings().database_url.get_secret_value()
    world.altered = True
    command.downgrade(config(url), "0025")
    [before] = world.sql("SELECT * FROM destinations")
    world.sql_without_rules("DELETE FROM evidence WHERE of_table = 'destinations'")
    migrate(url)
    [after] = world.sql("SELECT * FROM destinations")
    assert (after.fund_account_id, after.ended_at) == (before.fund_account_id, None)
    assert faults() == []
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE destinations SET contact_id = 'cont_thief'")
    [line] = faults()
    assert line.endswith(": contact_id)")


def record_answer_of_an_unknown_account(world: World) -> None:
    world.credit()
    record_answer(world.first_send(), Refused("fund_account_invalid", "no", 400))


def _version(world: World) -> int:
    return world.sql("SELECT max(id) AS id FROM evidence WHERE of_table = 'destinations'")[0].id
