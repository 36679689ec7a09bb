"""Rotated accounts that share no input are aligned by the shape of their answers."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.attacks.sybil.alignment import RotationMatcher
from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

Rng = np.random.Generator


def leaning(rng: Rng, rows: int, dim: int) -> Embeddings:
    """Return skewed factors of falling strength, mixed."""
    factors = rng.exponential(size=(rows, dim)) * np.geomspace(3, 0.1, dim)
    mixed: Embeddings = (factors @ rotation(rng, dim)).astype(np.float32)
    return mixed


def rotation(rng: Rng, dim: int) -> Embeddings:
    """Return a random orthogonal matrix."""
    turn: Embeddings = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    return turn


def cosine(one: Embeddings, other: Embeddings) -> float:
    """Return the mean cosine of two sets of rows, after both lose the second one's mean."""
    a, b = one - other.mean(axis=0), other - other.mean(axis=0)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.einsum("ij,ij->i", a, b) / lengths).mean())


@pytest.mark.parametrize("noise", [0, 0.1])
def test_disjoint_shards_of_rotated_features_are_aligned(noise: float) -> None:
    """Unseen rows come out within a centered cosine of .95 where chance is 0."""
    rng = np.random.default_rng(0)
    clean = leaning(rng, 4500, 20)
    here, there = rotation(rng, 20), rotation(rng, 20)
    dirty = clean[:4000] + noise * clean.std() * rng.standard_normal((4000, 20), np.float32)
    matcher = RotationMatcher(rounds=15, most_rows=2000)

    found = matcher.match(dirty[:2000] @ here, dirty[2000:] @ there + 3, rng=rng)

    truth = clean[4000:] @ there + 3
    assert cosine(found(clean[4000:] @ here), truth) > 0.95
    assert abs(cosine(clean[4000:] @ here, truth)) < 0.5


def test_the_map_keeps_all_angles() -> None:
    """It is a rotation and a shift, and moves the source's mean to the target's."""
    rng = np.random.default_rng(1)
    source, target = leaning(rng, 300, 8), leaning(rng, 400, 8) @ rotation(rng, 8)

    found = RotationMatcher(rounds=3).match(source, target, rng=rng)

    np.testing.assert_allclose(found.matrix @ found.matrix.T, np.eye(8), atol=1e-9)
    np.testing.assert_allclose(found(source).mean(axis=0), target.mean(axis=0), atol=1e-4)


def test_equal_rngs_give_equal_maps() -> None:
    """The rows that are used are drawn from the rng."""
    rng = np.random.default_rng(2)
    source, target = leaning(rng, 300, 8), leaning(rng, 300, 8)
    matcher = RotationMatcher(rounds=2, most_rows=100)
    one, same, other = (
        matcher.match(source, target, rng=np.random.default_rng(seed)).matrix for seed in (5, 5, 6)
    )

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_cannot_be_rotations_of_each_other_is_refused() -> None:
    """Different widths and too few rows get one line that says what was expected."""
    rng = np.random.default_rng(3)
    rows = leaning(rng, 100, 8)
    with pytest.raises(InputError, match="one width"):
        RotationMatcher().match(rows, rows[:, :7], rng=rng)
    with pytest.raises(InputError, match="more than 30 rows"):
        RotationMatcher().match(rows, rows[:30], rng=rng)
