"""Which pictures a run opens, and what is asked of them: recomputed by whoever checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.bundle import (
    ITEMS,
    OPENED,
    PUBLIC,
    array_digest,
    read_array,
    read_json,
    write_array,
    write_json,
)
from tollkeeper.audit.evidence.canonical import unhex
from tollkeeper.audit.evidence.case import SEEDS, Case, make_views
from tollkeeper.audit.evidence.commitment import Commitment
from tollkeeper.audit.evidence.merkle import Opening
from tollkeeper.audit.evidence.seeds import generator
from tollkeeper.audit.views import check_pictures
from tollkeeper.errors import AuditRefused, EvidenceError


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What a bundle shows of the owner's secrets.

    Attributes:
        items: (2m, h, w, 3) uint8; 2i and 2i + 1 are a drawn pair.
        public: (p, h, w, 3) uint8.
        openings: (2m,) of the items.
        seeds: by name.
        beacon: value that chose among the items together with a sealed seed; may be empty.
    """

    items: NDArray[np.uint8]
    public: NDArray[np.uint8]
    openings: tuple[Opening, ...]
    seeds: Mapping[str, bytes]
    beacon: str

    @classmethod
    def of(cls, case: Case, *, beacon: str) -> Self:
        """Open what a run needs of a case."""
        decision = case.fixed.decision
        pairs = draw(case.seeds["draw"], beacon, decision["draw"], decision["items"] // 2)
        places = np.column_stack([2 * pairs, 2 * pairs + 1]).ravel()
        tree = case.tree
        trained, hidden = case.sides.trained, case.salts
        return cls(
            items=case.sides.items[places],
            public=case.public,
            openings=tuple(
                Opening(hidden[place], place // 2, int(trained[place]), tree.proof(place))
                for place in places.tolist()
            ),
            seeds={name: case.seeds[name] for name in SEEDS},
            beacon=beacon,
        )

    @classmethod
    def read(cls, folder: Path, fixed: Commitment) -> Self:
        """Read what a bundle shows, and check all of it against the commitment.

        Raises:
            EvidenceError: something was not committed so, or not drawn so.
        """
        told = read_json(folder, OPENED)
        if not isinstance(told, dict) or set(told) != {"beacon", "openings", "seeds"}:
            raise EvidenceError(f"{OPENED}: expected beacon, openings and seeds")
        found = cls(
            items=_pictures(folder, ITEMS),
            public=_pictures(folder, PUBLIC),
            openings=tuple(Opening.from_json(each) for each in told["openings"]),
            seeds={name: unhex(told["seeds"].get(name), what=f"seed {name}") for name in SEEDS},
            beacon=str(told["beacon"]),
        )
        found.check(fixed)
        return found

    def write(self, folder: Path) -> None:
        """Write what `read` reads."""
        write_array(folder, ITEMS, self.items)
        write_array(folder, PUBLIC, self.public)
        told = {
            "beacon": self.beacon,
            "openings": [each.to_json() for each in self.openings],
            "seeds": {name: seed.hex() for name, seed in self.seeds.items()},
        }
        write_json(folder, OPENED, told)

    @property
    def coins(self) -> NDArray[np.bool_]:
        """(m,) whether the first picture of each pair is the trained one."""
        return np.array([each.coin == 1 for each in self.openings[::2]], np.bool_)

    def check(self, fixed: Commitment) -> None:
        """Check everything that is shown against the commitment.

        Raises:
            EvidenceError: names what does not hold.
        """
        for name in SEEDS:
            fixed.unseal(name, self.seeds[name])
        fixed.match("public", array_digest(self.public))
        decision, root = fixed.decision, fixed.root("items")
        if len(self.items) != len(self.openings):
            raise EvidenceError(f"{len(self.items)} items are shown, {len(self.openings)} opened")
        pairs = draw(self.seeds["draw"], self.beacon, decision["draw"], decision["items"] // 2)
        drawn = np.column_stack([2 * pairs, 2 * pairs + 1]).ravel().tolist()
        if [each.proof.index for each in self.openings] != drawn:
            raise EvidenceError("other items are opened than the sealed seed and the beacon draw")
        for item, opening in zip(self.items, self.openings, strict=True):
            opening.check(item, root)
        for first, second in zip(self.openings[::2], self.openings[1::2], strict=True):
            place = first.proof.index
            if (first.pair, second.pair, first.coin + second.coin) != (place // 2, place // 2, 1):
                raise EvidenceError(f"items {place} and {place + 1} are no pair with one coin")
            if first.proof.size != decision["items"]:
                raise EvidenceError("the tree has another size than was committed")

    def inputs(self, views: int) -> list[NDArray[np.uint8]]:
        """Return everything a run asks: K views of each item, then the public pictures."""
        made = make_views(self.seeds["views"], views)
        names = [each.proof.index for each in self.openings]
        asked = np.stack([made.make(self.items, view, names) for view in range(views)], axis=1)
        return [*asked.reshape(-1, *self.items.shape[1:]), *self.public]

    def generator(self, name: str, run: int) -> np.random.Generator:
        """Return a sealed generator of one run."""
        return generator(self.seeds[name], f"run {run}")


def draw(seed: bytes, beacon: str, count: int, among: int) -> NDArray[np.intp]:
    """Return (count,) pairs that a run opens.

    The seed was sealed before the beacon's value was known, so nobody can look for a lucky draw.

    Args:
        seed: a sealed one.
        beacon: a value that the arbiter names, or a public one; empty where there is none.
        count: of pairs.
        among: how many there are.
    """
    chosen = hashlib.sha256(seed + beacon.strip().encode()).digest()
    return generator(chosen, "draw").permutation(among)[:count]


def _pictures(folder: Path, name: str) -> NDArray[np.uint8]:
    found: Any = read_array(folder, name)
    try:
        check_pictures(found)
    except AuditRefused as error:
        raise EvidenceError(f"{name}: {error}") from error
    return found
