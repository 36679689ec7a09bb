"""What an accuser could choose to fit the suspect, taken out of the accuser's hands.

A claim of ownership is an accusation, and accusers lie too: with triggers that are adversarial
examples, most published schemes name models that never met the accuser's (Liu et al., "False Claims
against Model Ownership Resolution", USENIX Security 2024). Keys are taken from sealed seeds alone
and have to be older than the suspect (`tollkeeper.audit.watermarks.decoys`), coins are of a pool
that was committed (`tollkeeper.audit.evidence.draw`), independents go through the same test
(`tollkeeper.audit.gates.check_negative_controls`). Here is the rest: what is asked is drawn by the
arbiter, nobody owns what is public, and of two claims the earlier one counts.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.merkle import Opening
from tollkeeper.audit.gates import item_digest
from tollkeeper.errors import AuditRefused, EvidenceError
from tollkeeper.types import Batch


def check_unpublished(items: Batch, published: Iterable[bytes]) -> None:
    """Refuse items that anybody could have trained on: they tie nobody to the accuser.

    Exact copies are found; near ones are found by `gates.check_not_near` on public embeddings.

    Args:
        items: that the claim rests on, as they are asked.
        published: `gates.item_digest` of the items of public data sets, in the same form.

    Raises:
        AuditRefused: says how many; score the private part of a mixed set alone.
    """
    known = set(published)
    public = sum(item_digest(item) in known for item in items)
    if public:
        raise AuditRefused(
            f"{public} of {len(items)} items are public data, on which anybody may train; claim "
            "with private ones alone"
        )


def drawn(count: int, population: int, *, beacon: bytes) -> NDArray[np.intp]:
    """Return which committed items are asked: by a beacon issued after they were committed.

    Args:
        count: how many.
        population: leaves of the committed tree.
        beacon: public value that nobody could foresee, or the arbiter's own secret draw.

    Returns:
        (count,) different positions, in the order of asking.

    Raises:
        AuditRefused: more are wanted than there are, or no beacon.
    """
    if not 0 < count <= population or not beacon:
        raise AuditRefused(
            f"expected a beacon and to draw from 1 to {population} committed items, got {count}"
        )
    # Sorted by a keyed hash: the same on every machine and in every version of numpy.
    order = sorted(range(population), key=lambda at: hmac.digest(beacon, b"item %d" % at, "sha256"))
    return np.array(order[:count], np.intp)


def check_drawn(
    items: Batch,
    openings: Sequence[Opening],
    *,
    root: bytes,
    population: int,
    beacon: bytes,
) -> None:
    """Check that what is asked is what the beacon drew from what was committed.

    Items that an accuser hands over, such as adversarial examples, have no place in the tree; those
    that do and suit it best are rarely the ones that are drawn.

    Args:
        items: n in the order of asking.
        openings: of each.
        root: of the commitment.
        population: its leaves.
        beacon: as for `drawn`.

    Raises:
        EvidenceError: an item is another one, or was not committed.
    """
    if len(items) != len(openings):
        raise EvidenceError(f"expected an opening for each of {len(items)} items")
    places = drawn(len(items), population, beacon=beacon)
    for item, opening, place in zip(items, openings, places.tolist(), strict=True):
        if opening.proof.index != place or opening.proof.size != population:
            raise EvidenceError(
                f"expected item {place} of {population}, which the beacon drew, got item "
                f"{opening.proof.index} of {opening.proof.size}; items are drawn, never picked"
            )
        opening.check(item, root)


@dataclass(frozen=True, slots=True)
class Claim:
    """One party's claim to a suspect.

    Attributes:
        owner: who claims.
        stamped_at: UTC seconds of the earliest stamp of its commitment that others believe.
    """

    owner: str
    stamped_at: float


def earliest(claims: Sequence[Claim]) -> Claim:
    """Return the claim that counts where several parties claim one suspect.

    A thief can commit to data and marks of its own, and its model carries them; but it holds the
    victim's marks too, which were committed before.

    Raises:
        EvidenceError: no claim, or two of one time.
    """
    ranked = sorted(claims, key=lambda claim: claim.stamped_at)
    if not ranked or (len(ranked) > 1 and ranked[0].stamped_at == ranked[1].stamped_at):
        raise EvidenceError(
            f"of {len(ranked)} claims none was stamped before all others; get independent stamps"
        )
    return ranked[0]
