"""Every leaf's path leads to the root of the tree, and nothing else does."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.proof import merkle

leaves_of = st.lists(st.binary(max_size=8), min_size=1, max_size=40).map(
    lambda data: [merkle.leaf_hash(item) for item in data]
)


def reference_root(hashes: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1 literally: split at the largest power of two below the number of leaves."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    left, right = reference_root(hashes[:split]), reference_root(hashes[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(leaves_of)
def test_the_root_matches_the_rfc(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == reference_root(leaves)


@pytest.mark.parametrize(
    ("count", "root"),
    [
        # The test tree of Certificate Transparency (google/certificate-transparency, merkle_tree_test.cc).
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_the_root_matches_a_published_one(count: int, root: str) -> None:
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    assert merkle.root([merkle.leaf_hash(bytes.fromhex(item)) for item in data[:count]]).hex() == root


@given(leaves_of)
def test_every_path_leads_to_the_root(leaves: list[bytes]) -> None:
    for position, leaf in enumerate(leaves):
        path = merkle.path(leaves, position)
        assert merkle.root_from_path(leaf, position, len(leaves), path) == merkle.root(leaves)


@given(leaves_of, st.data())
def test_a_path_with_one_flipped_bit_fails(leaves: list[bytes], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(leaves) - 1))
    hashes = [leaves[position], *merkle.path(leaves, position)]
    index = data.draw(st.integers(0, len(hashes) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = int.from_bytes(hashes[index]) ^ (1 << bit)
    hashes[index] = flipped.to_bytes(32)
    assert merkle.root_from_path(hashes[0], position, len(leaves), hashes[1:]) != merkle.root(leaves)


@given(st.integers(1, 40), st.data())
def test_a_path_is_valid_for_its_own_position_only(count: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(count)]
    position, other = data.draw(st.integers(0, count - 1)), data.draw(st.integers(-1, count))
    path = merkle.path(leaves, position)
    leads_there = merkle.root_from_path(leaves[position], other, count, path) == merkle.root(leaves)
    assert leads_there == (position == other)


@given(leaves_of, st.data())
def test_a_path_that_is_too_short_or_too_long_fails(leaves: list[bytes], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.path(leaves, position)
    assert merkle.root_from_path(leaves[position], position, len(leaves), [*path, bytes(32)]) is None
    if path:
        assert merkle.root_from_path(leaves[position], position, len(leaves), path[:-1]) is None


def test_a_node_cannot_pass_for_a_leaf() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.root([left, right])


def test_a_leaf_that_does_not_exist_has_no_path() -> None:
    with pytest.raises(IndexError):
        merkle.path([bytes(32)], 1)
