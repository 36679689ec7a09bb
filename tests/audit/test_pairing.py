"""Promises of pairing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.pairing import distinct, pairs
from tollkeeper.errors import AuditRefused


def rows(*degrees: float) -> NDArray[np.float32]:
    """Return unit vectors of the plane at angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_of_exact_copies_the_first_is_kept() -> None:
    """Items equal byte for byte are one item."""
    assert distinct(["a", "b", "a", "c", "b", "a"]).tolist() == [0, 1, 3]


def test_chains_of_near_copies_are_one_cluster() -> None:
    """If b is like a and c like b, only a is kept, though c is not like a."""
    items = ["a", "b", "c", "d", "e"]
    embeddings = rows(0, 5, 10, 90, 180)
    assert distinct(items, embeddings, near=0.995).tolist() == [0, 3, 4]
    assert distinct(items, embeddings, near=0.9999).tolist() == [0, 1, 2, 3, 4]


def test_an_exact_copy_joins_clusters_too() -> None:
    """Both kinds of copy make one chain."""
    assert distinct(["a", "b", "b"], rows(0, 90, 2)).tolist() == [0]


def test_clusters_that_are_trained_on_anyway_are_dropped() -> None:
    """A pool item that is like an item outside of the pool could never be held back."""
    kept = distinct(["a", "b", "c"], rows(0, 3, 90), others=rows(6, 200))
    assert kept.tolist() == [2]


def test_every_item_is_in_one_pair() -> None:
    """Nobody is paired twice; of an odd number one stays alone."""
    rng = np.random.default_rng(0)
    for count in (2, 3, 4, 5, 6, 7, 10, 11, 100, 101):
        for embeddings in (None, rng.normal(size=(count, 5)).astype(np.float32)):
            made = pairs(count, embeddings, rng=rng)
            assert made.shape == (count // 2, 2)
            assert len(set(made.ravel().tolist())) == count // 2 * 2
            assert 0 <= made.min() <= made.max() < count


def test_like_items_are_paired() -> None:
    """Twins are much closer than random pairs, and close doubles find each other."""
    rng = np.random.default_rng(1)
    half = rng.normal(size=(64, 8))
    embeddings = np.concatenate([half, half + 0.01 * rng.normal(size=half.shape)])
    made = pairs(128, embeddings.astype(np.float32), rng=rng)
    assert np.mean(made[:, 0] % 64 == made[:, 1] % 64) > 0.6

    cloud = rng.normal(size=(400, 8)).astype(np.float32)

    def apart(found: NDArray[np.intp]) -> float:
        return float(np.linalg.norm(cloud[found[:, 0]] - cloud[found[:, 1]], axis=1).mean())

    assert apart(pairs(400, cloud, rng=rng)) < 0.8 * apart(pairs(400, rng=rng))


def test_pairs_repeat_by_the_seed_and_equal_rows_do_no_harm() -> None:
    """The same seed gives the same pairs, also where all embeddings are the same."""
    flat = np.ones((20, 4), dtype=np.float32)
    first, again = (pairs(20, flat, rng=np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(set(first.ravel().tolist())) == 20


def test_unusable_items_are_refused() -> None:
    """One item, NaN, or embeddings of other items are clear errors."""
    rng = np.random.default_rng(0)
    with pytest.raises(AuditRefused, match="two or more different items"):
        pairs(1, rng=rng)
    with pytest.raises(AuditRefused, match="embeddings of 3 items"):
        pairs(3, rows(0, 1), rng=rng)
    with pytest.raises(AuditRefused, match="embeddings of 2 items"):
        distinct(["a", "b"], np.full((2, 2), np.nan, dtype=np.float32))
