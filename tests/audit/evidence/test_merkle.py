"""Promises of the Merkle tree."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.audit.evidence.merkle import (
    UNTOSSED,
    Opening,
    Proof,
    Tree,
    commit,
    leaf_hash,
)
from tollkeeper.audit.evidence.seeds import salts
from tollkeeper.errors import AuditRefused, EvidenceError

SALTS = salts(b"s" * 32, 20)


def oracle(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word: split at the largest power of two below n."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    halves = oracle(leaves[:split]) + oracle(leaves[split:])
    return hashlib.sha256(b"\1" + halves).digest()


def leaves(count: int) -> list[bytes]:
    """Return hashes that stand for leaves."""
    return [hashlib.sha256(bytes([index])).digest() for index in range(count)]


@pytest.mark.parametrize("count", range(1, 20))
def test_roots_are_those_of_the_standard_and_every_leaf_opens(count: int) -> None:
    """For each number of leaves the root is RFC 6962's and each proof leads to it."""
    given = leaves(count)
    tree = Tree(given)

    assert tree.root == oracle(given)
    for index, leaf in enumerate(given):
        proof = Proof.from_json(tree.proof(index).to_json())
        proof.check(leaf, tree.root)
        for other in set(given) - {leaf}:
            with pytest.raises(EvidenceError, match="does not belong"):
                proof.check(other, tree.root)


def test_a_proof_holds_at_its_own_place_only() -> None:
    """Another index or size, a longer, a shorter or a changed path is refused."""
    given = leaves(7)
    tree = Tree(given)
    for index in range(7):
        proof = tree.proof(index)
        forged = [replace(proof, index=other) for other in (*range(7), 7, -1) if other != index]
        forged += [replace(proof, size=size) for size in (0, 1, 3, 14, 100)]
        forged += [
            replace(proof, path=proof.path[:-1]),
            replace(proof, path=(*proof.path, given[0])),
        ]
        forged += [replace(proof, path=(given[0], *proof.path[1:]))] if index != 1 else []
        for each in forged:
            with pytest.raises(EvidenceError, match="does not belong"):
                each.check(given[index], tree.root)


def test_a_node_does_not_pass_for_a_leaf() -> None:
    """The two children of a node, given as an item, do not open the node."""
    given = leaves(4)
    inner = Tree(given[:2]).root
    shorter = Tree([inner, Tree(given[2:]).root])
    assert shorter.root == Tree(given).root  # The shapes agree, so only the first byte protects.

    item = given[0] + given[1]
    with pytest.raises(EvidenceError):
        shorter.proof(0).check(leaf_hash(item, salt=b"\1" * 32, pair=0, coin=0), shorter.root)


def test_a_list_with_its_last_item_twice_has_another_root() -> None:
    """No leaf is doubled to fill a level."""
    assert Tree(leaves(3)).root != Tree([*leaves(3), leaves(3)[-1]]).root


def test_an_opening_reveals_one_item_and_any_change_breaks_it() -> None:
    """Item, salt, pair and coin of a leaf are each bound by the root."""
    items = [np.full((2, 2, 3), index, dtype=np.uint8) for index in range(6)]
    pairs, coins = [0, 0, 1, 1, 2, 2], [1, 0, 0, 1, 1, 0]
    tree = commit(items, salts=SALTS[:6], pairs=pairs, coins=coins)
    for index, item in enumerate(items):
        opening = Opening(SALTS[index], pairs[index], coins[index], tree.proof(index))
        Opening.from_json(opening.to_json()).check(item, tree.root)

        changed = item.copy()
        changed[1, 1, 2] ^= 1
        with pytest.raises(EvidenceError):
            opening.check(changed, tree.root)
        for forged in (
            replace(opening, coin=1 - opening.coin),
            replace(opening, coin=UNTOSSED),
            replace(opening, pair=opening.pair + 1),
            replace(opening, salt=SALTS[7]),
        ):
            with pytest.raises(EvidenceError):
                forged.check(item, tree.root)


def test_a_leaf_hides_its_item_and_its_coin() -> None:
    """Under another salt the same item and coin have another hash."""
    first = leaf_hash("a text", salt=SALTS[0], pair=0, coin=1)
    assert first != leaf_hash("a text", salt=SALTS[1], pair=0, coin=1)
    assert first != leaf_hash("a text", salt=SALTS[0], pair=0, coin=0)


def test_the_leaf_is_what_the_page_says() -> None:
    """0x00, salt, canonical bytes, pair in eight bytes and the coin: anyone can write it anew."""
    expected = hashlib.sha256(
        b"\0" + SALTS[0] + b"text\nhello" + b"\0\0\0\0\0\0\1\2" + b"\1"
    ).digest()
    assert leaf_hash("hello", salt=SALTS[0], pair=258, coin=1) == expected


@pytest.mark.parametrize(
    ("salt", "pair", "coin"), [(b"short", 0, 0), (b"s" * 32, -1, 0), (b"s" * 32, 0, 3)]
)
def test_parts_out_of_range_are_refused(salt: bytes, pair: int, coin: int) -> None:
    """A salt of another size, a negative pair or an unknown coin is one clear error."""
    with pytest.raises(AuditRefused, match="a leaf takes"):
        leaf_hash("a", salt=salt, pair=pair, coin=coin)


def test_lists_of_different_lengths_are_refused() -> None:
    """So is a tree of nothing, and a leaf that is not there."""
    with pytest.raises(AuditRefused, match="for each of 2 items"):
        commit(["a", "b"], salts=SALTS[:1], pairs=[0, 0])
    with pytest.raises(AuditRefused, match="one or more leaves"):
        commit([], salts=[], pairs=[])
    with pytest.raises(AuditRefused, match="from 0 to 2"):
        Tree(leaves(3)).proof(3)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"index": 0, "size": 2},
        {"index": "0", "size": 2, "path": []},
        {"index": 0, "size": 2, "path": ["AB" * 32]},
        {"index": 0, "size": 2, "path": ["ab"]},
        {"index": 0, "size": 2, "path": [None]},
    ],
)
def test_a_malformed_proof_is_refused(value: dict[str, object]) -> None:
    """Missing parts, wrong types and hashes in another spelling never reach the check."""
    with pytest.raises(EvidenceError):
        Proof.from_json(value)
    with pytest.raises(EvidenceError):
        Opening.from_json({"salt": "00" * 32, "pair": 0, "coin": 0, "proof": value})
