"""Whatever is changed in the journal, the events or their seals is found and named by `payouts check`."""

import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared import db, proofs, seal_checks, sealing, withdrawals
from shared.cli import main
from tests.world import World

TABLES = {source.word: source.table for source in sealing.SOURCES}
# Another value for each column that is hashed; a row in which that column may have it.
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
# By which column a row of each source is chosen above.
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
    """A cancelled withdrawal: three lines of the journal, two events, sealed with a line of the audit log, a review
    and a block; and a later block of seals behind it.
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


def told() -> list[str]:
    """What `payouts check` says of the seals, in an operator's words. It must then also say so by its exit."""
    result = CliRunner().invoke(main, ["check", "--ids", "100"])
    assert result.exit_code in (0, 1), result.exception
    truths = [f"{truth}: not so for " for truth in seal_checks.TRUTHS]
    lines = [line for line in result.output.splitlines() if line.startswith(tuple(truths))]
    assert not lines or result.exit_code == 1
    return lines


# --- rows


@pytest.mark.parametrize(("source", "column"), OTHER)
def test_a_change_of_any_column_is_named(world: World, withdrawal_id: UUID, source: str, column: str) -> None:
    value, kind = OTHER[source, column]
    table, is_of = TABLES[source], " of blocks 1" if source == "evidence" else ""
    row = world.sql(f"SELECT * FROM {table} WHERE {KIND[source]} = '{kind}' ORDER BY id LIMIT 1")[0]
    plant(world, f"UPDATE {table} SET {column} = {value} WHERE id = {row.id}")
    if withdrawal := getattr(row, "withdrawal_id", None):
        is_of = f" of withdrawal {withdrawal}"
    why = "gone" if column == "id" else "changed"
    [line] = [line for line in told() if line.startswith(seal_checks.SAID)]
    where = "" if source == "evidence" and column in ("id", "of_table", "of_key") else is_of
    assert f": not so for {table} {row.id}{where}" in line and line.endswith(
        f" ({why} since block 1 sealed it)"
    )


def test_every_column_that_is_hashed_is_tried() -> None:
    assert set(OTHER) == {(word, column) for word, columns in proofs.COLUMNS.items() for column in columns}


@pytest.mark.parametrize("table", TABLES.values())
def test_every_column_is_hashed(world: World, table: str) -> None:
    """A new column makes this fail: let it into the hash with a new version, or say here why it need not be."""
    columns = world.sql(
        f"SELECT column_name AS name FROM information_schema.columns WHERE table_name = '{table}'"
        " AND is_generated = 'NEVER' ORDER BY ordinal_position"
    )
    word = next(word for word, name in TABLES.items() if name == table)
    assert [column.name for column in columns] == list(proofs.COLUMNS[word])


def test_a_change_of_any_row_is_named(world: World, withdrawal_id: UUID) -> None:
    for table in (source.table for source in sealing.BOOKS):
        for row in world.sql(f"SELECT id, actor FROM {table}"):
            plant(world, f"UPDATE {table} SET actor = 'x' WHERE id = {row.id}")
            assert [f"{table} {row.id} " in line for line in told()] == [True]
            plant(world, f"UPDATE {table} SET actor = '{row.actor}' WHERE id = {row.id}")
    assert told() == []


@pytest.mark.parametrize("table", ["coin_transactions", "withdrawal_events", "reviews"])
def test_a_row_that_is_gone_is_named_with_its_withdrawal(
    world: World, withdrawal_id: UUID, table: str
) -> None:
    row = world.sql(f"SELECT max(id) AS id FROM {table} WHERE withdrawal_id IS NOT NULL")[0]
    plant(world, f"DELETE FROM {table} WHERE id = {row.id}")
    [line] = told()
    assert f"{table} {row.id} of withdrawal {withdrawal_id} (gone since block 1 sealed it)" in line


def test_two_rows_that_change_places_are_both_named(world: World, withdrawal_id: UUID) -> None:
    first, second = (row.id for row in world.sql("SELECT id FROM withdrawal_events ORDER BY id"))
    swap = f"(VALUES ({first}, {second}), ({second}, {first})) AS swapped (mine, other)"
    plant(
        world,
        f"UPDATE withdrawal_events e SET reason = o.reason FROM {swap}, withdrawal_events o"
        " WHERE e.id = swapped.mine AND o.id = swapped.other",
    )
    [line] = told()
    assert f"withdrawal_events {first} " in line and f"withdrawal_events {second} " in line


def test_what_differs_only_in_writing_differs(world: World, withdrawal_id: UUID) -> None:
    """1.0 and 1.00 are equal numbers for JSON, NULL and 'null' are alike in some texts; not in a seal."""
    world.sql(
        "INSERT INTO withdrawal_events (withdrawal_id, to_status, actor, reason, data)"
        f""" VALUES ('{withdrawal_id}', 'cancelled', 'me', E'"\\\\ \\n ₹', '{{"fee": 1.0}}')"""
    )
    sealing.seal()
    for change in ("""data = '{"fee": 1.00}'""", "from_status = 'null'"):
        plant(world, f"UPDATE withdrawal_events SET {change} WHERE actor = 'me'")
        assert len(told()) == 1
        plant(
            world,
            """UPDATE withdrawal_events SET data = '{"fee": 1.0}', from_status = NULL WHERE actor = 'me'""",
        )
    assert told() == []


def test_the_hashed_text_is_plain_json(world: World) -> None:
    """The bytes are pinned: another way of writing them would break every seal that was ever made."""
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
def test_a_changed_leaf_is_named(world: World, withdrawal_id: UUID, change: str) -> None:
    plant(world, f"UPDATE seal_leaves SET {change} WHERE source = 'journal' AND row_id = 2")
    assert LEAF_CHANGES[change] in "\n".join(told())


def test_a_leaf_that_is_gone_is_named(world: World, withdrawal_id: UUID) -> None:
    plant(world, "DELETE FROM seal_leaves WHERE source = 'events' AND row_id = 2")
    assert "block 1: 7 leaves of 8, none at 4" in told()[0]


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
def test_a_changed_block_is_named(world: World, withdrawal_id: UUID, change: str) -> None:
    plant(world, f"UPDATE seal_blocks SET {change} WHERE number = 1")
    assert "block 1" in told()[0]


def test_a_block_that_was_made_anew_does_not_fit_the_next(world: World, withdrawal_id: UUID) -> None:
    plant(world, "UPDATE seal_blocks SET journal_to = 0 WHERE number = 1")
    [block] = world.sql(f"{sealing.BLOCKS} WHERE number = 1")
    anew = proofs.hash_of(sealing.header(block)).hex()
    plant(world, f"UPDATE seal_blocks SET block_hash = '\\x{anew}' WHERE number = 1")
    assert told() == [f"{seal_checks.MADE}: not so for block 2 does not continue the one before it"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_block_that_is_gone_is_named(world: World, withdrawal_id: UUID, number: int) -> None:
    cancelled(world)
    sealing.seal()
    plant(world, f"DELETE FROM seal_blocks WHERE number = {number}")
    assert f"block {number} is missing" in told()[0]


def test_a_block_that_is_gone_with_its_leaves_is_named(world: World, withdrawal_id: UUID) -> None:
    plant(world, "DELETE FROM seal_blocks WHERE number = 1", "DELETE FROM seal_leaves WHERE block = 1")
    assert "block 1 is missing" in told()[0]


def test_a_row_that_was_changed_together_with_its_leaf_breaks_the_root(
    world: World, withdrawal_id: UUID
) -> None:
    plant(
        world,
        "UPDATE coin_transactions SET actor = 'me' WHERE id = 2",
        "UPDATE seal_leaves SET leaf_hash = sha256('\\x00' || salt || convert_to(("
        f"SELECT {sealing.SOURCES[0].row_text} FROM coin_transactions WHERE id = 2), 'UTF8'))"
        " WHERE source = 'journal' AND row_id = 2",
    )
    assert told() == [
        f"{seal_checks.MADE}: not so for block 1: its leaves are not those that its root was made of"
    ]


@pytest.mark.parametrize("table", ["seal_blocks", "seal_leaves", "day_certificates"])
@pytest.mark.parametrize("what", ["UPDATE {} SET {} = 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_the_database_refuses_to_change_seals(world: World, table: str, what: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        world.sql(what.format(table, "version" if table == "seal_blocks" else "block"))


# --- sealing


def sealed_ids(world: World) -> list[int]:
    rows = world.sql("SELECT row_id FROM seal_leaves WHERE source = 'journal' ORDER BY block, position")
    return [row.row_id for row in rows]


def add_line(connection: Connection, user_id: str) -> None:
    """A line of a wallet that no test looks at, in a transaction of the caller."""
    connection.execute(
        text(
            "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
            " VALUES (:user_id, 'credit', 1, 1, :user_id, 'app:test')"
        ),
        {"user_id": user_id},
    )


def wallets(world: World, *names: str) -> None:
    """Wallets whose one coin will be written by `add_line`."""
    for name in names:
        world.sql_without_rules(
            f"INSERT INTO wallets (user_id, balance_coins, lifetime_coins) VALUES ('{name}', 1, 1)"
        )


def test_nothing_is_sealed_twice(world: World) -> None:
    world.credit()
    assert [sealing.seal(), sealing.seal()] == [1, 0]


def test_a_row_that_appears_below_a_sealed_one_is_sealed_too(world: World) -> None:
    wallets(world, "early", "late")
    with db.engine().connect() as early:
        add_line(early, "early")  # takes the smaller id, and commits last
        with db.engine().begin() as late:
            add_line(late, "late")
        assert (sealing.seal(), sealed_ids(world)) == (1, [2])
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (1, [2, 1])
    assert told() == []


def test_a_row_that_appears_much_later_is_sealed_before_the_floor_passes_it(world: World) -> None:
    """The blocks behind it are hours old and no seal was made meanwhile, as after a night without beat."""
    wallets(world, "early", "late", "next")
    with db.engine().connect() as early:
        add_line(early, "early")
        with db.engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        early.commit()
    plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '9 hours'")
    with db.engine().begin() as connection:
        add_line(connection, "next")
    assert (sealing.seal(), sealed_ids(world)) == (2, [2, 1, 3])


def test_a_row_that_appears_above_the_floor_is_sealed_too(world: World) -> None:
    """As in the middle of a day: an older block has settled, and the last one has not."""
    wallets(world, "settled", "early", "late")
    with db.engine().begin() as connection:
        add_line(connection, "settled")
    sealing.seal()
    plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
    with db.engine().connect() as early:
        add_line(early, "early")
        with db.engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (1, [1, 3, 2])


def test_late_rows_that_are_more_than_a_block_are_all_sealed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "ROWS_PER_SOURCE", 1)
    wallets(world, "early", "early too", "late")
    with db.engine().connect() as early:
        add_line(early, "early")
        add_line(early, "early too")
        with db.engine().begin() as late:
            add_line(late, "late")
        sealing.seal()
        plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
        early.commit()
    assert (sealing.seal(), sealed_ids(world)) == (2, [3, 1, 2])


def test_a_row_that_appears_after_the_floor_passed_it_is_named_and_sealed_with_everything(
    world: World,
) -> None:
    wallets(world, "early", "late", "next")
    with db.engine().connect() as early:
        add_line(early, "early")
        for name in ("late", "next"):
            with db.engine().begin() as connection:
                add_line(connection, name)
            sealing.seal()
            plant(world, "UPDATE seal_blocks SET sealed_at = sealed_at - interval '2 hours'")
        early.commit()
    world.credit(reference="after the floor has moved")
    sealing.seal()
    plant(world, "UPDATE coin_transactions SET created_at = created_at - interval '2 hours' WHERE id = 1")
    assert "coin_transactions 1 (in no block)" in "\n".join(told())
    assert sealing.seal_everything() == 1
    assert "in no block" not in "\n".join(told())


def test_a_row_that_waits_for_its_seal_for_less_than_an_hour_is_no_fault(world: World) -> None:
    world.credit()
    assert told() == []


def test_what_lay_without_a_seal_for_an_hour_is_named_before_anything_is_sealed(world: World) -> None:
    world.credit()
    plant(world, "UPDATE coin_transactions SET created_at = now() - interval '61 minutes'")
    for _ in range(2):
        assert told() == [f"{seal_checks.LATE}: not so for coin_transactions 1 (in no block)"]


# What no question can see in a row that has no seal.
SILENT = (
    "UPDATE withdrawal_events SET actor = 'nobody'",
    "UPDATE withdrawal_events SET created_at = created_at - interval '1 minute'",
    """UPDATE withdrawal_events SET data = data || '{"note": "x"}'""",
    "UPDATE coin_transactions SET actor = 'nobody'",
)


def test_a_check_says_which_rows_no_seal_speaks_for_and_seals_them(world: World) -> None:
    world.credit()
    cancelled(world)
    plant(world, *SILENT)
    said = page()
    assert "Without a seal until now: the 5 newest rows." in said
    assert "They are sealed now." in said
    assert "Without a seal" not in page()
    plant(world, SILENT[0].replace("nobody", "somebody"))
    assert "changed since block 1 sealed it" in "\n".join(told())


def test_what_does_not_hold_is_not_sealed_by_a_check(world: World) -> None:
    world.credit()
    plant(world, "UPDATE coin_transactions SET coins = 7")
    assert "They wait for their seal." in page(1)
    assert sealed_ids(world) == []


def test_where_nothing_can_be_written_a_check_seals_nothing_and_says_so(world: World) -> None:
    world.credit()
    world.broken_on_purpose = True  # nobody can mend it for the last check
    name = world.sql("SELECT current_database() AS name")[0].name
    world.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    db.engine().dispose()
    assert "They wait for their seal." in page()


# --- the end of the chain


def page(exit_code: int = 0, *words: str) -> str:
    result = CliRunner().invoke(main, ["check", *words])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.output


def head() -> str:
    """As the page says it."""
    [line] = [line for line in page().splitlines() if line.startswith("Head of the seals: ")]
    return line.split()[-1]


def test_a_head_that_was_kept_tells_that_the_end_was_cut_off(world: World, withdrawal_id: UUID) -> None:
    kept = head()
    assert kept.startswith("2:")
    page(0, "--head", kept)
    plant(world, "DELETE FROM seal_leaves WHERE block = 2", "DELETE FROM seal_blocks WHERE number = 2",
          "DELETE FROM coin_transactions WHERE user_id = 'user456'", "DELETE FROM wallets WHERE user_id = 'user456'")  # fmt: skip
    assert "block 2 is missing: the chain ends with block 1" in page(1, "--head", kept)


def test_a_head_that_was_kept_tells_that_the_end_was_made_anew(world: World, withdrawal_id: UUID) -> None:
    kept = head()
    plant(world, "DELETE FROM seal_leaves WHERE block = 2", "DELETE FROM seal_blocks WHERE number = 2",
          "UPDATE coin_transactions SET actor = 'nobody' WHERE user_id = 'user456'")  # fmt: skip
    assert sealing.seal() == 1
    page()
    assert "block 2 is another one than the head that was kept" in page(1, "--head", kept)


def test_several_heads_are_compared_however_they_are_written(world: World, withdrawal_id: UUID) -> None:
    [first] = world.sql("SELECT block_hash FROM seal_blocks WHERE number = 1")
    page(0, "--head", head().upper(), "--head", f"1:{first.block_hash.hex()}")
    assert "block 1 is another one" in page(1, "--head", head(), "--head", f"1:{'0' * 64}")


@pytest.mark.parametrize("wrong", ["", "2", "2:ab", "0:" + "a" * 64, "x:" + "a" * 64])
def test_what_is_no_head_is_refused(world: World, wrong: str) -> None:
    assert "a block's number, a colon" in page(2, "--head", wrong)


def test_what_is_more_than_a_block_goes_into_several(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ROWS_PER_SOURCE", 3)
    for number in range(8):
        world.credit(reference=str(number))
    assert sealing.seal() == 8
    blocks = world.sql("SELECT leaf_count, journal_to FROM seal_blocks ORDER BY number")
    assert [tuple(block) for block in blocks] == [(3, 3), (3, 6), (2, 8)]
    assert told() == []


def test_one_call_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ROWS_PER_SOURCE", 1)
    for number in range(sealing.BLOCKS_PER_CALL + 2):
        world.credit(reference=str(number))
    assert [sealing.seal(), sealing.seal(), sealing.seal()] == [sealing.BLOCKS_PER_CALL, 2, 0]


def test_sealers_at_once_seal_each_row_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ROWS_PER_SOURCE", 2)
    for number in range(30):
        world.credit(reference=str(number))
    sealed: list[int] = []
    gate = threading.Barrier(6)

    def run(seal: Callable[[], int]) -> None:
        gate.wait()
        sealed.append(seal())

    some = [sealing.seal] * 4 + [sealing.seal_everything] * 2
    threads = [threading.Thread(target=run, args=(one,)) for one in some]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sealed) == 30
    assert sorted(sealed_ids(world)) == list(range(1, 31))
    assert told() == []


def test_requests_do_not_wait_for_a_sealer(world: World) -> None:
    world.credit()
    with db.engine().begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({sealing.ONE_SEALER_AT_A_TIME})"))
        assert sealing._seal_block(connection)
        cancelled(world)  # whose statements give up on a lock after 3 seconds
        assert sealing.seal() == 0
    assert sealing.seal() == 4
