"""Promises of pixel levels and distances."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.signals import LevelShares, Nearness, color_detail
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images


def drawn(n: int, seed: int = 0) -> Images:
    """Return n pictures of 8 x 8 pixels on a black ground."""
    rng = np.random.default_rng(seed)
    strokes = rng.random((n, 1, 8, 8)) < 0.3
    return (strokes * rng.integers(100, 256, strokes.shape) / 255).astype(np.float32)


def test_shares_are_counted_per_picture() -> None:
    """The squares of the features are shares: three groups that sum to one each, counted slowly."""
    pictures = drawn(40)
    shares = LevelShares.fitted(pictures)
    found = shares(pictures[:3]) ** 2
    bins = int(shares.level_bins[-1]) + 1

    for row, picture in zip(found, pictures, strict=False):
        counted = np.zeros(bins)
        for value in picture.ravel():
            counted[shares.level_bins[round(float(value) * 255)]] += 1 / 64
        assert row[:bins] == pytest.approx(counted)
        assert row[bins:].sum() == pytest.approx(2)


def test_a_frequent_level_is_a_bin_of_its_own() -> None:
    """The background's level shares its bin with no other, so a step off it shows."""
    bins = LevelShares.fitted(drawn(200)).level_bins

    assert (bins == bins[0]).sum() == 1
    assert (np.diff(bins) >= 0).all()
    assert bins[-1] > 10


def test_any_values_have_features() -> None:
    """Levels that no honest picture has fall into bins too."""
    shares = LevelShares.fitted(drawn(50))
    found = shares(np.random.default_rng(1).random((5, 1, 8, 8), dtype=np.float32))

    assert np.isfinite(found).all()
    assert shares(np.zeros((0, 1, 8, 8), np.float32)).shape == (0, found.shape[1])


def test_nearness_is_the_mahalanobis_distance_of_the_class_named() -> None:
    """It is the logarithm of the textbook's formula, up to the small shrinkage."""
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(3, 3))
    named = rng.integers(0, 2, 4000)
    features = rng.normal(size=(4000, 3)) @ mix + 10 * named[:, None]
    near = Nearness.fitted(features, named, classes=2)

    for row, cls in ((features[0], 0), (features[0], 1)):
        rest = row - features[named == cls].mean(axis=0)
        expected = rest @ np.linalg.inv(mix.T @ mix) @ rest
        assert near(row[None], np.array([cls]))[0] == pytest.approx(np.log(expected), abs=0.2)


def test_a_class_that_is_never_named_has_the_center_of_all() -> None:
    """Rare classes do not make centers of a handful of queries."""
    features = np.random.default_rng(5).normal(3, 1, size=(500, 2))
    near = Nearness.fitted(features, np.zeros(500, np.intp), classes=3)

    assert near.centers[2] == pytest.approx(features.mean(axis=0), rel=1e-6)


def test_a_feature_that_never_varies_is_no_harm() -> None:
    """A constant column neither fails nor hides what the others say, and a change in it shows."""
    features = np.random.default_rng(6).normal(size=(300, 3))
    features[:, 1] = 7
    near = Nearness.fitted(features)
    usual, odd = near(np.array([[0.0, 7, 0], [0, 8, 0]]))

    assert np.isfinite(usual)
    assert odd > usual + 5


def test_too_few_queries_are_refused() -> None:
    """A covariance of fewer rows than columns is none."""
    with pytest.raises(ConfigurationError, match="more than 5 honest queries"):
        Nearness.fitted(np.zeros((5, 5)))


def test_arrays_and_back() -> None:
    """A fit scores exactly as its stored form does."""
    features = np.random.default_rng(7).normal(size=(300, 4))
    near = Nearness.fitted(features)
    stored = {name: one.astype(np.float64) for name, one in near.arrays().items()}

    assert np.array_equal(Nearness.from_arrays(stored)(features), near(features))


def test_pictures_too_small_for_detail_count_as_gray() -> None:
    """No second difference, no pairs; no number that is not one either, on flat pictures."""
    assert color_detail(np.zeros((4, 3, 2, 9), np.float32)).shape == (4, 0)
    assert color_detail(np.zeros((4, 1, 9, 9), np.float32)).shape == (4, 0)
    for value in (0, 1):
        flat = color_detail(np.full((2, 3, 9, 9), value, np.float32))
        assert flat.tolist() == [[0, 0, 0]] * 2
