"""Which tenants asked the same, as far as the samples in their sketches tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from tollkeeper.gateway.archive import Archive
from tollkeeper.types import Sketch, Tenant


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two tenants that asked the same.

    Attributes:
        first: a tenant.
        second: another one, on another pool.
        shared: estimated share of all their inputs that both asked, in [0, 1].
        seen: hashes of fine cells in which it was seen.
        coverage: of the two, each alone.
        united: coverage if they were linked.
    """

    first: str
    second: str
    shared: float
    seen: int
    coverage: tuple[float, float]
    united: float


def overlapping(own: Sequence[tuple[Tenant, Sketch]], archive: Archive) -> list[Overlap]:
    """Compare tenants that are on different pools, most shared first.

    Args:
        own: each with the sketch of what it asked itself.
        archive: gives their layout.
    """
    layout = archive.layout
    alone = [layout.fraction(sketch) for _, sketch in own]
    found = []
    for one, other in _meetings([sketch for _, sketch in own], archive):
        (first, mine), (second, theirs) = own[one], own[other]
        shared, seen = layout.shared(mine, theirs)
        if seen and first.pool != second.pool:
            united = layout.fraction(layout.merge(mine, theirs))
            covers = (alone[one], alone[other])
            found.append(Overlap(first.name, second.name, shared, seen, covers, united))
    return sorted(found, key=lambda pair: (-pair.shared, pair.first, pair.second))


def _meetings(sketches: Sequence[Sketch], archive: Archive) -> list[tuple[int, int]]:
    """Return the pairs of sketches with a hash in common; of thousands few have one."""
    holders: dict[int, list[int]] = {}
    for number, sketch in enumerate(sketches):
        for found in archive.layout.sample(sketch).tolist():
            if found:
                holders.setdefault(found, []).append(number)
    return sorted({pair for some in holders.values() for pair in combinations(some, 2)})
