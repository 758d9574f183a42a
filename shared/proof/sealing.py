"""Seal the journal, the events and all evidence, so that a later change can be proved.

A scheduled task puts rows that are in no block yet into a new block: a Merkle root over their hashes, chained
to the hash of the previous block. Requests take no part in sealing and never wait for its lock.

Ids are assigned before their transactions commit, so a row can appear below one that is already sealed.
A row is therefore sealed if a leaf names it, however small its id.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Row, text

from shared.db.engines import engine, unbounded_engine
from shared.db.transactions import map_db_errors
from shared.proof import merkle, proofs

MAX_ROWS_PER_SOURCE = 5000  # per block: sealed in a fraction of a second; a proof has 14 hashes
MAX_BLOCKS_PER_CALL = 20  # limits one call after downtime; the next call continues
SALT_BYTES = 16  # 128 bits cannot be guessed
# By then every transaction has ended: a statement may take 10 seconds, an idle transaction 30. A row that
# appears even later is sealed by `seal_everything`; until then `payouts check` reports it.
LATE_SECONDS = 3600
SEALER_LOCK_KEY = 0x5EA1  # arbitrary, but the same for every sealer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """A table whose rows are sealed: its name in leaves and proofs, its table, and its time column.

    `subject`: SQL for what a row is about if it is not about a withdrawal. Fault messages show it.
    """

    name: str
    table: str
    time_column: str = "created_at"
    subject: str = "NULL"

    @property
    def row_text(self) -> str:
        """SQL: the text of a row that is hashed. `::text` of jsonb and bigint is the same on every server."""
        columns = (
            f"{column} AT TIME ZONE 'UTC'" if column == self.time_column else column
            for column in proofs.COLUMNS[self.name]
        )
        return f"json_build_array({proofs.VERSION}, '{self.name}', {', '.join(columns)})::text"

    @property
    def all_rows(self) -> str:
        """SQL: all rows, each with its text and the time it was written, in seconds since 1970."""
        written = f"extract(epoch FROM {self.time_column})::float8 AS written"
        about = f"{self.withdrawal_id} AS withdrawal_id, {self.subject} AS subject"
        return f"SELECT id, {about}, {written}, {self.row_text} AS text FROM {self.table}"

    @property
    def withdrawal_id(self) -> str:
        """SQL: the withdrawal that a row is about, if the table has that column."""
        return "withdrawal_id" if "withdrawal_id" in proofs.COLUMNS[self.name] else "NULL::uuid"

    @property
    def from_unsealed(self) -> str:
        """SQL: the FROM clause for rows without a leaf, above the id `:floor`. It reads two indexes."""
        return f"""FROM {self.table} r WHERE r.id > :floor AND NOT EXISTS (SELECT FROM seal_leaves l
            WHERE l.source = '{self.name}' AND l.row_id > :floor AND l.row_id = r.id)"""


# Day certificates total these, and withdrawal proofs show their rows.
LEDGER_SOURCES = (Source("journal", "coin_transactions"), Source("events", "withdrawal_events"))
OTHER_SOURCES = (
    Source("audit", "audit_log", time_column="at"),
    Source("reviews", "reviews", time_column="decided_at"),
    Source("evidence", "evidence", time_column="at", subject="of_table || ' ' || of_key"),
)
SOURCES = (*LEDGER_SOURCES, *OTHER_SOURCES)
BLOCK_VERSION = 2  # version 1 sealed LEDGER_SOURCES only, and its header had no `others_to`

# PostgreSQL formats the time, because a forged row may hold a time that Python cannot represent.
SELECT_BLOCKS = """
    SELECT number, version, leaf_count, merkle_root, previous_hash, block_hash, journal_to, events_to,
           others_to, to_json(sealed_at AT TIME ZONE 'UTC') #>> '{}' AS sealed_text
    FROM seal_blocks
"""
SELECT_NOW = "SELECT at, to_json(at AT TIME ZONE 'UTC') #>> '{}' FROM clock_timestamp() AS at"
SELECT_LAST_BLOCK = "SELECT * FROM seal_blocks ORDER BY number DESC LIMIT 1"
SELECT_SETTLED_BLOCK = "SELECT * FROM seal_blocks WHERE sealed_at <= :before ORDER BY number DESC LIMIT 1"
INSERT_BLOCK = """
    INSERT INTO seal_blocks (number, version, leaf_count, merkle_root, previous_hash, block_hash, journal_to,
                             events_to, others_to, sealed_at)
    VALUES (:number, :version, :leaf_count, :merkle_root, :previous_hash, :block_hash, :journal_to,
            :events_to, CAST(:others AS jsonb), :sealed_at)
"""
INSERT_LEAVES = """
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
    is_full: bool  # more rows may be waiting

    @property
    def block_hash(self) -> bytes:
        return proofs.document_hash(header(self))


def seal() -> int:
    """Seal rows that are in no block yet, oldest first, and return their number. Concurrent calls are safe:
    one of them returns 0. Raises Unavailable.
    """
    sealed_rows = 0
    floors = None
    for _ in range(MAX_BLOCKS_PER_CALL):
        with map_db_errors(), engine().begin() as connection:
            if not connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({SEALER_LOCK_KEY})")):
                break
            block = _seal_block(connection, floors)
        sealed_rows += _log_block(block)
        if block is None or not block.is_full:
            break
        floors = _sealed_to(block)
    return sealed_rows


def seal_everything() -> int:
    """Seal all rows, including those that appeared late, and return their number.

    It waits for other sealers and scans the whole journal, so it can be slow. Raises Unavailable.
    """
    sealed_rows = 0
    floors = dict.fromkeys(proofs.COLUMNS, 0)
    while True:
        with map_db_errors(), unbounded_engine().begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({SEALER_LOCK_KEY})"))
            block = _seal_block(connection, floors)
        sealed_rows += _log_block(block)
        if block is None or not block.is_full:
            return sealed_rows
        floors = _sealed_to(block)


def count_unsealed(connection: Connection) -> int:
    """The number of rows in no block yet. A change to such a row cannot be detected by a seal."""
    floors = _floors(connection, connection.execute(text(SELECT_LAST_BLOCK)).one_or_none())
    counts = (
        connection.scalar(text(f"SELECT count(*) {source.from_unsealed}"), {"floor": floors[source.name]})
        for source in SOURCES
    )
    return sum(count or 0 for count in counts)


def head() -> str | None:
    """The last block as NUMBER:HASH, to be kept outside this database. Raises Unavailable."""
    with map_db_errors(), engine().begin() as connection:
        last = connection.execute(text(SELECT_LAST_BLOCK)).one_or_none()
    return f"{last.number}:{last.block_hash.hex()}" if last else None


def header(block: Any) -> dict[str, Any]:
    """A block's header as it is hashed and published: numbers, hashes in hex, the time in UTC."""
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


def _log_block(block: _Block | None) -> int:
    """Log a committed block's hash and return its number of rows. Logs are kept elsewhere, so an attacker who
    rewrites the whole chain cannot change the hash there.
    """
    if block is None:
        return 0
    log.info("[SEAL] sealed", block=block.number, rows=block.leaf_count, block_hash=block.block_hash.hex())
    return block.leaf_count


def _seal_block(connection: Connection, floors: dict[str, int] | None = None) -> _Block | None:
    """Write one block of the unsealed rows above `floors`, by default computed from earlier blocks. Returns
    None if there are none. The caller holds the sealers' lock.
    """
    last = connection.execute(text(SELECT_LAST_BLOCK)).one_or_none()
    floors = floors or _floors(connection, last)
    unsealed = {source.name: _unsealed(connection, source, floors[source.name]) for source in SOURCES}
    rows = [(source, row) for source, source_rows in unsealed.items() for row in source_rows]
    if not rows:
        return None
    salts = [secrets.token_bytes(SALT_BYTES) for _ in rows]
    hashes = [proofs.row_hash(salt, row.text) for salt, (_, row) in zip(salts, rows, strict=True)]
    block = _write_block(connection, last, unsealed, hashes)
    leaves = {
        "block": block.number,
        "sources": [source for source, _ in rows],
        "ids": [row.id for _, row in rows],
        "withdrawals": [row.withdrawal_id for _, row in rows],
        "salts": salts,
        "hashes": hashes,
    }
    connection.execute(text(INSERT_LEAVES), leaves)
    return block


def _write_block(
    connection: Connection, last: Row[Any] | None, unsealed: dict[str, list[Row[Any]]], hashes: list[bytes]
) -> _Block:
    # Not now(): that is when this transaction began, and it may have waited for the lock since then.
    sealed_at, sealed_text = connection.execute(text(SELECT_NOW)).one()
    block = _Block(
        number=last.number + 1 if last else 1,
        version=BLOCK_VERSION,
        leaf_count=len(hashes),
        merkle_root=merkle.root(hashes),
        previous_hash=last.block_hash if last else proofs.NO_PREVIOUS_HASH,
        journal_to=_visible_to("journal", last, unsealed),
        events_to=_visible_to("events", last, unsealed),
        others_to={source.name: _visible_to(source.name, last, unsealed) for source in OTHER_SOURCES},
        sealed_at=sealed_at,
        sealed_text=sealed_text,
        is_full=any(len(source_rows) == MAX_ROWS_PER_SOURCE for source_rows in unsealed.values()),
    )
    others = json.dumps(block.others_to)
    connection.execute(
        text(INSERT_BLOCK), {**asdict(block), "block_hash": block.block_hash, "others": others}
    )
    return block


def _unsealed(connection: Connection, source: Source, floor: int) -> list[Row[Any]]:
    columns = f"r.id, {source.withdrawal_id} AS withdrawal_id, {source.row_text} AS text"
    query = f"SELECT {columns} {source.from_unsealed} ORDER BY r.id LIMIT {MAX_ROWS_PER_SOURCE}"
    return list(connection.execute(text(query), {"floor": floor}))


def _visible_to(source: str, last: Row[Any] | None, unsealed: dict[str, list[Row[Any]]]) -> int:
    """The id up to which every row that is visible now is sealed by this block or an earlier one."""
    previous = _sealed_to(last)[source] if last else 0
    rows = unsealed[source]
    if len(rows) == MAX_ROWS_PER_SOURCE:
        return int(rows[-1].id)  # more rows may follow it
    return max(previous, rows[-1].id if rows else 0)


def _floors(connection: Connection, last: Row[Any] | None) -> dict[str, int]:
    """The ids below which every row is sealed, so that a call scans an hour of rows and not the whole table.

    A block sealed every row that was visible up to an id. Rows not yet visible then were committed within an
    hour, and the last block, which is at least that much younger, sealed those up to an id of its own.
    """
    settled = None
    if last:
        before = last.sealed_at - timedelta(seconds=LATE_SECONDS)
        settled = connection.execute(text(SELECT_SETTLED_BLOCK), {"before": before}).one_or_none()
    if last is None or settled is None:
        return dict.fromkeys(proofs.COLUMNS, 0)
    return {source: min(to, _sealed_to(settled)[source]) for source, to in _sealed_to(last).items()}


def _sealed_to(block: Any) -> dict[str, int]:
    """For each source, the id up to which a block left no visible row unsealed. 0: it did not seal that
    source.
    """
    others = {source.name: 0 for source in OTHER_SOURCES} | (block.others_to or {})
    return {"journal": block.journal_to, "events": block.events_to, **others}
