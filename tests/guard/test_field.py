"""The field is shared by near-duplicates, and no linear combination gets around that (law 5)."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.guard import Guard, profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.field import Field
from tollkeeper.guard.price import Geometric
from tollkeeper.guard.transform import Unchanged
from tollkeeper.types import Embeddings

DIM = 256
KEY = b"noise key of tests"
RNG = np.random.default_rng(0)
SPREAD = np.geomspace(3, 0.03, DIM)
SAMPLE = (RNG.standard_normal((400, DIM)) * SPREAD + 0.2).astype(np.float32)
CALIBRATION = Calibration.fit(SAMPLE, rng=RNG)


def draw(
    rows: NDArray[Any],
    scale: float = 1.0,
    *,
    key: bytes = KEY,
    calibration: Calibration = CALIBRATION,
) -> Embeddings:
    """Draw with the test's defaults."""
    clean = np.ascontiguousarray(rows, np.float32)
    return Field()(
        np.full(len(clean), scale),
        clean,
        key=key,
        identities=[],
        rng=np.random.default_rng(0),
        calibration=calibration,
    )


def near(count: int, cosine: float, *, seed: int = 1) -> NDArray[np.float64]:
    """Return an embedding and `count` others at a cosine to it, in random directions."""
    rng = np.random.default_rng(seed)
    center = SAMPLE[0] / np.linalg.norm(SAMPLE[0])
    away = rng.standard_normal((count, DIM))
    away -= np.outer(away @ center, center)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return np.concatenate([center[None], cosine * center + np.sqrt(1 - cosine**2) * away])


def expected(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariances that the kernel promises."""
    distances = np.sqrt(np.maximum(2 - 2 * rows @ rows.T, 0))
    np.fill_diagonal(distances, 0)
    covariances: NDArray[np.float64] = np.exp(-distances / Field().reach)
    return covariances


def best_weights(covariance: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights of sum 1 with the least variance."""
    steady = covariance + 1e-9 * np.eye(len(covariance))
    weights = np.linalg.solve(steady, np.ones(len(covariance)))
    best: NDArray[np.float64] = weights / weights.sum()
    return best


def test_the_mean_square_is_one() -> None:
    """Over distinct inputs the noise has mean 0 and the mean square of its scale's unit."""
    noise = draw(np.random.default_rng(2).standard_normal((1500, DIM)) * SPREAD)
    assert abs(noise.mean()) < 0.02
    assert abs(np.square(noise).mean() - 1) < 0.05


def test_noise_lies_where_embeddings_differ() -> None:
    """Three quarters follow the sample's spread; one quarter is left in every direction."""
    noise = draw(np.random.default_rng(2).standard_normal((1500, DIM)) * SPREAD)
    variances = noise.var(axis=0)
    shape = SAMPLE.var(axis=0) / SAMPLE.var(axis=0).mean()
    assert np.abs(variances / (0.75 * shape + 0.25) - 1).mean() < 0.12
    assert variances.min() > 0.1


@pytest.mark.parametrize("cosine", [0.9999, 0.999, 0.95, 0.5])
def test_correlation_follows_the_kernel(cosine: float) -> None:
    """Near-duplicates share their noise, others do not."""
    rows = near(100, cosine)
    found = [
        float(np.mean(noise[1:] @ noise[0]) / np.dot(noise[0], noise[0]))
        for noise in (draw(rows, key=bytes([k]) * 16) for k in range(12))
    ]
    assert abs(np.mean(found) - expected(rows)[0, 1]) < 0.05


@pytest.mark.parametrize("count", [2, 30, 400])
def test_no_combination_of_near_duplicates_averages_the_noise_away(count: int) -> None:
    """The best weights that know the kernel keep more than .8 of the variance."""
    rows = near(count, 0.999)
    weights = best_weights(expected(rows))
    kept = []
    for number in range(8):
        noise = draw(rows, key=bytes([number]) * 16)
        kept.append(np.square(weights @ noise).sum() / np.square(noise[0]).sum())
    assert 1 / np.linalg.solve(expected(rows), np.ones(len(rows))).sum() > 0.8
    assert np.mean(kept) > 0.8


def test_a_smooth_field_would_not_hold() -> None:
    """With a squared distance in the kernel thirty near-duplicates remove half of the noise."""
    rows = near(30, 0.999)
    smooth = np.exp(-np.maximum(2 - 2 * rows @ rows.T, 0) / (2 * 0.1**2))
    assert 1 / np.linalg.solve(smooth + 1e-9 * np.eye(31), np.ones(31)).sum() < 0.5


def test_levels_do_not_help_each_other() -> None:
    """Answers at every level up to the present one, best combined, keep nine tenths."""
    scales = 0.125 * 4.0 ** np.arange(4)
    row = near(1, 0.5)[:1]
    kept = []
    for number in range(30):
        noises = np.stack([s * draw(row, s, key=bytes([number]) * 16)[0] for s in scales])
        weights = best_weights(np.diag(scales**2))
        kept.append(np.square(weights @ noises).sum() / np.square(noises[0]).sum())
    assert np.mean(kept) > 0.9
    first, second = draw(row, 1.0)[0], draw(row, 2.0)[0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3


@pytest.mark.parametrize("count", [30, 400])
def test_near_duplicates_over_all_levels_keep_three_quarters(count: int) -> None:
    """Law 5 as a whole: near-duplicates, each answered at every level, in the best combination."""
    price = profiles.RECOMMENDED.price
    assert isinstance(price, Geometric)
    scales = price.first * price.growth ** np.arange(price.levels)
    rows = near(count, 0.999)
    covariance = np.kron(np.diag(scales**2), expected(rows))
    weights = best_weights(covariance).reshape(len(scales), -1)
    kept = []
    for number in range(6):
        key = bytes([number]) * 16
        noises = [scale * draw(rows, scale, key=key) for scale in scales]
        combined = sum(part @ noise for part, noise in zip(weights, noises, strict=True))
        kept.append(np.square(combined).sum() / np.square(noises[0][0]).sum())
    assert np.mean(kept) > 0.75


def test_the_best_linear_filter_finds_little() -> None:
    """With Gaussian embeddings a thief of 1,500 known pairs recovers more from white noise."""
    rng = np.random.default_rng(5)
    clean = (rng.standard_normal((2000, DIM)) * SPREAD).astype(np.float32)
    std = CALIBRATION.feature_std

    def left(noise: Embeddings) -> float:
        """Return the share of variance that ridge from noisy to clean does not recover."""
        noisy = clean + std * noise
        known, asked = noisy[:1500], noisy[1500:]
        gram = known.T @ known + 1e-3 * np.trace(known.T @ known) / DIM * np.eye(DIM)
        recovered = asked @ np.linalg.solve(gram, known.T @ clean[:1500])
        return float(np.square(recovered - clean[1500:]).sum() / np.square(clean[1500:]).sum())

    white = left(rng.standard_normal(clean.shape, dtype=np.float32))
    assert left(draw(clean)) > 1.4 * white


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Alone, in company and in reverse: the same bytes."""
    rows = SAMPLE[:40]
    whole = draw(rows)
    assert np.array_equal(draw(rows[::-1])[::-1], whole)
    for at in (0, 17, 39):
        assert np.array_equal(draw(rows[at : at + 1])[0], whole[at])


def test_tenants_of_a_deployment_share_their_noise() -> None:
    """Linked tenants that ask the same get one answer in two views: averaging removes nothing."""
    profile = replace(profiles.RECOMMENDED, keeps_norm=False, transform=Unchanged(), ceiling=None)
    guard = Guard(profile, CALIBRATION, secret=bytes(32))
    full = np.full(guard.sketch_bytes, 255, np.uint8)
    answers = [
        guard.admit(full, SAMPLE[:20], key=guard.tenant_key(name), rng=RNG).embeddings
        for name in ("one", "other")
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - SAMPLE[:20]).max() > 1


def test_another_key_is_another_field() -> None:
    """One field tells nothing linear of another."""
    rows = np.random.default_rng(6).standard_normal((3000, DIM)) * SPREAD
    one, other = draw(rows), draw(rows, key=b"another key of tests")
    fit = np.linalg.lstsq(one[:2000], other[:2000], rcond=None)[0]
    left = np.square(other[2000:] - one[2000:] @ fit).sum() / np.square(other[2000:]).sum()
    assert left > 0.95


def test_without_a_sample_noise_is_white() -> None:
    """Raw features have no shape to follow; zeros have a place too."""
    noise = draw(np.zeros((2, 8)), calibration=Calibration.identity(8))
    assert np.isfinite(noise).all()
    assert np.array_equal(noise[0], noise[1])


def test_the_field_never_changes_between_releases() -> None:
    """A pinned digest: answers past the knee survive upgrades too."""
    rows = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    drawn = draw(rows, 0.25, calibration=Calibration.identity(32))
    digest = hashlib.sha256(np.round(drawn * 2**10).astype(np.int32).tobytes()).hexdigest()[:16]
    assert digest == "50825a5efc6419a4"
