"""Verify a proof or a certificate from its file alone: no database, no settings, no trust in our servers.

A proof leads from a withdrawal's rows to a block, along the chain to a certificate, and to a public key:

    leaf        SHA-256(0x00, salt, row as JSON text)      the proof contains the text as it was hashed
    root        the Merkle tree over a block's leaves      RFC 9162 §2.1, `shared/proof/merkle.py`
    block       SHA-256(its header as canonical JSON)      the header holds the root and the previous hash
    certificate Ed25519 over canonical JSON                it holds the head of the chain

Canonical JSON is RFC 8785: keys sorted, no spaces, UTF-8. Ours contains only text and whole numbers.
"""

import base64
import json
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import BadRequest
from shared.proof import merkle

# Increase it when COLUMNS change. Columns that are added to a table later are not hashed, so old hashes stay
# valid.
VERSION = 1
# The hashed text of a row is the JSON array [version, source, *columns] as PostgreSQL's json_build_array
# writes it. Times are UTC without a zone; `data` is an object within the array.
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

PROOF_TYPE = "coin-payouts/withdrawal-proof"
CERTIFICATE_TYPE = "coin-payouts/day-certificate"
NO_PREVIOUS_HASH = bytes(32)  # stands for the previous hash in the first block and in the first certificate


class NotProven(BadRequest):
    """The file does not prove its claims: trust nothing in it."""

    def __init__(self, details: str) -> None:
        super().__init__("Not proven", details, code="not_proven")


@dataclass(frozen=True, slots=True)
class VerifiedProof:
    """What a file proves, in sentences, and the proven rows, keyed by column name."""

    sentences: list[str]
    rows: list[dict[str, Any]]


def canonical_json(value: dict[str, Any]) -> bytes:
    """`value` as canonical JSON (RFC 8785, for text and whole numbers)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def document_hash(value: dict[str, Any]) -> bytes:
    """The hash of a block header or a certificate, 32 bytes."""
    return sha256(canonical_json(value)).digest()


def row_hash(salt: bytes, row_text: str) -> bytes:
    """The leaf hash of a row. The salt prevents people who see only the hash from guessing the row."""
    return merkle.leaf_hash(salt + row_text.encode())


def public_key_text(key: Ed25519PrivateKey) -> str:
    """The public key of `key`, in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def private_key(text: str) -> Ed25519PrivateKey:
    """The key whose 32-byte seed is `text`, in base64. Raises ValueError."""
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))


def is_signature_valid(body: bytes, signature: bytes, public_key: str) -> bool:
    """True if `public_key` (base64) signed `body`. Raises ValueError if it is not a key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(signature, body)
    except InvalidSignature:
        return False
    return True


def verify(text: str, public_key: str | None = None) -> VerifiedProof:
    """Verify a proof or a certificate. `public_key` (base64) is the issuer's key, known to you from another
    source; a signature by any other key is not accepted. Raises NotProven.
    """
    try:
        document = json.loads(text)
        if document.get("type") == PROOF_TYPE:
            return _verify_proof(document, public_key)
        if document["certificate"]["type"] == CERTIFICATE_TYPE:
            return VerifiedProof([_verify_certificate(document, public_key)], [])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError):
        pass  # the file comes from outside and can contain anything
    raise NotProven("This is not one of our proofs or certificates, or it is damaged")


def _verify_certificate(signed: dict[str, Any], public_key: str | None) -> str:
    body = signed["certificate"]
    signature = base64.b64decode(signed["signature"], validate=True)
    if public_key is None:
        raise NotProven(
            f"It claims to be signed by {body['public_key']}, but anyone can sign with their own key."
            " Pass the issuer's key, known to you from another source, with --public-key"
        )
    if body["public_key"] != public_key:
        raise NotProven("It was signed with a different key than the one you gave")
    if not is_signature_valid(canonical_json(body), signature, public_key):
        raise NotProven("The signature is not valid: the certificate was changed or was never signed")
    closing = body["closing"]
    outside = (
        f" ({closing['outside_coins']} of them outside RazorpayX)" if closing.get("outside_coins") else ""
    )
    return (
        f"The key {public_key} signed the totals of {body['day']}: {closing['credited_coins']} coins credited"
        f" = {closing['balances_coins']} in balances + {closing['held_coins']} held"
        f" + {closing['paid_coins']} paid{outside}, at block {body['chain']['block']}"
        f" ({body['chain']['hash']})."
    )


def _verify_proof(proof: dict[str, Any], public_key: str | None) -> VerifiedProof:
    blocks = _verify_chain(proof["blocks"])
    rows = [_verify_row(leaf, blocks) for leaf in proof["leaves"]]
    _check_ownership(proof["withdrawal_id"], proof["user_id"], rows)
    head = proof["blocks"][-1]
    sentences = [
        f"{len(rows)} rows of withdrawal {proof['withdrawal_id']} of user {proof['user_id']} are exactly as"
        f" sealed in blocks {min(blocks)} to {max(blocks)}. (It does not prove that there are no other rows.)"
    ]
    if proof["certificate"] is None:
        sentences.append(
            f"No day's certificate covers these rows yet. Compare the hash of block {head['number']} with one"
            f" that you trust: {document_hash(head).hex()}"
        )
        return VerifiedProof(sentences, rows)
    sentences.append(_verify_certificate(proof["certificate"], public_key))
    if proof["certificate"]["certificate"]["chain"] != _chain_position(head):
        raise NotProven("The chain of blocks does not lead to the certificate")
    return VerifiedProof(sentences, rows)


def _chain_position(header: dict[str, Any]) -> dict[str, Any]:
    return {"block": header["number"], "hash": document_hash(header).hex()}


def _verify_chain(headers: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    for header, following in pairwise(headers):
        is_next = following["number"] == header["number"] + 1
        if not is_next or following["previous_hash"] != document_hash(header).hex():
            raise NotProven(f"Block {following['number']} does not continue block {header['number']}")
    return {header["number"]: header for header in headers}


def _verify_row(leaf: dict[str, Any], blocks: dict[int, dict[str, Any]]) -> dict[str, Any]:
    text = leaf["row"]
    header = blocks[leaf["block"]]
    root = merkle.root_from_path(
        row_hash(bytes.fromhex(leaf["salt"]), text),
        leaf["position"],
        header["leaf_count"],
        [bytes.fromhex(sibling) for sibling in leaf["path"]],
    )
    if root is None or root.hex() != header["merkle_root"]:
        raise NotProven(f"A row does not lead to block {leaf['block']}: {text}")
    return parse_row(text)


def _check_ownership(withdrawal_id: str, user_id: str, rows: list[dict[str, Any]]) -> None:
    """Check that the journal rows name the user, that every row names the withdrawal, and that no row
    repeats.
    """
    if {row["user_id"] for row in rows if row["source"] == "journal"} != {user_id}:
        raise NotProven("The journal entries belong to another user")
    if {row["withdrawal_id"] for row in rows} != {withdrawal_id}:
        raise NotProven("A row is about another withdrawal")
    if len({(row["source"], row["id"]) for row in rows}) != len(rows):
        raise NotProven("A row appears twice")


def parse_row(text: str) -> dict[str, Any]:
    """A hashed row, keyed by column name, `source` first. Raises ValueError for an unknown version."""
    version, source, *values = json.loads(text)
    if version != VERSION or len(values) != len(COLUMNS[source]):
        raise ValueError(f"version {version} of {source} is not supported")
    return {"source": source, **dict(zip(COLUMNS[source], values, strict=True))}
