"""Stateless defenses: against slow oracles, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.bench.theft.perturb import MILD, STRONG, Noise, Perturbed, Rounding, TopK
from tollkeeper.bench.theft.probes import unit
from tollkeeper.bench.theft.scoring import recall_at_10
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.victims import ToyImageVictim, blobs
from tollkeeper.types import Embeddings


def rows(n: int = 6, dim: int = 12) -> Embeddings:
    """Return unit rows of both signs."""
    return unit(np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32))


def rng() -> np.random.Generator:
    """Return the draws of a test."""
    return np.random.default_rng(1)


def test_top_k_keeps_the_largest_features_by_size() -> None:
    """Of each row the k entries of largest size stay as they are; all others are 0."""
    given = rows()
    wanted = np.zeros_like(given)
    for number, row in enumerate(given):
        for at in sorted(range(len(row)), key=lambda at: -abs(row[at]))[:5]:
            wanted[number, at] = row[at]
    np.testing.assert_array_equal(TopK(5)(given, rng()), wanted)
    assert (wanted < 0).any()


def test_top_k_of_fewer_features_changes_nothing() -> None:
    """A narrow encoder keeps all it has."""
    np.testing.assert_array_equal(TopK(20)(rows(), rng()), rows())


def test_rounding_keeps_decimals() -> None:
    """Each entry becomes the nearest multiple of a tenth."""
    wanted = [[round(float(value), 1) for value in row] for row in rows()]
    np.testing.assert_allclose(Rounding(1)(rows(), rng()), wanted, atol=1e-7)


def test_noise_is_gaussian_and_fresh() -> None:
    """Noise has the stated deviation, and no two answers share it."""
    draws, given = rng(), np.zeros((200, 500), np.float32)
    first, second = (Noise(0.5)(given, draws) for _ in range(2))
    assert first.dtype == np.float32
    # 100,000 draws: the deviation's standard error is 0.0011.
    assert first.std() == pytest.approx(0.5, abs=0.006)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_a_perturbed_encoder_normalizes_first() -> None:
    """Without effect of its own the defense returns the victim's directions, nothing else."""
    victim, images = ToyImageVictim(), blobs(20)
    shown = Perturbed(victim, Noise(0.0), rng=rng())
    np.testing.assert_allclose(shown.embed(images), unit(victim.embed(images)), atol=1e-7)
    assert (shown.name, shown.dim, shown.accepts) == (victim.name, victim.dim, victim.accepts)


def test_asking_twice_averages_noise_away_but_not_rounding() -> None:
    """Two answers to one input differ under noise and are equal under rounding."""
    images = blobs(20)
    noisy = Perturbed(ToyImageVictim(), Noise(0.1), rng=rng())
    rounded = Perturbed(ToyImageVictim(), Rounding(1), rng=rng())
    clean = unit(ToyImageVictim().embed(images))
    one, many = (
        np.abs(np.mean([noisy.embed(images) for _ in range(times)], axis=0) - clean).mean()
        for times in (1, 25)
    )
    assert many < one / 3
    np.testing.assert_array_equal(rounded.embed(images), rounded.embed(images))


def test_mild_defenses_hurt_search_less_than_strong_ones() -> None:
    """Each of the six leaves a wide encoder more neighbors in its mild form."""
    given = unit(np.abs(np.random.default_rng(0).standard_normal((300, 512))).astype(np.float32))
    kept = {
        name: recall_at_10(given, defense(given, rng()))
        for name, defense in {**STRONG, **MILD}.items()
    }
    for name in STRONG:
        assert kept[f"{name}_mild"] > kept[name] + 0.2


@pytest.mark.parametrize("make", [lambda: TopK(0), lambda: Noise(-0.1), lambda: Noise(np.nan)])
def test_defenses_without_meaning_are_refused(make: object) -> None:
    """Keeping no feature and noise below zero are configuration errors."""
    assert callable(make)
    with pytest.raises(ConfigurationError, match="expected"):
        make()
