"""Are the seals whole, and does every row still say what was sealed? Each difference is named.

The second kind of check beside the SQL of `checks.py`. It streams: a block at a time.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, text

from shared import evidence, merkle, proofs
from shared.sealing import BLOCKS, BOOKS, LATE_SECONDS, SOURCES, Source, header
from shared.settings import settings

ROWS_AT_ONCE = 2000  # of a stream, from the server
TABLE_OF = {source.word: source.table for source in SOURCES}

SAID = "every entry, event, review, audit line and version says what was sealed"
KEPT = "every decision, block, operator, key, endpoint and payee is as its last version"
MADE = "every seal is as it was made"
LATE = f"nothing was left unsealed for {LATE_SECONDS} seconds"
SIGNED = "every certificate is as it was signed, and its day was not added to"
TRUTHS = (SAID, MADE, LATE, SIGNED, KEPT)


@dataclass(frozen=True, slots=True)
class Fault:
    """A truth that does not hold, and the row, block or certificate that shows it."""

    truth: str
    name: str


@dataclass(frozen=True, slots=True)
class _Closed:
    """A good certificate: up to which block it saw, when its day ended, in seconds since 1970, and the words
    of the sources that the block's version knew.
    """

    block: int
    ends: float
    sources: frozenset[str]


def _first(column: str) -> str:
    return f"coalesce({', '.join(f'{source.word}.{column}' for source in SOURCES)})"


def _beside(source: Source) -> str:
    word = source.word
    return f"LEFT JOIN ({source.rows}) {word} ON l.source = '{word}' AND {word}.id = l.row_id"


# Read along the leaves' index, with each row looked up beside it: it begins at once and sorts nothing.
LEAVES = f"""
    SELECT l.*, {_first("text")} AS text, {_first("written")} AS written, {_first("about")} AS about,
           {_first("withdrawal_id")} AS row_withdrawal_id
    FROM seal_leaves l {" ".join(_beside(source) for source in SOURCES)}
    ORDER BY l.block, l.position
"""
CERTIFICATES = """
    SELECT c.number, c.day::text, c.block, c.body, c.certificate_hash, c.signature, b.block_hash, b.version
    FROM day_certificates c LEFT JOIN seal_blocks b ON b.number = c.block
    ORDER BY c.number
"""


def verify(connection: Connection) -> list[Fault]:
    """Every fault of the seals and of what they hold, as one repeatable-read `connection` sees them."""
    closed: list[_Closed] = []
    faults = list(_certificates(connection, closed))
    return [*faults, *_chain(connection, closed), *_left_behind(connection)]


def kept(connection: Connection) -> Iterator[Fault]:
    """Every row of evidence that is not as its last version says. It says nothing about the books: a day is
    closed in spite of it.
    """
    for name in evidence.faults(connection):
        yield Fault(KEPT, name)


def against(connection: Connection, heads: Iterable[tuple[int, str]]) -> Iterator[Fault]:
    """The chain held against blocks that are known from elsewhere. Without them nobody can tell that its end
    was cut off, leaves and all: what is left is whole.
    """
    for number, known in heads:
        asked = text("SELECT block_hash FROM seal_blocks WHERE number = :number")
        block_hash = connection.scalar(asked, {"number": number})
        if block_hash is None:
            last = connection.scalar(text("SELECT max(number) FROM seal_blocks")) or 0
            yield Fault(MADE, f"block {number} is missing: the chain ends with block {last}")
        elif block_hash.hex() != known:
            yield Fault(MADE, f"block {number} is another one than the head that was kept")


def _chain(connection: Connection, closed: Sequence[_Closed]) -> Iterator[Fault]:
    before: Row[Any] | None = None
    leaves = groupby(_stream(connection, LEAVES), key=attrgetter("block"))
    held = next(leaves, None)
    for block in _stream(connection, f"{BLOCKS} ORDER BY number"):
        yield from _link(block, before)
        while held and held[0] < block.number:
            yield from _without_block(*held)
            held = next(leaves, None)
        if held and held[0] == block.number:
            yield from _content(block, list(held[1]), closed)
            held = next(leaves, None)
        else:
            yield Fault(MADE, f"block {block.number}: all of its {block.leaf_count} leaves are gone")
        before = block
    while held:
        yield from _without_block(*held)
        held = next(leaves, None)


def _link(block: Row[Any], before: Row[Any] | None) -> Iterator[Fault]:
    """Each block has the hash that it says, and continues the one before."""
    expected = before.number + 1 if before else 1
    if block.number > expected:
        yield Fault(MADE, f"block {expected} is missing" + _and_more(block.number - expected - 1))
    elif block.previous_hash != (before.block_hash if before else proofs.NOTHING_BEFORE):
        yield Fault(MADE, f"block {block.number} does not continue the one before it")
    if proofs.hash_of(header(block)) != block.block_hash:
        yield Fault(MADE, f"block {block.number}: its header is not what its hash says")


def _without_block(number: int, leaves: Iterator[Row[Any]]) -> Iterator[Fault]:
    yield Fault(MADE, f"block {number} is missing: {sum(1 for _ in leaves)} leaves name it")


def _content(block: Row[Any], leaves: list[Row[Any]], closed: Sequence[_Closed]) -> Iterator[Fault]:
    """The leaves are those that the root was made of, and the rows say what the leaves say."""
    was = [leaf.leaf_hash for leaf in leaves]
    now = [proofs.row_hash(leaf.salt, leaf.text) if leaf.text else None for leaf in leaves]
    accused = SAID
    if [leaf.position for leaf in leaves] != list(range(block.leaf_count)):
        yield Fault(MADE, f"block {block.number}: {_missing_leaves(block, leaves)}")
    elif merkle.root(was) != block.merkle_root:
        if merkle.root([new or old for new, old in zip(now, was, strict=True)]) == block.merkle_root:
            accused = MADE  # the rows lead to the root: it is the leaves that were changed
        else:
            yield Fault(MADE, f"block {block.number}: its leaves are not those that its root was made of")
    for leaf, row_now in zip(leaves, now, strict=True):
        if row_now != leaf.leaf_hash or leaf.withdrawal_id != leaf.row_withdrawal_id:
            yield _blame(leaf, row_now, accused)
    over = [one for one in closed if one.block < block.number]
    for word in {leaf.source for leaf in leaves} if over else ():
        ends = max((one.ends for one in over if word in one.sources), default=0)
        for leaf in leaves:
            if leaf.source == word and leaf.written is not None and leaf.written < ends:
                yield Fault(SIGNED, f"{_name(leaf)} (written into a day that was closed)")


def _blame(leaf: Row[Any], row_now: bytes | None, accused: str) -> Fault:
    if row_now is None:
        return Fault(SAID, f"{_name(leaf)} (gone since block {leaf.block} sealed it)")
    if row_now != leaf.leaf_hash:
        what = "the leaf of " if accused is MADE else ""
        return Fault(accused, f"{what}{_name(leaf)} (changed since block {leaf.block} sealed it)")
    return Fault(MADE, f"the leaf of {_name(leaf)} (its row is of {leaf.row_withdrawal_id})")


def _left_behind(connection: Connection) -> Iterator[Fault]:
    for source in SOURCES:
        late = f"r.{source.time} < now() - interval '{LATE_SECONDS} seconds'"
        if source not in BOOKS:
            # Where an older release sealed until just now, these wait for their first seal: that is not late.
            late += f""" AND EXISTS (SELECT FROM seal_blocks WHERE version > 1
                AND sealed_at < now() - interval '{LATE_SECONDS} seconds')"""
        query = (
            f"SELECT '{source.word}' AS source, r.id AS row_id, {source.withdrawal} AS withdrawal_id,"
            f" {source.about} AS about {source.unsealed} AND {late}"
        )
        for row in connection.execute(text(query), {"floor": 0}):
            yield Fault(LATE, f"{_name(row)} (in no block)")


def _certificates(connection: Connection, closed: list[_Closed]) -> Iterator[Fault]:
    """Each certificate by itself, and the chain of them. The good ones are added to `closed`."""
    secret = settings().certificate_key
    ours = proofs.public_text(proofs.private_key(secret.get_secret_value())) if secret else None
    before, expected, was_ours = proofs.NOTHING_BEFORE.hex(), 1, False
    for row in connection.execute(text(CERTIFICATES)):
        name = f"the certificate of {row.day}"
        if row.number != expected:
            yield Fault(SIGNED, f"certificate {expected} is missing" + _and_more(row.number - expected - 1))
        body = _read(row)
        if body is None:
            yield Fault(SIGNED, f"{name} is not what was signed")
        else:
            if row.number == expected and body["previous"] != before:
                yield Fault(SIGNED, f"{name} does not continue the one before it")
            if row.block_hash is None or body["chain"] != {"block": row.block, "hash": row.block_hash.hex()}:
                yield Fault(SIGNED, f"{name} was signed over another block {body['chain']['block']}")
            if was_ours and body["public_key"] != ours:
                yield Fault(SIGNED, f"{name} was signed with a key that is not ours")
            was_ours = body["public_key"] == ours
            known = BOOKS if (row.version or 1) == 1 else SOURCES
            ends = datetime.fromisoformat(body["ends_at"]).timestamp()
            closed.append(_Closed(row.block, ends, frozenset(source.word for source in known)))
        before, expected = row.certificate_hash.hex(), row.number + 1


def _read(row: Row[Any]) -> dict[str, Any] | None:
    """The certificate in a row, or None when it is not the one that was signed."""
    try:
        body: dict[str, Any] = json.loads(row.body)
        fits = proofs.signature_fits(row.body.encode(), row.signature, body["public_key"])
        is_it = (body["day"], body["chain"]["block"], proofs.hash_of(body)) == (
            row.day, row.block, row.certificate_hash
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None
    return body if fits and is_it else None


def _stream(connection: Connection, query: str) -> Iterator[Row[Any]]:
    yield from connection.execute(text(query), execution_options={"yield_per": ROWS_AT_ONCE})


def _name(row: Row[Any]) -> str:
    """A row by its table, its id and its withdrawal, which the leaf knows when the row is gone."""
    about = f"withdrawal {row.withdrawal_id}" if row.withdrawal_id else row.about
    return f"{TABLE_OF[row.source]} {row.row_id}" + (f" of {about}" if about else "")


def _missing_leaves(block: Row[Any], leaves: list[Row[Any]]) -> str:
    places = {leaf.position for leaf in leaves}
    first = next((place for place in range(block.leaf_count) if place not in places), None)
    return f"{len(leaves)} leaves of {block.leaf_count}" + (f", none at {first}" if first is not None else "")


def _and_more(count: int) -> str:
    return f", and {count} more after it" if count > 0 else ""
