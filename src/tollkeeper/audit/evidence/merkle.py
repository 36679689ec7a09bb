"""A Merkle tree over salted items: one hash commits to all, each can be opened alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tollkeeper.audit.evidence.canonical import HASH_BYTES, item_bytes, unhex
from tollkeeper.errors import AuditRefused, EvidenceError
from tollkeeper.types import Batch

SALT_BYTES = 32
UNTOSSED = 2
"""The coin of an item before its pair's coin is known."""

_LEAF, _NODE = b"\0", b"\1"
_PAIR_BYTES = 8
_MOST = 1 << (8 * _PAIR_BYTES)


def leaf_hash(item: Any, *, salt: bytes, pair: int, coin: int) -> bytes:
    """Return SHA-256(0x00 || salt || canonical bytes of the item || pair || coin).

    All parts but the item have a fixed size, so no two openings share a byte string. The salt
    hides the item and the coin from everybody who can guess them.

    Args:
        item: anything that `canonical.item_bytes` takes.
        salt: 32 bytes that nobody can guess.
        pair: number of the pair, or of the item where there are no pairs; 8 bytes, big end first.
        coin: 1 for the trained item of a pair, 0 for its twin, `UNTOSSED` before; one byte.

    Raises:
        AuditRefused: a part is out of range.
    """
    if len(salt) != SALT_BYTES or not 0 <= pair < _MOST or coin not in {0, 1, UNTOSSED}:
        raise AuditRefused(
            f"a leaf takes a salt of {SALT_BYTES} bytes, a pair number of 64 bits and a coin of 0, "
            f"1 or {UNTOSSED}, got {len(salt)} bytes, {pair} and {coin}"
        )
    tail = pair.to_bytes(_PAIR_BYTES, "big") + bytes([coin])
    return hashlib.sha256(_LEAF + salt + item_bytes(item) + tail).digest()


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf is the one at `index` of a tree of `size` leaves.

    Attributes:
        index: of the leaf, from 0.
        size: leaves of the tree.
        path: the sibling hashes from the leaf upwards.
    """

    index: int
    size: int
    path: tuple[bytes, ...]

    def check(self, leaf: bytes, root: bytes) -> None:
        """Check a leaf against a root.

        Raises:
            EvidenceError: the leaf is not in the tree of that root at that place.
        """
        if not 0 <= self.index < self.size or self._climb(leaf) != root:
            raise EvidenceError(
                f"leaf {self.index} of {self.size} does not belong to the root {root.hex()}: its "
                "item, salt, pair, coin or proof was changed"
            )

    def _climb(self, leaf: bytes) -> bytes | None:
        """Return the root that the path leads to; None if it is too long or too short."""
        node, at, last = leaf, self.index, self.size - 1
        for sibling in self.path:
            if not last:
                return None
            if at % 2 or at == last:
                # The last node of a level has no right sibling; it rises until it is one.
                while at % 2 == 0:
                    at, last = at // 2, last // 2
                node = _parent(sibling, node)
            else:
                node = _parent(node, sibling)
            at, last = at // 2, last // 2
        return node if not last else None

    def to_json(self) -> dict[str, Any]:
        """Return the proof as JSON knows it."""
        return {"index": self.index, "size": self.size, "path": [node.hex() for node in self.path]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the proof that `to_json` wrote.

        Raises:
            EvidenceError: it is malformed.
        """
        try:
            index, size, path = value["index"], value["size"], value["path"]
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"a proof has index, size and path: {error} is missing") from error
        if type(index) is not int or type(size) is not int or not isinstance(path, list):
            raise EvidenceError("a proof has a whole index and size and a list of hashes")
        return cls(index, size, tuple(unhex(node, what="a proof's hash") for node in path))


class Tree:
    """A binary hash tree of RFC 6962, section 2.1: the left half is the largest full one.

    No leaf is doubled to fill a level, so lists of different lengths never share a root, and
    leaves and nodes are hashed with different first bytes, so neither passes for the other.

    Attributes:
        root: 32 bytes.
        size: number of leaves.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        """Hash the (n,) leaves together.

        Raises:
            AuditRefused: there is no leaf, or one is not a hash.
        """
        if not leaves or any(len(leaf) != HASH_BYTES for leaf in leaves):
            raise AuditRefused(f"a tree takes one or more leaves of {HASH_BYTES} bytes")
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            above = [_parent(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
            self._levels.append(above + level[len(above) * 2 :])
        self.root = self._levels[-1][0]
        self.size = len(leaves)

    def proof(self, index: int) -> Proof:
        """Return the proof of one leaf.

        Raises:
            AuditRefused: there is no such leaf.
        """
        if not 0 <= index < self.size:
            raise AuditRefused(f"expected a leaf from 0 to {self.size - 1}, got {index}")
        path, at = [], index
        for level in self._levels[:-1]:
            if (at ^ 1) < len(level):
                path.append(level[at ^ 1])
            at //= 2
        return Proof(index, self.size, tuple(path))


@dataclass(frozen=True, slots=True)
class Opening:
    """All that another party needs, beside the item, to check one leaf; other leaves stay hidden.

    Attributes:
        salt: 32 bytes.
        pair: number of the pair.
        coin: 1, 0 or `UNTOSSED`.
        proof: where the leaf is.
    """

    salt: bytes
    pair: int
    coin: int
    proof: Proof

    def check(self, item: Any, root: bytes) -> None:
        """Check that this item was committed under a root.

        Raises:
            EvidenceError: it was not, or a part was changed.
        """
        leaf = leaf_hash(item, salt=self.salt, pair=self.pair, coin=self.coin)
        self.proof.check(leaf, root)

    def to_json(self) -> dict[str, Any]:
        """Return the opening as JSON knows it, without the item."""
        return {
            "salt": self.salt.hex(),
            "pair": self.pair,
            "coin": self.coin,
            "proof": self.proof.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the opening that `to_json` wrote.

        Raises:
            EvidenceError: it is malformed.
        """
        try:
            salt, pair, coin, proof = (value[name] for name in ("salt", "pair", "coin", "proof"))
        except (KeyError, TypeError) as error:
            raise EvidenceError(
                f"an opening has salt, pair, coin and proof: {error} is missing"
            ) from error
        if type(pair) is not int or type(coin) is not int:
            raise EvidenceError("an opening has a whole pair number and coin")
        salt = unhex(salt, what="a salt", size=SALT_BYTES)
        return cls(salt, pair, coin, Proof.from_json(proof))


def commit(
    items: Batch,
    *,
    salts: Sequence[bytes],
    pairs: Sequence[int],
    coins: Sequence[int] | None = None,
) -> Tree:
    """Return the tree over n items in their order.

    Args:
        items: n inputs.
        salts: n times 32 bytes, each used once.
        pairs: n pair numbers.
        coins: n coins; None while they are not tossed.

    Raises:
        AuditRefused: there is no item, the numbers of parts differ, or a part is out of range.
    """
    tossed = [UNTOSSED] * len(items) if coins is None else coins
    if not len(items) == len(salts) == len(pairs) == len(tossed):
        raise AuditRefused(
            f"expected a salt, a pair and a coin for each of {len(items)} items, got {len(salts)}, "
            f"{len(pairs)} and {len(tossed)}"
        )
    return Tree(
        [
            leaf_hash(item, salt=salt, pair=int(pair), coin=int(coin))
            for item, salt, pair, coin in zip(items, salts, pairs, tossed, strict=True)
        ]
    )


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
