"""How the coins of randomized inclusion fell, so that anybody can toss them anew.

Two lines of the owner's log tell it. `pool`: the Merkle root of all pairs, coins not yet tossed,
and the seal of the owner's seed. `coins`: a beacon's value that was issued later, and the root
with the coins in it. Whoever is shown the seed computes every coin; whoever is shown an item and
its opening sees that it was in that pair before the beacon spoke.

That the first line is older than the beacon's value has to be shown by a stamp or a publication
of the log's head (`Draw.committed`); the owner's own clock shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.canonical import unhex
from tollkeeper.audit.evidence.log import Entry, Head
from tollkeeper.audit.evidence.merkle import UNTOSSED, Opening
from tollkeeper.audit.evidence.seeds import coins as toss
from tollkeeper.audit.evidence.seeds import unseal
from tollkeeper.errors import EvidenceError

POOL, COINS = "pool", "coins"
"""Kinds of the two lines."""

SEED = "coins"
"""Name under which the seed is sealed."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What may be shown to anybody.

    Attributes:
        pairs: m.
        pool: Merkle root before the coins, 64 hex digits.
        sealed: seal of the seed.
        beacon: the public value.
        root: Merkle root with the coins.
        committed: the log's head when the pool was committed, which a stamp should name.
    """

    pairs: int
    pool: str
    sealed: str
    beacon: str
    root: str
    committed: Head

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Self:
        """Return the draw that the lines of a checked log tell of.

        Raises:
            EvidenceError: it tells of none, of an unfinished one, or of more than one, of which
                the owner could have kept the luckier.
        """
        pools = [entry for entry in entries if entry.kind == POOL]
        tosses = [entry for entry in entries if entry.kind == COINS]
        if len(pools) != 1 or len(tosses) != 1 or tosses[0].seq < pools[0].seq:
            raise EvidenceError(
                f"expected one pool and then one toss in the log, got {len(pools)} and "
                f"{len(tosses)}"
            )
        first, second = pools[0], tosses[0]
        head = {"count": first.seq + 1, "hash": first.hash}
        try:
            told = {name: first.body[name] for name in ("pairs", "pool", "sealed")}
            told |= {name: second.body[name] for name in ("beacon", "root")}
        except KeyError as error:
            raise EvidenceError(f"the log's lines of a draw lack {error}") from error
        return cls.from_json({**told, "committed": head})

    def to_json(self) -> dict[str, Any]:
        """Return the draw as JSON knows it."""
        return {
            "pairs": self.pairs,
            "pool": self.pool,
            "sealed": self.sealed,
            "beacon": self.beacon,
            "root": self.root,
            "committed": {"count": self.committed.count, "hash": self.committed.hash},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the draw that `to_json` wrote.

        Raises:
            EvidenceError: it is malformed.
        """
        try:
            head = Head(value["committed"]["count"], value["committed"]["hash"])
            found = cls(
                value["pairs"],
                value["pool"],
                value["sealed"],
                value["beacon"],
                value["root"],
                head,
            )
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"a draw cannot be read: {error!r}") from error
        for name, text in (
            ("pool", found.pool),
            ("seal", found.sealed),
            ("root", found.root),
            ("head", head.hash),
        ):
            unhex(text, what=f"the {name} of a draw")
        counts = (found.pairs, head.count)
        if any(type(count) is not int or count < 1 for count in counts):
            raise EvidenceError(f"a draw has one or more pairs and lines, got {counts}")
        if not isinstance(found.beacon, str) or not found.beacon.strip():
            raise EvidenceError("a draw has the value of a beacon")
        return found

    def coins(self, seed: bytes) -> NDArray[np.bool_]:
        """Toss the coins anew.

        Args:
            seed: 32 bytes that the owner shows.

        Returns:
            (m,) whether the first item of each pair is the trained one.

        Raises:
            EvidenceError: it is not the seed that was sealed.
        """
        unseal(seed, self.sealed, name=SEED)
        return toss(seed, self.beacon, self.pairs)

    def check(
        self, place: int, item: Any, openings: tuple[Opening, Opening], coins: NDArray[np.bool_]
    ) -> None:
        """Check one item: that it was in its pair before the beacon, and has the coin it says.

        Args:
            place: 2i or 2i + 1 for an item of pair i.
            item: what is claimed to be there.
            openings: in the tree before the coins and in the one with them.
            coins: as `coins` returns.

        Raises:
            EvidenceError: another item, place or coin.
        """
        pair, side = divmod(place, 2)
        if not 0 <= pair < self.pairs:
            raise EvidenceError(f"expected an item of {2 * self.pairs}, got {place}")
        coin = int(coins[pair]) ^ side
        for opening, root, expected in zip(
            openings, (self.pool, self.root), (UNTOSSED, coin), strict=True
        ):
            found = (opening.pair, opening.coin, opening.proof.index, opening.proof.size)
            if found != (pair, expected, place, 2 * self.pairs):
                raise EvidenceError(
                    f"item {place}: expected pair {pair}, coin {expected}, leaf {place} of "
                    f"{2 * self.pairs}, got {found[0]}, {found[1]}, {found[2]} of {found[3]}"
                )
            opening.check(item, bytes.fromhex(root))
