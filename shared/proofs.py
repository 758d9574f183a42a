"""What anybody can check with a file alone: no database, no settings, nothing of ours to be trusted.

A proof leads from a withdrawal's rows to a block, along the chain to a certificate, and to a key:

    leaf        SHA-256(0x00, salt, row as JSON text)      the text stands in the proof as it was hashed
    root        the Merkle tree over a block's leaves      RFC 9162 §2.1, `shared/merkle.py`
    block       SHA-256(its header as canonical JSON)      the header holds the root and the block before
    certificate Ed25519 over the same kind of JSON         it holds the head of the chain

Canonical JSON is RFC 8785: keys sorted, no spaces, UTF-8. Ours holds only text and whole numbers.
"""

import base64
import json
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared import merkle
from shared.errors import BadRequest

# Goes up when COLUMNS change. A column that is added to a table later is not in here, so old hashes stay.
VERSION = 1
# What is hashed of a row: the JSON text [version, source, *these], as PostgreSQL's json_build_array has it.
# Times are UTC without a zone; `data` is an object within the array.
COLUMNS = {
    "journal": (
        "id", "user_id", "kind", "coins", "balance_after", "withdrawal_id", "reference", "reason", "actor",
        "created_at",
    ),
    "events": ("id", "withdrawal_id", "from_status", "to_status", "actor", "reason", "data", "created_at"),
    "audit": ("id", "at", "operator", "address", "action", "outcome", "subject", "reason", "data", "origin"),
    "reviews": (
        "id", "withdrawal_id", "why", "facts", "coins_amount", "upi_id", "requested_by", "outcome", "reason",
        "decided_by", "decided_at",
    ),
    "evidence": ("id", "of_table", "of_key", "was", "content", "at"),
}  # fmt: skip

PROOF, CERTIFICATE = "coin-payouts/withdrawal-proof", "coin-payouts/day-certificate"
NOTHING_BEFORE = bytes(32)  # the "hash before" of the first block and of the first certificate


class NotProven(BadRequest):
    """The file does not prove what it says: trust nothing in it."""

    def __init__(self, why: str) -> None:
        super().__init__("Not proven", why, code="not_proven")


@dataclass(frozen=True, slots=True)
class Proven:
    """What a file proves, in sentences, and the rows that it proves, by their columns' names."""

    sentences: list[str]
    rows: list[dict[str, Any]]


def canonical(value: dict[str, Any]) -> bytes:
    """The one way to write `value` (RFC 8785 for text and whole numbers)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def hash_of(value: dict[str, Any]) -> bytes:
    """The hash of a block's header or of a certificate, 32 bytes."""
    return sha256(canonical(value)).digest()


def row_hash(salt: bytes, row_text: str) -> bytes:
    """The leaf hash of a row. The salt keeps a neighbour, who sees only the hash, from guessing the row."""
    return merkle.leaf_hash(salt + row_text.encode())


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half of `key` in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def private_key(text: str) -> Ed25519PrivateKey:
    """The key whose 32-byte seed is `text` in base64. Raises ValueError."""
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))


def signature_fits(body: bytes, signature: bytes, public: str) -> bool:
    """Whether the key `public` (base64) signed `body`. Raises ValueError when it is no key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def verify(text: str, public_key: str | None = None) -> Proven:
    """Check a proof or a certificate. `public_key` (base64) is the key that you know to be the issuer's; what
    is signed is believed from no other one. Raises NotProven.
    """
    try:
        told = json.loads(text)
        if told.get("type") == PROOF:
            return _proof(told, public_key)
        if told["certificate"]["type"] == CERTIFICATE:
            return Proven([_certificate(told, public_key)], [])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError):
        pass  # whatever it is, somebody else wrote it
    raise NotProven("This is no proof and no certificate of ours, or it was damaged")


def _certificate(signed: dict[str, Any], public_key: str | None) -> str:
    body, signature = signed["certificate"], base64.b64decode(signed["signature"], validate=True)
    if public_key is None:
        raise NotProven(
            f"It says that {body['public_key']} signed it, but anybody can sign with a key of their own:"
            " give the issuer's key as you know it, with --public-key"
        )
    if body["public_key"] != public_key:
        raise NotProven("It was signed with another key than the one that you gave")
    if not signature_fits(canonical(body), signature, public_key):
        raise NotProven("The signature does not fit: the certificate was changed, or never signed")
    closing = body["closing"]
    outside = (
        f" ({closing['outside_coins']} of them outside RazorpayX)" if closing.get("outside_coins") else ""
    )
    return (
        f"The key {public_key} signed the books of {body['day']}: {closing['credited_coins']} coins credited"
        f" = {closing['balances_coins']} in balances + {closing['held_coins']} held"
        f" + {closing['paid_coins']} paid{outside}, at block {body['chain']['block']}"
        f" ({body['chain']['hash']})."
    )


def _proof(told: dict[str, Any], public_key: str | None) -> Proven:
    blocks = _chain(told["blocks"])
    rows = [_row(leaf, blocks) for leaf in told["leaves"]]
    _all_of(told["withdrawal_id"], told["user_id"], rows)
    head = told["blocks"][-1]
    whose = f"withdrawal {told['withdrawal_id']} of user {told['user_id']}"
    sentences = [
        f"{len(rows)} rows of {whose} are, to the letter, what was sealed in blocks"
        f" {min(blocks)} to {max(blocks)}. (That there are no others, it cannot prove.)"
    ]
    if told["certificate"] is None:
        sentences.append(
            f"No day's certificate covers them yet: compare block {head['number']}'s hash with one that you"
            f" trust: {hash_of(head).hex()}"
        )
        return Proven(sentences, rows)
    sentences.append(_certificate(told["certificate"], public_key))
    if told["certificate"]["certificate"]["chain"] != _place(head):
        raise NotProven("The chain of blocks does not lead to the certificate")
    return Proven(sentences, rows)


def _place(header: dict[str, Any]) -> dict[str, Any]:
    return {"block": header["number"], "hash": hash_of(header).hex()}


def _chain(headers: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    for one, following in pairwise(headers):
        if following["previous_hash"] != hash_of(one).hex() or following["number"] != one["number"] + 1:
            raise NotProven(f"Block {following['number']} does not continue block {one['number']}")
    return {header["number"]: header for header in headers}


def _row(leaf: dict[str, Any], blocks: dict[int, dict[str, Any]]) -> dict[str, Any]:
    text, header = leaf["row"], blocks[leaf["block"]]
    root = merkle.root_from_path(
        row_hash(bytes.fromhex(leaf["salt"]), text),
        leaf["position"],
        header["leaf_count"],
        [bytes.fromhex(sibling) for sibling in leaf["path"]],
    )
    if root is None or root.hex() != header["merkle_root"]:
        raise NotProven(f"A row does not lead to block {leaf['block']}: {text}")
    return read_row(text)


def _all_of(withdrawal_id: str, user_id: str, rows: list[dict[str, Any]]) -> None:
    """The journal names the user, and every row the withdrawal; a row told twice would look like two."""
    if {row["user_id"] for row in rows if row["source"] == "journal"} != {user_id}:
        raise NotProven("The journal's rows are not this user's")
    if {row["withdrawal_id"] for row in rows} != {withdrawal_id}:
        raise NotProven("A row is about another withdrawal")
    if len({(row["source"], row["id"]) for row in rows}) != len(rows):
        raise NotProven("A row is told twice")


def read_row(text: str) -> dict[str, Any]:
    """A hashed row by its columns' names, `source` first. Raises ValueError for another version."""
    version, source, *values = json.loads(text)
    if version != VERSION or len(values) != len(COLUMNS[source]):
        raise ValueError(f"version {version} of {source} is not known here")
    return {"source": source, **dict(zip(COLUMNS[source], values, strict=True))}
