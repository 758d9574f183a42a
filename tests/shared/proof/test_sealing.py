"""`payouts check` reports every change to the journal, the events, the evidence and their seals."""

import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from cli import main
from shared import withdrawals
from shared.db.engines import engine
from shared.proof import proofs, seal_checks, sealing
from tests.support.world import World

TABLES = {source.name: source.table for source in sealing.SOURCES}
# For each hashed column, a different value and the kind of row that may hold it.
OTHER = {
    ("journal", "id"): ("DEFAULT", "credit"),
    ("journal", "user_id"): ("'someone else'", "credit"),
    ("journal", "kind"): ("'adjustment'", "credit"),
    ("journal", "coins"): ("coins + 1", "credit"),
    ("journal", "balance_after"): ("balance_after + 1", "refund"),
    ("journal", "withdrawal_id"): ("gen_random_uuid()", "withdrawal"),
    ("journal", "reference"): ("'another'", "credit"),
    ("journal", "reason"): ("'because'", "withdrawal"),
    ("journal", "actor"): ("'nobody'", "refund"),
    ("journal", "created_at"): ("created_at + interval '1 microsecond'", "withdrawal"),
    ("events", "id"): ("DEFAULT", "pending"),
    ("events", "withdrawal_id"): ("gen_random_uuid()", "cancelled"),
    ("events", "from_status"): ("'pending'", "pending"),
    ("events", "to_status"): ("'failed'", "cancelled"),
    ("events", "actor"): ("'nobody'", "pending"),
    ("events", "reason"): ("reason || ' '", "cancelled"),
    ("events", "data"): ("""'{"coins": 1.0}'""", "pending"),
    ("events", "created_at"): ("'infinity'", "cancelled"),
    ("audit", "id"): ("DEFAULT", "export"),
    ("audit", "at"): ("at - interval '1 second'", "export"),
    ("audit", "operator"): ("'ravi'", "export"),
    ("audit", "address"): ("'shell'", "export"),
    ("audit", "action"): ("'sign_in'", "export"),
    ("audit", "outcome"): ("'refused'", "export"),
    ("audit", "subject"): ("NULL", "export"),
    ("audit", "reason"): ("'another'", "export"),
    ("audit", "data"): ("""'{"rows": 1}'""", "export"),
    ("audit", "origin"): ("'api'", "export"),
    ("reviews", "id"): ("DEFAULT", "rejected"),
    ("reviews", "withdrawal_id"): ("gen_random_uuid()", "rejected"),
    ("reviews", "why"): ("'every'", "rejected"),
    ("reviews", "facts"): ("'others'", "rejected"),
    ("reviews", "coins_amount"): ("1", "rejected"),
    ("reviews", "upi_id"): ("'thief@okaxis'", "rejected"),
    ("reviews", "requested_by"): ("'app:other'", "rejected"),
    ("reviews", "outcome"): ("'approved'", "rejected"),
    ("reviews", "reason"): ("'another'", "rejected"),
    ("reviews", "decided_by"): ("'operator:ravi'", "rejected"),
    ("reviews", "decided_at"): ("decided_at - interval '1 second'", "rejected"),
    ("evidence", "id"): ("DEFAULT", "blocks"),
    ("evidence", "of_table"): ("'operators'", "blocks"),
    ("evidence", "of_key"): ("'99'", "blocks"),
    ("evidence", "was"): ("'{}'", "blocks"),
    ("evidence", "content"): ("'{}'", "blocks"),
    ("evidence", "at"): ("at - interval '1 second'", "blocks"),
}
# The column that selects a row of each source above.
KIND = {
    "journal": "kind",
    "events": "to_status",
    "audit": "action",
    "reviews": "outcome",
    "evidence": "of_table",
}


EVIDENCE = (
    "INSERT INTO audit_log (operator, address, action, outcome, subject, reason, data)"
    " VALUES ('asha', '127.0.0.1', 'export', 'done', 'users', 'asked', '{\"rows\": 9}')",
    "INSERT INTO reviews (withdrawal_id, why, facts, coins_amount, upi_id, requested_by, outcome, reason, decided_by)"
    " SELECT id, 'amount', 'x', coins_amount, upi_id, 'app:test', 'rejected', 'seen', 'operator:asha' FROM withdrawals",
    "INSERT INTO blocks (kind, subject, reason, added_by) VALUES ('upi_id', '@okaxis', 'odd', 'operator:asha')",
)


@pytest.fixture
def withdrawal_id(world: World) -> UUID:
    """A cancelled withdrawal: three journal entries and two events, sealed with an audit line, a review and a
    block on a payee; then a second seal block.
    """
    world.credit()
    withdrawal_id = cancelled(world)
    for statement in EVIDENCE:
        world.sql(statement)
    assert sealing.seal() == 8
    world.credit("user456", reference="later")
    assert sealing.seal() == 1
    return withdrawal_id


def cancelled(world: World, user_id: str = "user123") -> UUID:
    withdrawal_id = world.request(user_id)
    withdrawals.cancel(withdrawal_id, reason="changed my mind", actor="app:test")
    return withdrawal_id


def plant(world: World, *statements: str) -> None:
    world.broken_on_purpose = True
    for statement in statements:
        world.sql_without_rules(statement)


def reported_faults() -> list[str]:
    """The lines of `payouts check` about broken seals. With any, the exit code must be 1."""
    result = CliRunner().invoke(main, ["check", "--ids", "100"])
    assert result.exit_code in (0, 1), result.exception
    starts = tuple(f"{invariant}: violated by " for invariant in seal_checks.INVARIANTS)
    lines = [line for line in result.output.splitlines() if line.startswith(starts)]
    assert not lines or result.exit_code == 1
    return lines


# --- rows


@pytest.mark.parametrize(("source", "column"), OTHER)
def test_a_changed_column_is_reported(world: World, withdrawal_id: UUID, source: str, column: str) -> None:
    value, kind = OTHER[source, column]
    table = TABLES[source]
    is_of = " of blocks 1" if source == "evidence" else ""
    row = world.sql(f"SELECT * FROM {table} WHERE {KIND[source]} = '{kind}' ORDER BY id LIMIT 1")[0]
    plant(world, f"UPDATE {table} SET {column} = {value} WHERE id = {row.id}")
    if withdrawal := getattr(row, "withdrawal_id", None):
        is_of = f" of withdrawal {withdrawal}"
    why = "deleted" if column == "id" else "changed"
    [line] = [line for line in reported_faults() if line.startswith(seal_checks.ROWS_UNCHANGED)]
    where = "" if source == "evidence" and column in ("id", "of_table", "of_key") else is_of
    assert f": violated by {table} {row.id}{where}" in line and line.endswith(
        f" ({why} since block 1 sealed it)"
    )


def test_every_hashed_column_is_tested() -> None:
    assert set(OTHER) == {
        (source, column) for source, columns in proofs.COLUMNS.items() for column in columns
    }


@pytest.mark.parametrize("table", TABLES.values())
def test_every_column_is_hashed(world: World, table: str) -> None:
    """A new column makes this fail: hash it with a new version, or state here why it need not be hashed."""
    columns = world.sql(
        f"SELECT column_name AS name FROM information_schema.columns WHERE table_name = '{table}'"
        " AND is_generated = 'NEVER' ORDER BY ordinal_position"
    )
    source = next(source for source, name in TABLES.items() if name == table)
    assert [column.name for column in columns] == list(proofs.COLUMNS[source])


def test_a_changed_row_is_reported(world: World, withdrawal_id: UUID) -> None:
    for table in (source.table for source in sealing.LEDGER_SOURCES):
        for row in world.sql(f"SELECT id, actor FROM {table}"):
            plant(world, f"UPDATE {table} SET actor = 'x' WHERE id = {row.id}")
            assert [f"{table} {row.id} " in line for line in reported_faults()] == [True]
            plant(world, f"UPDATE {table} SET actor = '{row.actor}' WHERE id = {row.id}")
    assert reported_faults() == []


@pytest.mark.parametrize("table", ["coin_transactions", "withdrawal_events", "reviews"])
def test_a_deleted_row_is_reported_with_its_withdrawal(world: World, withdrawal_id: UUID, table: str) -> None:
    row = world.sql(f"SELECT max(id) AS id FROM {table} WHERE withdrawal_id IS NOT NULL")[0]
    plant(world, f"DELETE FROM {table} WHERE id = {row.id}")
    [line] = reported_faults()
    assert f"{table} {row.id} of withdrawal {withdrawal_id} (deleted since block 1 sealed it)" in line


def test_two_swapped_rows_are_both_reported(world: World, withdrawal_id: UUID) -> None:
    first, second = (row.id for row in world.sql("SELECT id FROM withdrawal_events ORDER BY id"))
    swap = f"(VALUES ({first}, {second}), ({second}, {first})) AS swapped (mine, other)"
    plant(
        world,
        f"UPDATE withdrawal_events e SET reason = o.reason FROM {swap}, withdrawal_events o"
        " WHERE e.id = swapped.mine AND o.id = swapped.other",
    )
    [line] = reported_faults()
    assert f"withdrawal_events {first} " in line and f"withdrawal_events {second} " in line


def test_values_that_only_look_equal_have_different_hashes(world: World, withdrawal_id: UUID) -> None:
    """1.0 equals 1.00 in JSON, and NULL looks like 'null' in some texts; a seal tells them apart."""
    world.sql(
        "INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, data)"
        f""" VALUES ('{withdrawal_id}', 'cancelled', 'me', E'"\\\\ \\n ₹', '{{"fee": 1.0}}')"""
    )
    sealing.seal()
    for change in ("""data = '{"fee": 1.00}'""", "from_status = 'null'"):
        plant(world, f"UPDATE withdrawal_events SET {change} WHERE actor = 'me'")
        assert len(reported_faults()) == 1
        plant(
            world,
            """UPDATE withdrawal_events SET data = '{"fee": 1.0}', from_status = NULL WHERE actor = 'me'""",
        )
    assert reported_faults() == []


def test_the_hashed_text_is_plain_json(world: World) -> None:
    """The bytes are pinned: any other form would break every existing seal."""
    world.credit("user₹", reference='a "quoted" \\ line\nand tab\t')
    row = world.sql(
        f"SELECT *, {sealing.SOURCES[0].row_text} AS text, to_json(created_at AT TIME ZONE 'UTC') AS at"
        " FROM coin_transactions"
    )[0]
    assert row.text == (
        f'[1, "journal", {row.id}, "user₹", "credit", 2000, 2000, null, "a \\"quoted\\" \\\\ line\\nand tab\\t",'
        f' null, "app:test", "{row.at}"]'
    )


# --- seals

LEAF_CHANGES = {
    "leaf_hash = sha256('x')": "the leaf of coin_transactions 2",
    "salt = '\\x00'": "coin_transactions 2",
    "withdrawal_id = NULL": "the leaf of coin_transactions 2",
    "row_id = 99": "coin_transactions 99",
    "block = 2, position = 1": "block 1: 7 leaves of 8, none at 1",
    "position = 9": "block 1: 8 leaves of 8, none at 1",
}


@pytest.mark.parametrize("change", LEAF_CHANGES)
def test_a_changed_leaf_is_reported(world: World, withdrawal_id: UUID, change: str) -> None:
    plant(world, f"UPDATE seal_leaves SET {change} WHERE source = 'journal' AND row_id = 2")
    assert LEAF_CHANGES[change] in "\n".join(reported_faults())


def test_a_deleted_leaf_is_reported(world: World, withdrawal_id: UUID) -> None:
    plant(world, "DELETE FROM seal_leaves WHERE source = 'events' AND row_id = 2")
    assert "block 1: 7 leaves of 8, none at 4" in reported_faults()[0]


BLOCK_CHANGES = (
    "version = 3",
    "leaf_count = 9",
    "merkle_root = sha256('x')",
    "previous_hash = sha256('x')",
    "block_hash = sha256('x')",
    "journal_to = 0",
    "events_to = 0",
    "others_to = NULL",
    "others_to = jsonb_set(others_to, '{audit}', '0')",
    "sealed_at = sealed_at + interval '1 microsecond'",
    "number = 7",
)


@pytest.mark.parametrize("change", BLOCK_CHANGES)
def test_a_changed_block_is_reported(world: World, withdrawal_id: UUID, change: str) -> None:
    plant(world, f"UPDATE seal_blocks SET {change} WHERE number = 1")
    assert "block 1" in reported_faults()[0]


def test_a_rebuilt_block_does_not_match_the_next_block(world: World, withdrawal_id: UUID) -> None:
    plant(world, "UPDATE seal_blocks SET journal_to = 0 WHERE number = 1")
    [block] = world.sql(f"{sealing.SELECT_BLOCKS} WHERE number = 1")
    rebuilt = proofs.document_hash(sealing.header(block)).hex()
    plant(world, f"UPDATE seal_blocks SET block_hash = '\\x{rebuilt}' WHERE number = 1")
    assert reported_faults() == [
        f"{seal_checks.CHAIN_UNCHANGED}: violated by block 2 does not continue the block before it"
    ]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_deleted_block_is_reported(world: World, withdrawal_id: UUID, number: int) -> None:
    cancelled(world)
    sealing.seal()
    plant(world, f"DELETE FROM seal_blocks WHERE number = {number}")
    assert f"block {number} is missing" in reported_faults()[0]


def test_a_block_deleted_with_its_leaves_is_reported(world: World, withdrawal_id: UUID) -> None:
    plant(world, "DELETE FROM seal_blocks WHERE number = 1", "DELETE FROM seal_leaves WHERE block = 1")
    assert "block 1 is missing" in reported_faults()[0]


def test_a_row_changed_with_its_leaf_breaks_the_merkle_root(world: World, withdrawal_id: UUID) -> None:
    plant(
        world,
        "UPDATE coin_transactions SET actor = 'me' WHERE id = 2",
        "UPDATE seal_leaves SET leaf_hash = sha256('\\x00' || salt || convert_to(("
        f"SELECT {sealing.SOURCES[0].row_text} FROM coin_transactions WHERE id = 2), 'UTF8'))"
        " WHERE source = 'journal' AND row_id = 2",
    )
    assert reported_faults() == [
        f"{seal_checks.CHAIN_UNCHANGED}: violated by block 1: its leaves do not match its root"
    ]


@pytest.mark.parametrize("table", ["seal_blocks", "seal_leaves", "day_certificates"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_the_database_refuses_to_change_seals(world: World, table: str, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        world.sql(statement.format(table, "version" if table == "seal_blocks" else "block"))


# --- sealing


def sealed_ids(world: World) -> list[int]:
    rows = world.sql("SELECT row_id FROM seal_leaves WHERE source = 'journal' ORDER BY block, position")
    return [row.row_id for row in rows]


def add_line(connection: Connection, user_id: str) -> None:
    """Add an entry for a wallet that no test looks at, in the caller's transaction."""
    connection.execute(
        text(
            "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
            " VALUES (:user_id, 'credit', 1, 1, :user_id, 'app:test')"
        ),
        {"user_id": user_id},
    )


def wallets(world: World, *names: str) -> None:
    """Create wallets with one coin each; `add_line` writes the entry later."""
    for name in names:
        world.sql_without_rules(
            f"INSERT INTO wallets (user_id, balance_coins, lifetime_coins) VALUES ('{name}', 1, 1)"
        )


def test_nothing_is_sealed_twice(world: World) -> None:
    world.credit()
    assert [sealing.seal(), sealing.seal()] == [1, 0]


def test_a_row_with_an_id_below_a_sealed_row_is_sealed_too(world: World) -> None:
    wallets(world, "early", "late")
    with engine().connect() as early:
        add_line(early, "early")  # takes the smaller id and commits last
        with engine().begin() as late:
            add_line(late, "late")
        assert (sealing.seal(), sealed_ids(world)) == (1, [2])
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (1, [2, 1])
    assert reported_faults() == []


def test_a_much_later_commit_is_sealed_before_the_floor_passes_it(world: World) -> None:
    """The last blocks are hours old and nothing was sealed since, as after a night without beat."""
    wallets(world, "early", "late", "next")
    with engine().connect() as early:
        add_line(early, "early")
        with engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        early.commit()
    plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '9 hours'")
    with engine().begin() as connection:
        add_line(connection, "next")
    assert (sealing.seal(), sealed_ids(world)) == (2, [2, 1, 3])


def test_a_late_commit_above_the_floor_is_sealed_too(world: World) -> None:
    """In the middle of a day, an older block has settled and the last one has not."""
    wallets(world, "settled", "early", "late")
    with engine().begin() as connection:
        add_line(connection, "settled")
    sealing.seal()
    plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
    with engine().connect() as early:
        add_line(early, "early")
        with engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (1, [1, 3, 2])


def test_late_rows_beyond_one_block_are_all_sealed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_ROWS_PER_SOURCE", 1)
    wallets(world, "early", "early too", "late")
    with engine().connect() as early:
        add_line(early, "early")
        add_line(early, "early too")
        with engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (2, [3, 1, 2])


def test_a_row_below_the_floor_is_reported_and_sealed_by_a_full_seal(
    world: World,
) -> None:
    wallets(world, "early", "late", "next")
    with engine().connect() as early:
        add_line(early, "early")
        for name in ("late", "next"):
            with engine().begin() as connection:
                add_line(connection, name)
            sealing.seal()
            plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
        early.commit()
    world.credit(reference="after the floor has moved")
    sealing.seal()
    plant(world, "UPDATE coin_transactions SET created_at = created_at - interval '2 hours' WHERE id = 1")
    assert "coin_transactions 1 (in no block)" in "\n".join(reported_faults())
    assert sealing.seal_everything() == 1
    assert "in no block" not in "\n".join(reported_faults())


def test_a_row_unsealed_for_less_than_an_hour_is_no_fault(world: World) -> None:
    world.credit()
    assert reported_faults() == []


def test_a_row_unsealed_for_an_hour_is_reported_before_it_is_sealed(world: World) -> None:
    world.credit()
    plant(world, "UPDATE coin_transactions SET created_at = now() - interval '61 minutes'")
    for _ in range(2):
        assert reported_faults() == [
            f"{seal_checks.SEALED_IN_TIME}: violated by coin_transactions 1 (in no block)"
        ]


# Changes to unsealed rows that no check can detect.
SILENT = (
    "UPDATE withdrawal_events SET actor = 'nobody'",
    "UPDATE withdrawal_events SET created_at = created_at - interval '1 minute'",
    """UPDATE withdrawal_events SET data = data || '{"note": "x"}'""",
    "UPDATE coin_transactions SET actor = 'nobody'",
)


def test_a_check_reports_unsealed_rows_and_seals_them(world: World) -> None:
    world.credit()
    cancelled(world)
    plant(world, *SILENT)
    output = check_output()
    assert "The 5 newest rows had no seal until now." in output
    assert "They are sealed now." in output
    assert "Without a seal" not in check_output()
    plant(world, SILENT[0].replace("nobody", "somebody"))
    assert "changed since block 1 sealed it" in "\n".join(reported_faults())


def test_a_check_with_faults_seals_nothing(world: World) -> None:
    world.credit()
    plant(world, "UPDATE coin_transactions SET coins = 7")
    assert "They are not sealed yet." in check_output(1)
    assert sealed_ids(world) == []


def test_on_a_read_only_database_a_check_says_that_it_seals_nothing(world: World) -> None:
    world.credit()
    world.broken_on_purpose = True  # the database stays read-only until the test ends
    name = world.sql("SELECT current_database() AS name")[0].name
    world.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine().dispose()
    assert "They are not sealed yet." in check_output()


# --- the end of the chain


def check_output(exit_code: int = 0, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["check", *arguments])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.output


def current_head() -> str:
    """The head of the seals as `payouts check` prints it."""
    [line] = [line for line in check_output().splitlines() if line.startswith("Head of the seals: ")]
    return line.split()[-1]


def test_a_stored_head_shows_that_the_end_was_cut_off(world: World, withdrawal_id: UUID) -> None:
    stored = current_head()
    assert stored.startswith("2:")
    check_output(0, "--head", stored)
    plant(world, "DELETE FROM seal_leaves WHERE block = 2", "DELETE FROM seal_blocks WHERE number = 2",
          "DELETE FROM coin_transactions WHERE user_id = 'user456'", "DELETE FROM wallets WHERE user_id = 'user456'")  # fmt: skip
    assert "block 2 is missing: the chain ends with block 1" in check_output(1, "--head", stored)


def test_a_stored_head_shows_that_the_end_was_rebuilt(world: World, withdrawal_id: UUID) -> None:
    stored = current_head()
    plant(world, "DELETE FROM seal_leaves WHERE block = 2", "DELETE FROM seal_blocks WHERE number = 2",
          "UPDATE coin_transactions SET actor = 'nobody' WHERE user_id = 'user456'")  # fmt: skip
    assert sealing.seal() == 1
    check_output()
    assert "block 2 does not match the head that you gave" in check_output(1, "--head", stored)


def test_several_heads_are_compared_in_every_notation(world: World, withdrawal_id: UUID) -> None:
    [first] = world.sql("SELECT block_hash FROM seal_blocks WHERE number = 1")
    check_output(0, "--head", current_head().upper(), "--head", f"1:{first.block_hash.hex()}")
    assert "block 1 does not match the head" in check_output(
        1, "--head", current_head(), "--head", f"1:{'0' * 64}"
    )


@pytest.mark.parametrize("wrong", ["", "2", "2:ab", "0:" + "a" * 64, "x:" + "a" * 64])
def test_an_invalid_head_is_rejected(world: World, wrong: str) -> None:
    assert "a block's number, a colon" in check_output(2, "--head", wrong)


def test_more_rows_than_a_block_go_into_several_blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_ROWS_PER_SOURCE", 3)
    for number in range(8):
        world.credit(reference=str(number))
    assert sealing.seal() == 8
    blocks = world.sql("SELECT leaf_count, journal_to FROM seal_blocks ORDER BY number")
    assert [tuple(block) for block in blocks] == [(3, 3), (3, 6), (2, 8)]
    assert reported_faults() == []


def test_one_call_seals_a_limited_number_of_blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_ROWS_PER_SOURCE", 1)
    for number in range(sealing.MAX_BLOCKS_PER_CALL + 2):
        world.credit(reference=str(number))
    assert [sealing.seal(), sealing.seal(), sealing.seal()] == [sealing.MAX_BLOCKS_PER_CALL, 2, 0]


def test_concurrent_sealers_seal_each_row_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_ROWS_PER_SOURCE", 2)
    for number in range(30):
        world.credit(reference=str(number))
    sealed: list[int] = []
    gate = threading.Barrier(6)

    def run(seal: Callable[[], int]) -> None:
        gate.wait()
        sealed.append(seal())

    sealers = [sealing.seal] * 4 + [sealing.seal_everything] * 2
    threads = [threading.Thread(target=run, args=(sealer,)) for sealer in sealers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sealed) == 30
    assert sorted(sealed_ids(world)) == list(range(1, 31))
    assert reported_faults() == []


def test_requests_do_not_wait_for_a_sealer(world: World) -> None:
    world.credit()
    with engine().begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({sealing.SEALER_LOCK_KEY})"))
        assert sealing._seal_block(connection)
        cancelled(world)  # its statements would give up on a lock after 3 seconds
        assert sealing.seal() == 0
    assert sealing.seal() == 4
