"""Evidence: whatever people decided and whoever may act, a row that was changed past the rules is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from shared import (
    adjusting,
    app_keys,
    blocks,
    checks,
    db,
    evidence,
    operators,
    proposals,
    seal_checks,
    sealing,
    second_factor,
)
from shared.clock import INDIA
from shared.evidence import KEPT, NO_EVIDENCE, Kept
from shared.migrations import config, migrate
from shared.models import Base, Operator
from shared.notifications import endpoints
from shared.razorpayx.answers import Refused
from shared.roles import Role
from shared.settings import settings
from shared.withdrawals import record_answer
from tests.world import World

# Another value for a column of each type; the rules of a single row are away meanwhile.
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
    """Without the hashing of a password, which takes as long as all else here."""
    session.add(Operator(name="ravi", role=role, password_hash="$argon2id$of nobody", created_by="asha"))
    session.flush()


@pytest.fixture
def peopled(world: World) -> World:
    """One row, and the lawful changes of it, in each table that is evidence."""
    world.credit()
    world.operators("asha", "meera")
    adjusting.propose("user123", 10, reason="mended", actor="operator:asha")
    waits = adjusting.propose("user123", 10**9, reason="too much", actor="operator:asha")
    adjusting.reject(waits.id, actor="operator:asha")
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
    with db.transaction() as session:
        blocks.add(session, "thief@okaxis", reason="odd", actor="operator:asha")
        end = blocks.propose_unblock(session, "thief@okaxis", reason="seen", actor="operator:asha")
        blocks.approve(session, end.id, actor="operator:meera")
        add_ravi(session, Role.VIEWER)
        ravi = operators.locked(session, "ravi")
        offer = second_factor.offer(session, ravi)
        second_factor.enrol(session, ravi, pyotp.TOTP(offer.secret).now(), offer.mark)
        operators.disable(session, "ravi", actor="asha")
        key, _ = app_keys.create(session, app="quiz", scopes=["read"], actor="shell")
        app_keys.revoke(session, key.prefix, actor="shell")
        made, _ = endpoints.add(session, "https://app.example/hook", actor="shell")
        endpoints.remove(session, str(made.id), actor="shell")
    return world


def faults() -> list[str]:
    """What `payouts check` says of evidence."""
    return [
        name
        for finding in checks.run().findings
        if finding.check.truth == seal_checks.KEPT
        for name in finding.ids
    ]


@contextmanager
def past_the_rules() -> Iterator[Connection]:
    """A connection that no trigger and no rule of a row holds back. What it did is undone at the end."""
    with db.engine().connect() as connection, connection.begin() as transaction:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        yield connection
        transaction.rollback()


def without_rules_of_a_row(connection: Connection, table: str) -> None:
    rules = "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype IN ('c', 'u')"
    for name in connection.execute(text(rules), {"table": table}).scalars().all():
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))


def columns(world: World, table: str) -> dict[str, str]:
    rows = world.sql(
        "SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE table_name = :t",
        t=table,
    )
    return {row.name: row.type for row in rows}


def newest(kept: Kept) -> str:
    return f"(SELECT max({kept.key}::text) FROM {kept.table})"


def test_what_people_do_lawfully_is_no_fault(peopled: World) -> None:
    assert faults() == []
    versions = peopled.sql("SELECT of_table, count(*) AS n FROM evidence GROUP BY of_table")
    assert {row.of_table for row in versions} == {kept.table for kept in KEPT}
    assert all(row.n > 1 for row in versions)


def test_a_change_past_the_rules_is_named_with_table_key_and_column(peopled: World) -> None:
    for kept in KEPT:
        key = peopled.sql(f"SELECT {newest(kept)} AS key")[0].key
        for column, type_ in columns(peopled, kept.table).items():
            if column == kept.key:
                continue
            with past_the_rules() as connection:
                without_rules_of_a_row(connection, kept.table)
                changed = f"SET {column} = {OTHER[type_].format(column)} WHERE {kept.key}::text = '{key}'"
                connection.execute(text(f"UPDATE {kept.table} {changed}"))
                told = list(evidence.faults(connection))
            if column in kept.never:
                assert told == []
            else:
                [line] = told
                assert line.startswith(f"{kept.table} {key} (changed since version ")
                assert line.endswith(f": {column})")


def test_a_row_that_is_gone_or_new_past_the_rules_is_named(peopled: World) -> None:
    for kept in KEPT:
        key = peopled.sql(f"SELECT {newest(kept)} AS key")[0].key
        with past_the_rules() as connection:
            connection.execute(text(f"DELETE FROM {kept.table} WHERE {kept.key}::text = '{key}'"))
            [line] = evidence.faults(connection)
            assert line.startswith(f"{kept.table} {key} (gone since version ")
        with past_the_rules() as connection:
            of_it = f"of_table = '{kept.table}' AND of_key = '{key}'"
            connection.execute(text(f"DELETE FROM evidence WHERE {of_it}"))
            assert list(evidence.faults(connection)) == [f"{kept.table} {key} (made past the rules)"]


def test_a_change_is_not_forgotten_when_a_lawful_one_follows(peopled: World) -> None:
    """Who makes themselves an admin by hand, and then lets the panel write the row once more, is named still."""
    peopled.broken_on_purpose = True
    peopled.sql_without_rules("UPDATE operators SET role = 'admin' WHERE name = 'ravi'")
    with db.transaction() as session:
        operators.enable(session, "ravi")
    [line] = faults()
    assert line.startswith("operators ravi (changed before version ") and line.endswith(": role)")


def test_a_row_that_was_taken_out_and_made_anew_is_named(peopled: World) -> None:
    peopled.broken_on_purpose = True
    peopled.sql_without_rules("DELETE FROM operators WHERE name = 'ravi'")
    with db.transaction() as session:
        add_ravi(session, Role.ADMIN)
    [line] = faults()
    assert line.startswith("operators ravi (made anew as version ")


def test_a_version_that_was_changed_is_named_with_its_row(peopled: World) -> None:
    sealing.seal()
    peopled.broken_on_purpose = True
    peopled.sql_without_rules("UPDATE operators SET role = 'admin' WHERE name = 'ravi'")
    peopled.sql_without_rules(
        "UPDATE evidence SET was = jsonb_set(was, '{role}', '\"admin\"') WHERE of_key = 'ravi' AND was IS NOT NULL"
    )
    peopled.sql_without_rules(
        "UPDATE evidence SET content = jsonb_set(content, '{role}', '\"admin\"') WHERE of_key = 'ravi'"
    )
    assert faults() == [], "row and versions agree"
    [finding] = [one for one in checks.run().findings if one.check.truth == seal_checks.SAID]
    assert len(finding.ids) == 3 and all(
        "of operators ravi (changed since block" in name for name in finding.ids
    )


def test_versions_hold_no_secret(peopled: World) -> None:
    secrets = peopled.sql("SELECT password_hash, totp_secret FROM operators WHERE name = 'ravi'")[0]
    told = str(peopled.sql("SELECT was, content FROM evidence WHERE of_table = 'operators'"))
    assert secrets.password_hash not in told and secrets.totp_secret not in told


def test_a_session_with_other_habits_writes_the_same_versions(peopled: World) -> None:
    with db.engine().begin() as connection:
        connection.execute(text("SET LOCAL timezone = 'Asia/Kolkata'; SET LOCAL bytea_output = 'escape'"))
        connection.execute(text("UPDATE app_keys SET app = 'quiz2'"))
        connection.execute(text("UPDATE operators SET disabled_by = 'asha2' WHERE name = 'ravi'"))
    assert faults() == []


def test_a_change_that_is_taken_back_leaves_no_version(peopled: World) -> None:
    asked = "SELECT count(*) AS n FROM evidence"
    before = peopled.sql(asked)[0].n
    with db.engine().connect() as connection:
        connection.execute(text("UPDATE operators SET role = 'finance' WHERE name = 'ravi'"))
        connection.rollback()
    with db.transaction() as session:
        session.execute(text("UPDATE operators SET last_sign_in_at = now(), totp_step = totp_step + 1"))
        session.execute(text("UPDATE app_keys SET last_used_at = now()"))
    assert peopled.sql(asked)[0].n == before, "a sign-in or a use of a key is none either"


def test_a_version_is_never_changed(peopled: World) -> None:
    for statement in ("UPDATE evidence SET of_key = 'x'", "DELETE FROM evidence", "TRUNCATE evidence"):
        with pytest.raises(Exception, match="append-only"):
            peopled.sql(statement)


def test_columns_that_come_and_go_later_break_no_old_version(peopled: World) -> None:
    peopled.sql("ALTER TABLE operators ADD COLUMN colour text DEFAULT 'red'")
    peopled.sql("ALTER TABLE operators DROP COLUMN totp_secret CASCADE")
    assert faults() == []
    peopled.sql("UPDATE operators SET colour = 'blue' WHERE name = 'ravi'")
    assert faults() == []
    peopled.broken_on_purpose = True
    peopled.sql_without_rules("UPDATE operators SET colour = 'green' WHERE name = 'ravi'")
    [line] = faults()
    assert line.startswith("operators ravi ") and line.endswith(": colour)")


def test_what_stood_before_is_taken_in_and_is_no_fault(world: World) -> None:
    """An upgrade: rows of years, and a certificate over seals that knew nothing of them."""
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
    # The second is of 0024: it writes down who is an admin.
    assert line.startswith("operators asha (changed since version 2: password_hash")


def test_seals_of_the_release_before_stay_whole_and_certify_only_what_they_knew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC) - timedelta(days=9)
    world.credit()
    world.sql(
        "INSERT INTO audit_log (at, operator, address, action, outcome) VALUES (:at, 'asha', 'shell', 'x', 'done')",
        at=at,
    )
    with monkeypatch.context() as before:
        before.setattr(sealing, "SOURCES", sealing.BOOKS)
        before.setattr(sealing, "OTHERS", ())
        before.setattr(sealing, "BLOCK_VERSION", 1)
        assert sealing.seal() == 1
    world.sql_without_rules("UPDATE seal_blocks SET others_to = NULL")
    day_is_over = seal_checks._Closed(1, datetime.now(INDIA).timestamp(), frozenset({"journal", "events"}))
    assert sealing.seal() == 1
    with db.patient_engine().connect() as connection:
        assert list(seal_checks._chain(connection, [day_is_over])) == []
        knew_all = seal_checks._Closed(1, day_is_over.ends, frozenset({"audit"}))
        [fault] = seal_checks._chain(connection, [knew_all])
        assert fault.name == "audit_log 1 (written into a day that was closed)"
    assert checks.run().findings == []


# --- nothing is forgotten


def test_every_table_is_evidence_or_says_why_not() -> None:
    """A new table makes this fail: decide whether a change of it by hand must be named."""
    sealed = [source.table for source in sealing.SOURCES]
    places = [*sealed, *(kept.table for kept in KEPT), *NO_EVIDENCE]
    assert sorted(places) == sorted(Base.metadata.tables)


def test_the_trigger_of_each_table_keeps_what_the_check_compares(world: World) -> None:
    rows = world.sql(
        "SELECT tgrelid::regclass::text AS name, tgargs FROM pg_trigger WHERE tgname = 'version'"
    )
    triggers = {row.name: bytes(row.tgargs).decode().split("\0")[:3] for row in rows}
    assert triggers.keys() == {kept.table for kept in KEPT}, "and no table that a request writes has one"
    for kept in KEPT:
        lists = [f"{{{','.join(names)}}}" for names in (kept.never, kept.hashed)]
        assert triggers[kept.table] == [kept.key, *lists]
        assert {kept.key, *kept.never, *kept.hashed} <= columns(world, kept.table).keys()


# --- whom the money goes to


def test_a_payee_that_was_changed_past_the_rules_is_named(world: World) -> None:
    """All later payouts would go to another account, while every line of the books names the right payee."""
    world.paid()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE destinations SET fund_account_id = 'fa_thief'")
    [row] = world.sql("SELECT id FROM destinations")
    [line] = faults()
    assert line == f"destinations {row.id} (changed since version {_version(world)}: fund_account_id)"


def test_payees_of_before_are_taken_in_and_can_be_taken_back_out(world: World) -> None:
    """An upgrade, and a downgrade: the newest destination of each payee stays, and is paid."""
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
