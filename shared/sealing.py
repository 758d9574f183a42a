"""Seals over the journal, the events and all evidence, made after the fact: what was written is then provably
unchanged.

By the clock, rows that no block holds yet become leaves of a new block: a Merkle root over their hashes, and
the hash of the block before. The request path takes no part in it, and nobody waits for a lock of it.

Ids are given out before their transactions commit, so a row may appear below one that was sealed before it.
A row is therefore sealed when a leaf names it, and not when its id is small.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Row, text

from shared import merkle, proofs
from shared.db import engine, patient_engine, told_plainly

ROWS_PER_SOURCE = 5000  # per block: a fraction of a second of work, and a path of 14 hashes
BLOCKS_PER_CALL = 20  # after a standstill a call catches up by so much; the next one goes on
SALT_BYTES = 16  # 128 bits cannot be guessed
# After so long every transaction has ended: a statement gets 10 seconds, an idle transaction 30. Whatever
# appears later still is found by `seal_everything`, and `payouts check` names it until then.
LATE_SECONDS = 3600
# Any number will do, as long as every sealer takes the same one.
ONE_SEALER_AT_A_TIME = 0x5EA1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """A table whose rows are sealed: its word in leaves and proofs, its name, and which column says when.

    `about`: SQL for what a fault in it is about, beside its withdrawal.
    """

    word: str
    table: str
    time: str = "created_at"
    about: str = "NULL"

    @property
    def row_text(self) -> str:
        """SQL: a row as the text that is hashed. `::text` of jsonb and bigint is the same on every server."""
        columns = (
            f"{column} AT TIME ZONE 'UTC'" if column == self.time else column
            for column in proofs.COLUMNS[self.word]
        )
        return f"json_build_array({proofs.VERSION}, '{self.word}', {', '.join(columns)})::text"

    @property
    def rows(self) -> str:
        """SQL: all rows, each with its text, and when it was written in seconds since 1970."""
        written = f"extract(epoch FROM {self.time})::float8 AS written"
        told = f"{self.withdrawal} AS withdrawal_id, {self.about} AS about"
        return f"SELECT id, {told}, {written}, {self.row_text} AS text FROM {self.table}"

    @property
    def withdrawal(self) -> str:
        """SQL: the withdrawal that a row is about, if this table knows one."""
        return "withdrawal_id" if "withdrawal_id" in proofs.COLUMNS[self.word] else "NULL::uuid"

    @property
    def unsealed(self) -> str:
        """SQL: what to ask for rows without a leaf, above the id `:floor`. It is read along two indexes."""
        return f"""FROM {self.table} r WHERE r.id > :floor AND NOT EXISTS (SELECT FROM seal_leaves l
            WHERE l.source = '{self.word}' AND l.row_id > :floor AND l.row_id = r.id)"""


# What a day's certificate sums up, and a withdrawal's proof shows.
BOOKS = (Source("journal", "coin_transactions"), Source("events", "withdrawal_events"))
OTHERS = (
    Source("audit", "audit_log", time="at"),
    Source("reviews", "reviews", time="decided_at"),
    Source("evidence", "evidence", time="at", about="of_table || ' ' || of_key"),
)
SOURCES = (*BOOKS, *OTHERS)
BLOCK_VERSION = 2  # 1 sealed BOOKS alone, and its header had no `others_to`

# PostgreSQL writes the time: it has words for times that Python cannot hold, should one be planted.
BLOCKS = """
    SELECT number, version, leaf_count, merkle_root, previous_hash, block_hash, journal_to, events_to,
           others_to, to_json(sealed_at AT TIME ZONE 'UTC') #>> '{}' AS sealed_text
    FROM seal_blocks
"""
CLOCK = "SELECT at, to_json(at AT TIME ZONE 'UTC') #>> '{}' FROM clock_timestamp() AS at"
LAST = "SELECT * FROM seal_blocks ORDER BY number DESC LIMIT 1"
SETTLED = "SELECT * FROM seal_blocks WHERE sealed_at <= :before ORDER BY number DESC LIMIT 1"
WRITE_BLOCK = """
    INSERT INTO seal_blocks (number, version, leaf_count, merkle_root, previous_hash, block_hash, journal_to,
                             events_to, others_to, sealed_at)
    VALUES (:number, :version, :leaf_count, :merkle_root, :previous_hash, :block_hash, :journal_to,
            :events_to, CAST(:others AS jsonb), :sealed_at)
"""
WRITE_LEAVES = """
    INSERT INTO seal_leaves (block, position, source, row_id, withdrawal_id, salt, leaf_hash)
    SELECT :block, position - 1, source, row_id, withdrawal_id, salt, leaf_hash
    FROM unnest(CAST(:sources AS text[]), CAST(:ids AS bigint[]), CAST(:withdrawals AS uuid[]),
                CAST(:salts AS bytea[]), CAST(:hashes AS bytea[]))
         WITH ORDINALITY AS leaf (source, row_id, withdrawal_id, salt, leaf_hash, position)
"""


@dataclass(frozen=True, slots=True)
class _Block:
    number: int
    version: int
    leaf_count: int
    merkle_root: bytes
    previous_hash: bytes
    journal_to: int
    events_to: int
    others_to: dict[str, int]
    sealed_at: datetime
    sealed_text: str
    is_full: bool  # there may be more

    @property
    def block_hash(self) -> bytes:
        return proofs.hash_of(header(self))


def seal() -> int:
    """Seal what no block holds yet, oldest first; returns how many rows. Two at once do no harm: one of them
    returns 0. Raises Unavailable.
    """
    sealed, floors = 0, None
    for _ in range(BLOCKS_PER_CALL):
        with told_plainly(), engine().begin() as connection:
            if not connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({ONE_SEALER_AT_A_TIME})")):
                break
            made = _seal_block(connection, floors)
        sealed += _told(made)
        if made is None or not made.is_full:
            break
        floors = _reached(made)
    return sealed


def seal_everything() -> int:
    """Seal to the end, and look through all rows for it, however late they appeared; returns how many.

    It waits for another sealer, and on a large journal for the looking. Raises Unavailable.
    """
    sealed, floors = 0, dict.fromkeys(proofs.COLUMNS, 0)
    while True:
        with told_plainly(), patient_engine().begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ONE_SEALER_AT_A_TIME})"))
            made = _seal_block(connection, floors)
        sealed += _told(made)
        if made is None or not made.is_full:
            return sealed
        floors = _reached(made)


def waiting(connection: Connection) -> int:
    """How many rows no block holds yet. Until one does, no seal can tell whether they were changed."""
    floors = _floors(connection, connection.execute(text(LAST)).one_or_none())
    counts = (
        connection.scalar(text(f"SELECT count(*) {source.unsealed}"), {"floor": floors[source.word]})
        for source in SOURCES
    )
    return sum(count or 0 for count in counts)


def head() -> str | None:
    """The last block by its number and hash, for whoever keeps it elsewhere. Raises Unavailable."""
    with told_plainly(), engine().begin() as connection:
        last = connection.execute(text(LAST)).one_or_none()
    return f"{last.number}:{last.block_hash.hex()}" if last else None


def header(block: Any) -> dict[str, Any]:
    """A block's header as it is hashed and told: numbers, hashes in hex, the time in UTC."""
    others = {} if block.version == 1 else {"others_to": block.others_to}
    return {
        "version": block.version,
        "number": block.number,
        "leaf_count": block.leaf_count,
        "merkle_root": block.merkle_root.hex(),
        "previous_hash": block.previous_hash.hex(),
        "journal_to": block.journal_to,
        "events_to": block.events_to,
        **others,
        "sealed_at": block.sealed_text,
    }


def _told(made: _Block | None) -> int:
    """The number of rows in a block that is committed; its hash goes with the logs to where they are kept.
    Whoever could write the whole chain anew cannot change it there.
    """
    if made is None:
        return 0
    log.info("[SEAL] sealed", block=made.number, rows=made.leaf_count, block_hash=made.block_hash.hex())
    return made.leaf_count


def _seal_block(connection: Connection, floors: dict[str, int] | None = None) -> _Block | None:
    """Make one block of what is not sealed above `floors`, which the blocks before tell when they are not
    given; None when there is nothing. The sealers' lock is held.
    """
    last = connection.execute(text(LAST)).one_or_none()
    floors = floors or _floors(connection, last)
    found = {source.word: _unsealed(connection, source, floors[source.word]) for source in SOURCES}
    rows = [(word, row) for word, of_it in found.items() for row in of_it]
    if not rows:
        return None
    salts = [secrets.token_bytes(SALT_BYTES) for _ in rows]
    hashes = [proofs.row_hash(salt, row.text) for salt, (_, row) in zip(salts, rows, strict=True)]
    block = _write_block(connection, last, found, hashes)
    leaves = {
        "block": block.number,
        "sources": [word for word, _ in rows],
        "ids": [row.id for _, row in rows],
        "withdrawals": [row.withdrawal_id for _, row in rows],
        "salts": salts,
        "hashes": hashes,
    }
    connection.execute(text(WRITE_LEAVES), leaves)
    return block


def _write_block(
    connection: Connection, last: Row[Any] | None, found: dict[str, list[Row[Any]]], hashes: list[bytes]
) -> _Block:
    # Not now(): that is when this transaction began, and it may have waited for the lock since.
    sealed_at, sealed_text = connection.execute(text(CLOCK)).one()
    block = _Block(
        number=last.number + 1 if last else 1,
        version=BLOCK_VERSION,
        leaf_count=len(hashes),
        merkle_root=merkle.root(hashes),
        previous_hash=last.block_hash if last else proofs.NOTHING_BEFORE,
        journal_to=_seen_to("journal", last, found),
        events_to=_seen_to("events", last, found),
        others_to={source.word: _seen_to(source.word, last, found) for source in OTHERS},
        sealed_at=sealed_at,
        sealed_text=sealed_text,
        is_full=any(len(of_it) == ROWS_PER_SOURCE for of_it in found.values()),
    )
    others = json.dumps(block.others_to)
    connection.execute(text(WRITE_BLOCK), {**asdict(block), "block_hash": block.block_hash, "others": others})
    return block


def _unsealed(connection: Connection, source: Source, floor: int) -> list[Row[Any]]:
    told = f"r.id, {source.withdrawal} AS withdrawal_id, {source.row_text} AS text"
    asked = f"SELECT {told} {source.unsealed} ORDER BY r.id"
    return list(connection.execute(text(f"{asked} LIMIT {ROWS_PER_SOURCE}"), {"floor": floor}))


def _seen_to(word: str, last: Row[Any] | None, found: dict[str, list[Row[Any]]]) -> int:
    """Up to which id this block leaves no row behind that could be seen."""
    before = _reached(last)[word] if last else 0
    rows = found[word]
    if len(rows) == ROWS_PER_SOURCE:
        return int(rows[-1].id)  # there may be more, right behind it
    return max(before, rows[-1].id if rows else 0)


def _floors(connection: Connection, last: Row[Any] | None) -> dict[str, int]:
    """Below which ids nothing can be unsealed, so that a call looks at an hour of rows and not at all.

    What could be seen up to an id was sealed by its block; what could not be seen then had committed an hour
    later, and the last block, which is at least so much younger, sealed it up to an id of its own.
    """
    settled = None
    if last:
        before = last.sealed_at - timedelta(seconds=LATE_SECONDS)
        settled = connection.execute(text(SETTLED), {"before": before}).one_or_none()
    if last is None or settled is None:
        return dict.fromkeys(proofs.COLUMNS, 0)
    return {word: min(to, _reached(settled)[word]) for word, to in _reached(last).items()}


def _reached(block: Any) -> dict[str, int]:
    """Up to which id of each source a block left no row behind that could be seen; 0: it never looked."""
    others = {source.word: 0 for source in OTHERS} | (block.others_to or {})
    return {"journal": block.journal_to, "events": block.events_to, **others}
