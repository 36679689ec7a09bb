"""A blind test passes fair splits and sees what no model had to be asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.blind import BlindTest, auc_and_variance, blind_test, check_blind, features
from tollkeeper.errors import AuditRefused


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(5)


def test_a_fair_split_is_at_chance(rng: np.random.Generator) -> None:
    """Images split at random cannot be told apart, and the interval is as wide as it has to be."""
    images = rng.random((800, 3, 8, 8), dtype=np.float32)
    found = blind_test(images[:400], images[400:], rng=rng)
    low, high = found.interval

    assert low <= 0.5 <= high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(801 / (12 * 400 * 400)), rel=0.1)


def test_a_slight_change_of_preparation_is_seen(rng: np.random.Generator) -> None:
    """Images of one side were smoothed a little: the sides differ without any model."""
    images = rng.random((600, 3, 8, 8), dtype=np.float32)
    smoothed = 0.8 * images[:300] + 0.2 * np.roll(images[:300], 1, axis=3)
    found = blind_test(smoothed, images[300:], rng=rng)

    assert found.interval[0] > 0.9
    with pytest.raises(AuditRefused, match="can be told apart without the model"):
        check_blind(found)


def test_texts_and_metadata(rng: np.random.Generator) -> None:
    """Texts that differ in one word, and equal texts with other dates, are told apart."""
    words = np.asarray("the of to in a is that it was for".split())
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    dated = [f"{text} 2019" for text in texts[:150]]
    early, late = rng.normal(2010, 3, (150, 1)), rng.normal(2020, 3, (150, 1))

    assert blind_test(dated, texts[150:], rng=rng).interval[0] > 0.9
    assert blind_test(texts[:150], texts[150:], rng=rng).interval[0] < 0.5
    told = blind_test(texts[:150], texts[150:], rng=rng, metadata=(early, late))
    assert told.interval[0] > 0.9


def test_what_passes() -> None:
    """The interval must hold one half and end low enough; a missing test is none."""
    assert BlindTest(0.501, (0.49, 0.512)).passed
    assert not BlindTest(0.505, (0.485, 0.525)).passed
    assert not BlindTest(0.51, (0.503, 0.517)).passed
    assert not BlindTest(0.48, (0.47, 0.49)).passed
    check_blind(BlindTest(0.501, (0.49, 0.512)))
    with pytest.raises(AuditRefused, match="no blind test was run"):
        check_blind(None)


def test_variance_of_the_area(rng: np.random.Generator) -> None:
    """DeLong's variance is that of areas over many draws."""
    drawn = [auc_and_variance(rng.normal(0.5, 1, 60), rng.normal(0, 1, 40)) for _ in range(800)]
    areas, variances = np.transpose(drawn)

    assert areas.mean() == pytest.approx(0.638, abs=0.01)
    assert variances.mean() == pytest.approx(areas.var(ddof=1), rel=0.15)


def test_both_kinds_of_images_have_the_same_features(rng: np.random.Generator) -> None:
    """Bytes and tensors of one image look the same to a blind test."""
    images = rng.integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    tensors = np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255)

    assert features(tensors) == pytest.approx(features(images), abs=1e-6)


def test_what_cannot_be_judged_is_refused(rng: np.random.Generator) -> None:
    """Too few items, and metadata that are no numbers."""
    texts = [str(number) for number in range(240)]
    with pytest.raises(AuditRefused, match="at least 100 items of each side"):
        blind_test(texts[:99], texts[99:], rng=rng)
    missing = np.full((120, 1), np.nan)
    with pytest.raises(AuditRefused, match="metadata"):
        blind_test(texts[:120], texts[120:], rng=rng, metadata=(missing, missing))
