"""Check that the seals are intact and that every row still matches its seal. Each difference is named.

This complements the SQL checks in `checks.py`. It streams rows and holds one block at a time.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, text

from shared.proof import evidence, merkle, proofs
from shared.proof.sealing import LATE_SECONDS, LEDGER_SOURCES, SELECT_BLOCKS, SOURCES, Source, header
from shared.settings import settings

FETCH_ROWS = 2000  # of a server-side cursor, in one round trip
TABLE_OF = {source.name: source.table for source in SOURCES}

ROWS_UNCHANGED = "every sealed journal entry, event, review, audit line and evidence version is unchanged"
EVIDENCE_UNCHANGED = "every decision, block, operator, key, endpoint and payee matches its last version"
CHAIN_UNCHANGED = "the chain of seals is complete and unchanged"
SEALED_IN_TIME = f"every row is sealed within {LATE_SECONDS} seconds"
CERTIFICATES_UNCHANGED = "every certificate is unchanged, and no row was added to a certified day"
INVARIANTS = (ROWS_UNCHANGED, CHAIN_UNCHANGED, SEALED_IN_TIME, CERTIFICATES_UNCHANGED, EVIDENCE_UNCHANGED)


@dataclass(frozen=True, slots=True)
class SealFault:
    """An invariant that does not hold, and the row, block or certificate that breaks it, with the reason."""

    invariant: str
    message: str


@dataclass(frozen=True, slots=True)
class _CertifiedDay:
    """A valid certificate: its block, the end of its day in seconds since 1970, and the names of the sources
    that the block's version seals.
    """

    block: int
    ends_at: float
    sources: frozenset[str]


def _coalesced(column: str) -> str:
    return f"coalesce({', '.join(f'{source.name}.{column}' for source in SOURCES)})"


def _left_join(source: Source) -> str:
    name = source.name
    return f"LEFT JOIN ({source.all_rows}) {name} ON l.source = '{name}' AND {name}.id = l.row_id"


# Reads the leaves' index and looks up each row, so the first rows arrive at once and nothing is sorted.
SELECT_LEAVES = f"""
    SELECT l.*, {_coalesced("text")} AS text, {_coalesced("written")} AS written, {_coalesced("subject")} AS subject,
           {_coalesced("withdrawal_id")} AS row_withdrawal_id
    FROM seal_leaves l {" ".join(_left_join(source) for source in SOURCES)}
    ORDER BY l.block, l.position
"""
SELECT_CERTIFICATES = """
    SELECT c.number, c.day::text, c.block, c.body, c.certificate_hash, c.signature, b.block_hash, b.version
    FROM day_certificates c LEFT JOIN seal_blocks b ON b.number = c.block
    ORDER BY c.number
"""


def check_seals(connection: Connection) -> list[SealFault]:
    """Every fault of the seals and the sealed rows, as one repeatable-read `connection` sees them."""
    certified_days: list[_CertifiedDay] = []
    faults = list(_check_certificates(connection, certified_days))
    return [*faults, *_check_chain(connection, certified_days), *_check_unsealed(connection)]


def check_evidence(connection: Connection) -> Iterator[SealFault]:
    """Every evidence row that differs from its last version. Such a fault does not affect the ledger, so a
    day can still be closed.
    """
    for message in evidence.faults(connection):
        yield SealFault(EVIDENCE_UNCHANGED, message)


def check_heads(connection: Connection, heads: Iterable[tuple[int, str]]) -> Iterator[SealFault]:
    """Compare the chain with block hashes that were kept outside this database. Only such a hash shows that
    blocks and their leaves were cut off the end: the rest of the chain stays valid.
    """
    for number, known_hash in heads:
        query = text("SELECT block_hash FROM seal_blocks WHERE number = :number")
        block_hash = connection.scalar(query, {"number": number})
        if block_hash is None:
            last = connection.scalar(text("SELECT max(number) FROM seal_blocks")) or 0
            yield SealFault(CHAIN_UNCHANGED, f"block {number} is missing: the chain ends with block {last}")
        elif block_hash.hex() != known_hash:
            yield SealFault(CHAIN_UNCHANGED, f"block {number} does not match the head that you gave")


def _check_chain(connection: Connection, certified_days: Sequence[_CertifiedDay]) -> Iterator[SealFault]:
    previous: Row[Any] | None = None
    leaves_by_block = groupby(_stream(connection, SELECT_LEAVES), key=attrgetter("block"))
    group = next(leaves_by_block, None)
    for block in _stream(connection, f"{SELECT_BLOCKS} ORDER BY number"):
        yield from _check_link(block, previous)
        while group and group[0] < block.number:
            yield from _missing_block(*group)
            group = next(leaves_by_block, None)
        if group and group[0] == block.number:
            yield from _check_leaves(block, list(group[1]), certified_days)
            group = next(leaves_by_block, None)
        else:
            yield SealFault(
                CHAIN_UNCHANGED, f"block {block.number}: all of its {block.leaf_count} leaves are missing"
            )
        previous = block
    while group:
        yield from _missing_block(*group)
        group = next(leaves_by_block, None)


def _check_link(block: Row[Any], previous: Row[Any] | None) -> Iterator[SealFault]:
    """Check that a block's hash is right and that the block continues the previous one."""
    expected = previous.number + 1 if previous else 1
    if block.number > expected:
        yield SealFault(
            CHAIN_UNCHANGED, f"block {expected} is missing" + _and_more(block.number - expected - 1)
        )
    elif block.previous_hash != (previous.block_hash if previous else proofs.NO_PREVIOUS_HASH):
        yield SealFault(CHAIN_UNCHANGED, f"block {block.number} does not continue the block before it")
    if proofs.document_hash(header(block)) != block.block_hash:
        yield SealFault(CHAIN_UNCHANGED, f"block {block.number}: its header does not match its hash")


def _missing_block(number: int, leaves: Iterator[Row[Any]]) -> Iterator[SealFault]:
    yield SealFault(CHAIN_UNCHANGED, f"block {number} is missing: {sum(1 for _ in leaves)} leaves name it")


def _check_leaves(
    block: Row[Any], leaves: list[Row[Any]], certified_days: Sequence[_CertifiedDay]
) -> Iterator[SealFault]:
    """Check that the leaves lead to the block's root and that the rows match the leaves."""
    leaf_hashes = [leaf.leaf_hash for leaf in leaves]
    row_hashes = [proofs.row_hash(leaf.salt, leaf.text) if leaf.text else None for leaf in leaves]
    broken = ROWS_UNCHANGED
    if [leaf.position for leaf in leaves] != list(range(block.leaf_count)):
        yield SealFault(CHAIN_UNCHANGED, f"block {block.number}: {_missing_leaves(block, leaves)}")
    elif merkle.root(leaf_hashes) != block.merkle_root:
        if (
            merkle.root([ours or leaf for ours, leaf in zip(row_hashes, leaf_hashes, strict=True)])
            == block.merkle_root
        ):
            broken = CHAIN_UNCHANGED  # the rows lead to the root, so the leaves were changed
        else:
            yield SealFault(CHAIN_UNCHANGED, f"block {block.number}: its leaves do not match its root")
    for leaf, row_hash in zip(leaves, row_hashes, strict=True):
        if row_hash != leaf.leaf_hash or leaf.withdrawal_id != leaf.row_withdrawal_id:
            yield _row_fault(leaf, row_hash, broken)
    earlier_days = [day for day in certified_days if day.block < block.number]
    for source in {leaf.source for leaf in leaves} if earlier_days else ():
        ends_at = max((day.ends_at for day in earlier_days if source in day.sources), default=0)
        for leaf in leaves:
            if leaf.source == source and leaf.written is not None and leaf.written < ends_at:
                yield SealFault(
                    CERTIFICATES_UNCHANGED, f"{_row_name(leaf)} (added to a day that was already certified)"
                )


def _row_fault(leaf: Row[Any], row_hash: bytes | None, broken: str) -> SealFault:
    if row_hash is None:
        return SealFault(ROWS_UNCHANGED, f"{_row_name(leaf)} (deleted since block {leaf.block} sealed it)")
    if row_hash != leaf.leaf_hash:
        what = "the leaf of " if broken is CHAIN_UNCHANGED else ""
        return SealFault(broken, f"{what}{_row_name(leaf)} (changed since block {leaf.block} sealed it)")
    return SealFault(
        CHAIN_UNCHANGED,
        f"the leaf of {_row_name(leaf)} (its row is about withdrawal {leaf.row_withdrawal_id})",
    )


def _check_unsealed(connection: Connection) -> Iterator[SealFault]:
    for source in SOURCES:
        late = f"r.{source.time_column} < now() - interval '{LATE_SECONDS} seconds'"
        if source not in LEDGER_SOURCES:
            # After an upgrade from a release that did not seal these, they are late only an hour after their
            # first seal.
            late += f""" AND EXISTS (SELECT FROM seal_blocks WHERE version > 1
                AND sealed_at < now() - interval '{LATE_SECONDS} seconds')"""
        query = (
            f"SELECT '{source.name}' AS source, r.id AS row_id, {source.withdrawal_id} AS withdrawal_id,"
            f" {source.subject} AS subject {source.from_unsealed} AND {late}"
        )
        for row in connection.execute(text(query), {"floor": 0}):
            yield SealFault(SEALED_IN_TIME, f"{_row_name(row)} (in no block)")


def _check_certificates(connection: Connection, certified_days: list[_CertifiedDay]) -> Iterator[SealFault]:
    """Check each certificate and their chain. Valid ones are added to `certified_days`."""
    secret = settings().certificate_key
    our_key = proofs.public_key_text(proofs.private_key(secret.get_secret_value())) if secret else None
    previous_hash = proofs.NO_PREVIOUS_HASH.hex()
    expected = 1
    previous_is_ours = False
    for row in connection.execute(text(SELECT_CERTIFICATES)):
        name = f"the certificate of {row.day}"
        if row.number != expected:
            more = _and_more(row.number - expected - 1)
            yield SealFault(CERTIFICATES_UNCHANGED, f"certificate {expected} is missing{more}")
        body = _parse_certificate(row)
        if body is None:
            yield SealFault(CERTIFICATES_UNCHANGED, f"{name} does not match its signature")
        else:
            if row.number == expected and body["previous"] != previous_hash:
                yield SealFault(CERTIFICATES_UNCHANGED, f"{name} does not continue the one before it")
            if row.block_hash is None or body["chain"] != {"block": row.block, "hash": row.block_hash.hex()}:
                yield SealFault(
                    CERTIFICATES_UNCHANGED,
                    f"{name} was signed over a different block {body['chain']['block']}",
                )
            if previous_is_ours and body["public_key"] != our_key:
                yield SealFault(CERTIFICATES_UNCHANGED, f"{name} was signed with a key that is not ours")
            previous_is_ours = body["public_key"] == our_key
            sealed_sources = LEDGER_SOURCES if (row.version or 1) == 1 else SOURCES
            ends_at = datetime.fromisoformat(body["ends_at"]).timestamp()
            names = frozenset(source.name for source in sealed_sources)
            certified_days.append(_CertifiedDay(row.block, ends_at, names))
        previous_hash = row.certificate_hash.hex()
        expected = row.number + 1


def _parse_certificate(row: Row[Any]) -> dict[str, Any] | None:
    """The certificate in a row, or None if it does not match its signature, day, block and hash."""
    try:
        body: dict[str, Any] = json.loads(row.body)
        is_signed = proofs.is_signature_valid(row.body.encode(), row.signature, body["public_key"])
        is_same = (body["day"], body["chain"]["block"], proofs.document_hash(body)) == (
            row.day, row.block, row.certificate_hash
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None
    return body if is_signed and is_same else None


def _stream(connection: Connection, query: str) -> Iterator[Row[Any]]:
    yield from connection.execute(text(query), execution_options={"yield_per": FETCH_ROWS})


def _row_name(row: Row[Any]) -> str:
    """A row's table, id and withdrawal. The leaf keeps the withdrawal even if the row is deleted."""
    subject = f"withdrawal {row.withdrawal_id}" if row.withdrawal_id else row.subject
    return f"{TABLE_OF[row.source]} {row.row_id}" + (f" of {subject}" if subject else "")


def _missing_leaves(block: Row[Any], leaves: list[Row[Any]]) -> str:
    positions = {leaf.position for leaf in leaves}
    first = next((position for position in range(block.leaf_count) if position not in positions), None)
    return f"{len(leaves)} leaves of {block.leaf_count}" + (f", none at {first}" if first is not None else "")


def _and_more(count: int) -> str:
    return f", and {count} more after it" if count > 0 else ""
