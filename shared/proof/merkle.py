"""A Merkle tree over SHA-256 as in RFC 9162 §2.1 (and RFC 6962), so any standard verifier accepts our proofs.

Leaves are hashed with a 0x00 prefix and nodes with a 0x01 prefix, so one cannot pass for the other.
"""

from collections.abc import Sequence
from hashlib import sha256


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf, 32 bytes."""
    return sha256(b"\x00" + data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in order. Without leaves, it is the hash of the empty string."""
    if not leaves:
        return sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def path(leaves: Sequence[bytes], position: int) -> list[bytes]:
    """The sibling hashes that lead from the leaf at `position` (from 0) to the root, lowest level first.

    Raises IndexError if there is no such leaf.
    """
    if not 0 <= position < len(leaves):
        raise IndexError(position)
    siblings = []
    level = list(leaves)
    while len(level) > 1:
        sibling = position ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        level = _level_above(level)
        position //= 2
    return siblings


def root_from_path(leaf: bytes, position: int, count: int, siblings: Sequence[bytes]) -> bytes | None:
    """The root computed from a leaf hash and its path (RFC 9162 §2.1.3.2). None if the path has the wrong
    length for `position` in a tree of `count` leaves.
    """
    if not 0 <= position < count:
        return None
    node = leaf
    last = count - 1
    for sibling in siblings:
        if last == 0:
            return None
        if position % 2 or position == last:
            node = _node_hash(sibling, node)
            while position and not position % 2:  # the last node of a level can rise several levels unpaired
                position //= 2
                last //= 2
        else:
            node = _node_hash(node, sibling)
        position //= 2
        last //= 2
    return node if last == 0 else None


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _level_above(level: list[bytes]) -> list[bytes]:
    above = [_node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
    # An unpaired node rises unchanged, which gives the same tree as the RFC's split at a power of two.
    return above + level[-1:] if len(level) % 2 else above
