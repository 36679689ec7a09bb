"""Accounts that share no input are matched coordinate by coordinate."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.attacks.sybil.matching import CoordinateMap, CoordinateMatcher
from tollkeeper.data import load_images
from tollkeeper.encoders.builtin_image import ImageEncoder
from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

Rng = np.random.Generator

PADS = 20


class Affine:
    """A test account's secret: diagonal affine, pads and an order, as B4B's code has them."""

    def __init__(self, dim: int, rng: Rng) -> None:
        self.scale, self.shift = rng.uniform(-1, 1, (2, dim)).astype(np.float32)
        self.pads = rng.standard_normal(PADS, dtype=np.float32)
        self.order = rng.permutation(dim + PADS)

    def __call__(self, clean: Embeddings) -> Embeddings:
        pads = np.tile(self.pads, (len(clean), 1))
        return np.hstack([clean * self.scale + self.shift, pads])[:, self.order]


def shards(clean: Embeddings, rng: Rng, *, noise: float) -> tuple[Embeddings, Embeddings]:
    """Return two halves of the rows, with noise in units of the coordinates' deviation."""
    dirty = clean + noise * clean.std(axis=0) * rng.standard_normal(clean.shape)
    one, other = np.array_split(dirty.astype(np.float32)[rng.permutation(len(clean))], 2)
    return one, other


def matched_share(found: CoordinateMap, source: Affine, target: Affine) -> float:
    """Return the share of the target's true coordinates made of the right source coordinate."""
    real = target.order < len(target.scale)
    return float((source.order[found.order] == target.order)[real].mean())


def rectified(rng: Rng, rows: int, dim: int) -> Embeddings:
    """Return non-negative, right-skewed and correlated features, as after a ReLU."""
    factors = rng.standard_normal((rows, 12)) @ rng.standard_normal((12, dim))
    own = rng.standard_normal((rows, dim))
    features = np.maximum(0, factors / 3 + own + rng.uniform(-1, 1, dim))
    return (features * rng.uniform(0.2, 2, dim)).astype(np.float32)


@pytest.mark.parametrize("noise", [0, 0.1])
def test_disjoint_shards_of_rectified_features_are_matched(noise: float) -> None:
    """2,000 answers an account match 95% of the coordinates and map unseen rows closely."""
    rng = np.random.default_rng(0)
    clean = rectified(rng, 4500, 64)
    here, there = Affine(64, rng), Affine(64, rng)
    one, other = shards(clean[:4000], rng, noise=noise)

    found = CoordinateMatcher().match(here(one), there(other), rng=rng)

    assert matched_share(found, here, there) >= 0.95
    mapped, truth = found(here(clean[4000:])), there(clean[4000:])
    assert mapped.dtype == np.float32
    assert np.square(mapped - truth).mean() < 0.02 * truth.var(axis=0).mean()
    assert found.agreement > 0.9


def test_disjoint_shards_of_a_real_encoder_are_matched(data_dir: Path) -> None:
    """2,000 CIFAR-10 images an account match 95% of the built-in encoder's coordinates."""
    images = load_images("cifar10", "test", environ={"TOLLKEEPER_DATA": str(data_dir)})
    rng = np.random.default_rng(0)
    clean = ImageEncoder().embed(images.inputs[:4000])
    here, there = Affine(clean.shape[1], rng), Affine(clean.shape[1], rng)
    for noise in (0, 0.1):
        one, other = shards(clean, rng, noise=noise)

        found = CoordinateMatcher().match(here(one), there(other), rng=rng)

        assert matched_share(found, here, there) >= 0.95


def test_features_without_a_lean_are_matched_too() -> None:
    """Where skewness tells no sign, correlations do."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((100, 100)) * rng.uniform(0, 1, 100) ** 3
    clean = (rng.standard_normal((8000, 100)) @ mixing.T).astype(np.float32)
    here, there = Affine(100, rng), Affine(100, rng)
    one, other = shards(clean, rng, noise=0.1)

    found = CoordinateMatcher().match(here(one), there(other), rng=rng)

    assert matched_share(found, here, there) >= 0.95
    truth = there(clean)
    moved = (found(here(clean)) - truth.mean(axis=0)) * (truth - truth.mean(axis=0))
    assert abs(np.sign(moved.mean(axis=0)).sum()) >= 0.95 * 100  # All right, or all turned.


def test_pads_come_back_as_they_are() -> None:
    """The target's constants are reproduced, the source's are never used."""
    rng = np.random.default_rng(2)
    here, there = Affine(24, rng), Affine(24, rng)
    one, other = shards(rectified(rng, 2000, 24), rng, noise=0)

    found = CoordinateMatcher().match(here(one), there(other), rng=rng)

    pads = there.order >= 24
    mapped = found(here(one))
    assert not found.scale[pads].any()
    np.testing.assert_allclose(mapped[:, pads], there(one)[:, pads], rtol=1e-6)
    assert (here.order[found.order[~pads]] < 24).all()


def test_agreement_tells_a_match_from_none() -> None:
    """Two accounts of different encoders agree on nothing, and the attacker can see it."""
    rng = np.random.default_rng(3)

    found = CoordinateMatcher().match(rectified(rng, 1000, 40), rectified(rng, 1000, 40), rng=rng)

    assert found.agreement < 0.6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pairing_is_the_best_of_all(seed: int) -> None:
    """At seven coordinates no other pairing makes the absolute correlations more alike."""
    rng = np.random.default_rng(seed)
    one, other = shards(rectified(rng, 6000, 7), rng, noise=0)
    hidden = other[:, rng.permutation(7)]

    found = CoordinateMatcher().match(one, hidden, rng=rng)

    mine, theirs = np.abs(np.corrcoef(one.T)), np.abs(np.corrcoef(hidden.T))

    def unlikeness(order: NDArray[np.intp]) -> float:
        return float(np.square(mine[np.ix_(order, order)] - theirs).sum())

    best = min(unlikeness(np.array(order)) for order in itertools.permutations(range(7)))
    assert unlikeness(found.order) == pytest.approx(best)


@pytest.mark.parametrize(("mine", "theirs"), [(30, 24), (24, 30)])
def test_coordinates_that_one_side_lacks_are_left_over(mine: int, theirs: int) -> None:
    """A wider side keeps coordinates without partner; they are the mean, the others are matched."""
    rng = np.random.default_rng(5)
    one, other = shards(rectified(rng, 4000, 30), rng, noise=0)

    found = CoordinateMatcher().match(one[:, :mine], other[:, :theirs], rng=rng)

    lonely = np.flatnonzero(found.scale == 0)
    both = np.arange(24)
    assert (found.order[both] == both).mean() >= 0.9
    assert len(lonely) == max(0, theirs - mine)
    np.testing.assert_allclose(found.shift[lonely], other.mean(axis=0)[lonely], rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 4), (9,), (9, 1)])
def test_what_has_no_statistics_is_refused(shape: tuple[int, ...]) -> None:
    """Few rows, a vector or a single coordinate get one line that says what was expected."""
    rng = np.random.default_rng(6)
    bad, good = rng.standard_normal(shape, np.float32), rng.standard_normal((9, 4), np.float32)
    with pytest.raises(InputError, match="expected"):
        CoordinateMatcher().match(bad, good, rng=rng)
    with pytest.raises(InputError, match="expected"):
        CoordinateMatcher().match(good, bad, rng=rng)
