"""Draws by an arbiter, public data, and claims that compete."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.claims import Claim, check_drawn, check_unpublished, drawn, earliest
from tollkeeper.audit.evidence.merkle import Opening, Tree, commit
from tollkeeper.audit.gates import item_digest
from tollkeeper.errors import AuditRefused, EvidenceError

BEACON = b"beacon of the day"


def _pool(count: int = 30) -> tuple[np.ndarray, list[bytes], Tree]:
    items = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    salts = [bytes([place]) * 32 for place in range(count)]
    return items, salts, commit(items, salts=salts, pairs=range(count))


def _opened(salts: list[bytes], tree: Tree, places: list[int]) -> list[Opening]:
    return [Opening(salts[at], at, 2, tree.proof(at)) for at in places]


def test_public_items_are_refused() -> None:
    """One public item in a claim is found and counted; private ones pass."""
    items, _, _ = _pool()
    published = [item_digest(item) for item in items[:3]]
    check_unpublished(items[3:], published)
    with pytest.raises(AuditRefused, match="2 of 10 items are public data"):
        check_unpublished(items[1:11], published)


def test_a_beacon_draws_different_items_in_a_fixed_order() -> None:
    """The same beacon draws the same, another one others, none twice, all about as often."""
    first = drawn(10, 30, beacon=BEACON)
    np.testing.assert_array_equal(first, drawn(10, 30, beacon=BEACON))
    assert not np.array_equal(first, drawn(10, 30, beacon=b"another"))
    assert np.unique(first).size == 10
    counts = np.zeros(20)
    for number in range(200):
        counts[drawn(5, 20, beacon=b"%d" % number)] += 1
    assert counts.min() > 25
    assert counts.max() < 80


def test_what_was_drawn_and_committed_passes() -> None:
    """Openings of the drawn places hold."""
    items, salts, tree = _pool()
    places = drawn(6, 30, beacon=BEACON).tolist()
    check_drawn(
        items[places],
        _opened(salts, tree, places),
        root=tree.root,
        population=30,
        beacon=BEACON,
    )


def test_what_was_picked_or_swapped_is_refused() -> None:
    """Picked places, a changed item, and openings that are missing."""
    items, salts, tree = _pool()
    places = drawn(6, 30, beacon=BEACON).tolist()
    picked = [*places[:5], next(at for at in range(30) if at not in places)]
    with pytest.raises(EvidenceError, match="drawn, never picked"):
        check_drawn(
            items[picked],
            _opened(salts, tree, picked),
            root=tree.root,
            population=30,
            beacon=BEACON,
        )
    swapped = items[places].copy()
    swapped[2, 0, 0, 0] ^= 1
    openings = _opened(salts, tree, places)
    with pytest.raises(EvidenceError):
        check_drawn(swapped, openings, root=tree.root, population=30, beacon=BEACON)
    with pytest.raises(EvidenceError, match="an opening for each of 6"):
        check_drawn(items[places], openings[:5], root=tree.root, population=30, beacon=BEACON)


def test_draws_that_make_no_sense_are_refused() -> None:
    """None, too many, or no beacon."""
    for count, beacon in ((0, BEACON), (31, BEACON), (3, b"")):
        with pytest.raises(AuditRefused, match="1 to 30 committed items"):
            drawn(count, 30, beacon=beacon)


def test_the_earlier_claim_counts() -> None:
    """In any order; two of one time, and none at all, are refused."""
    victim, thief = Claim("victim", 10.0), Claim("thief", 20.0)
    assert earliest([thief, victim]) == earliest([victim, thief]) == victim
    for claims in ([], [victim, Claim("other", 10.0)]):
        with pytest.raises(EvidenceError, match="none was stamped before all others"):
            earliest(claims)
