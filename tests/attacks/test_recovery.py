"""Recoveries leave less noise in the answers, by as much as theory says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.attacks.recovery.averages import (
    AverageAugmentations,
    AverageRepeats,
    estimate_noise,
)
from tollkeeper.attacks.recovery.base import AsAnswered, Recovery
from tollkeeper.attacks.recovery.shrinkage import WienerShrinkage, shrink
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Batch, Embeddings

DIM = 30


class FakeNoisy:
    """Embeds an image's mean color linearly and adds noise: fresh, or fixed per input."""

    name, accepts = "fake", frozenset({"image"})

    def __init__(self, noise: float, *, fresh: bool = True) -> None:
        self.dim = DIM
        self.calls: list[int] = []
        self._noise, self._fresh = noise, fresh
        self._rng = np.random.default_rng(0)

    def clean(self, inputs: Batch) -> Embeddings:
        """Return the answers without noise."""
        secret = np.random.default_rng(1).standard_normal((3, DIM))
        colors = np.stack([image.mean(axis=(0, 1)) for image in inputs]) / 255
        rows: Embeddings = (colors @ secret).astype(np.float32)
        return rows

    def embed(self, inputs: Batch) -> Embeddings:
        self.calls.append(len(inputs))
        draws = [self._draws(image).standard_normal(DIM) for image in inputs]
        rows: Embeddings = (self.clean(inputs) + self._noise * np.stack(draws)).astype(np.float32)
        return rows

    def _draws(self, image: NDArray[np.uint8]) -> np.random.Generator:
        if self._fresh:
            return self._rng
        digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest))


IMAGES = np.random.default_rng(2).integers(0, 256, (80, 6, 6, 3), dtype=np.uint8)


def shuffled(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return views with the same pixels in another order, which keeps their mean color."""
    flat = images.reshape(len(images), -1, 3)
    return flat[:, rng.permutation(flat.shape[1])].reshape(images.shape)


def ask(recovery: Recovery, victim: FakeNoisy | MeteredEncoder) -> Embeddings:
    """Ask for all images."""
    rows = recovery.ask(victim, IMAGES, rng=np.random.default_rng(3))
    return recovery.finish(rows)


def left_over(recovery: Recovery, victim: FakeNoisy) -> float:
    """Return the mean squared error of the answers."""
    return float(np.square(ask(recovery, victim) - victim.clean(IMAGES)).mean())


def test_as_answered_asks_once_and_changes_nothing() -> None:
    """The rows are the victim's."""
    victim, same = FakeNoisy(0.5), FakeNoisy(0.5)

    assert np.array_equal(ask(AsAnswered(), victim), same.embed(IMAGES))
    assert victim.calls == [80]
    assert AsAnswered().asks_per_input == 1


@pytest.mark.parametrize("times", [1, 2, 4, 16])
def test_repeats_leave_one_mth_of_fresh_noise(times: int) -> None:
    """The error is sigma²/m, up to the 4% that 2,400 draws allow at four deviations and more."""
    victim = FakeNoisy(0.5)

    error = left_over(AverageRepeats(times), victim)

    assert error == pytest.approx(0.25 / times, rel=0.15)
    assert victim.calls == [80] * times


def test_repeats_are_free_queries() -> None:
    """The meter counts each input once and the rest as repeats."""
    meter = MeteredEncoder(FakeNoisy(0.5), budget=80)

    ask(AverageRepeats(5), meter)

    assert (meter.queries_spent, meter.repeats, meter.calls) == (80, 320, 5)
    assert AverageRepeats(5).asks_per_input == 1


def test_the_average_is_the_mean_of_the_answers() -> None:
    """Each row is the mean over m separate calls, recomputed row by row."""
    victim, same = FakeNoisy(1.0), FakeNoisy(1.0)
    answers = [same.embed(IMAGES) for _ in range(3)]

    found = ask(AverageRepeats(3), victim)

    for row, several in zip(found, zip(*answers, strict=True), strict=True):
        np.testing.assert_allclose(row, sum(several) / 3, atol=1e-6)


def test_only_augmentations_help_against_fixed_noise() -> None:
    """Noise that follows the input survives repeats; views of it have other noise."""
    victim = FakeNoisy(0.5, fresh=False)

    once = left_over(AsAnswered(), victim)
    repeated = left_over(AverageRepeats(10), victim)
    viewed = left_over(AverageAugmentations(shuffled, 10), victim)

    assert repeated == pytest.approx(once, rel=1e-4)
    assert viewed == pytest.approx(once / 10, rel=0.15)


def test_every_view_is_a_query() -> None:
    """Four views of 80 images are 320 distinct queries, in one call for each view of all."""
    meter = MeteredEncoder(FakeNoisy(0.5), budget=320)
    recovery = AverageAugmentations(shuffled, 4)

    ask(recovery, meter)

    assert (meter.queries_spent, meter.repeats, meter.calls) == (320, 0, 4)
    assert recovery.asks_per_input == 4


@pytest.mark.parametrize(
    "inputs",
    [["a text"], [IMAGES[0], IMAGES[1][:4]], np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 3))],
)
def test_only_images_of_one_size_have_views(inputs: Batch) -> None:
    """Texts, mixed sizes and other arrays get one line that says what was expected."""
    with pytest.raises(InputError, match="expected"):
        AverageAugmentations(shuffled).ask(FakeNoisy(0), inputs, rng=np.random.default_rng(0))


@pytest.mark.parametrize("noise", [0.0, 0.2, 3.0])
def test_noise_is_estimated_from_repeats(noise: float) -> None:
    """Each input's estimate is within a few deviations of the truth: 120 degrees of freedom."""
    estimates = estimate_noise(FakeNoisy(noise), IMAGES, repeats=5)

    assert estimates.shape == (80,)
    assert np.abs(estimates - noise).max() <= 0.3 * noise
    assert estimates.mean() == pytest.approx(noise, rel=0.02)


def test_fixed_noise_cannot_be_seen() -> None:
    """Repeats agree, so the estimate is zero."""
    assert not estimate_noise(FakeNoisy(2.0, fresh=False), IMAGES, repeats=3).any()


def test_too_few_questions_are_refused() -> None:
    """A spread needs two answers, an average one."""
    with pytest.raises(ConfigurationError, match="at least 2 repeats"):
        estimate_noise(FakeNoisy(1), IMAGES, repeats=1)
    with pytest.raises(ConfigurationError, match="at least 1 of the repeats"):
        AverageRepeats(0)
    with pytest.raises(ConfigurationError, match="at least 1 of the views"):
        AverageAugmentations(shuffled, 0)


def spectrum(rows: int, *, seed: int = 4) -> Embeddings:
    """Return rows with a mean and a falling spectrum, as embeddings have."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    strengths = 3 * 0.75 ** np.arange(DIM)
    clean: Embeddings = (rng.standard_normal((rows, DIM)) * strengths @ basis + 2).astype(
        np.float32
    )
    return clean


def noisy(clean: Embeddings, scales: NDArray[np.float64]) -> Embeddings:
    """Return rows with white noise of one scale a row."""
    noise = np.random.default_rng(5).standard_normal(clean.shape)
    rows: Embeddings = (clean + scales[:, None] * noise).astype(np.float32)
    return rows


def error(rows: Embeddings, clean: Embeddings) -> float:
    """Return the mean squared error."""
    return float(np.square(rows - clean).mean())


def truncations(rows: Embeddings, basis_from: Embeddings) -> Sequence[Embeddings]:
    """Return the rows projected on the first k principal components, for k from 0 to d."""
    mean = basis_from.mean(axis=0)
    axes = np.linalg.svd(basis_from - mean, full_matrices=False)[2]
    return [mean + (rows - mean) @ axes[:k].T @ axes[:k] for k in range(DIM + 1)]


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_shrinkage_beats_raw_rows_and_every_truncation(noise: float) -> None:
    """Under constant noise it is better than the rows, their mean and any number of components."""
    clean = spectrum(2000)
    rows = noisy(clean, np.full(2000, noise))

    found = WienerShrinkage(AsAnswered(), noise).finish(rows)

    others = [rows, *truncations(rows, rows)]
    assert error(found, clean) < 0.95 * min(error(other, clean) for other in others)


def test_early_clean_rows_help_late_noisy_ones() -> None:
    """Under a growing schedule the late rows come out better than any truncation by early ones."""
    clean = spectrum(2000)
    schedule = np.linspace(0, 2, 2000) ** 3
    rows = noisy(clean, schedule)

    found = WienerShrinkage(AsAnswered(), lambda order: schedule[order]).finish(rows)

    late = slice(1000, 2000)
    others = [rows[late], *truncations(rows[late], rows[:500])]
    best = min(error(other, clean[late]) for other in others)
    assert error(found[late], clean[late]) < 0.8 * best
    assert error(found, clean) < error(WienerShrinkage(AsAnswered(), 2.0).finish(rows), clean)


def test_shrinkage_is_the_posterior_mean() -> None:
    """Row by row it is mu + S (S + sigma² I)^-1 (y - mu) with the covariance it estimates."""
    rows = noisy(spectrum(3000), np.full(3000, 0.5))
    scales = np.linspace(0.1, 2, 3000)

    found = shrink(rows, scales, clean=rows, clean_variance=0.25)

    mean = rows.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(np.cov(rows.T) - 0.25 * np.eye(DIM))
    covariance = axes * np.maximum(values, 0) @ axes.T
    for i in range(0, 3000, 100):
        gain = covariance @ np.linalg.inv(covariance + scales[i] ** 2 * np.eye(DIM))
        np.testing.assert_allclose(found[i], mean + gain @ (rows[i] - mean), atol=0.03)


def test_rows_without_noise_are_left_alone() -> None:
    """Zero noise means there is nothing to remove; a single row has no shape to go by."""
    rows = spectrum(100)

    np.testing.assert_allclose(WienerShrinkage(AsAnswered(), 0.0).finish(rows), rows, atol=1e-5)
    assert np.array_equal(WienerShrinkage(AsAnswered(), 5.0).finish(rows[:1]), rows[:1])


def test_fewer_rows_than_coordinates_are_enough_to_help() -> None:
    """Twenty rows of thirty coordinates still come out better than they went in."""
    clean = spectrum(20)
    rows = noisy(clean, np.full(20, 2.0))

    assert error(WienerShrinkage(AsAnswered(), 2.0).finish(rows), clean) < 0.6 * error(rows, clean)


def test_shrinkage_asks_as_its_inner_recovery() -> None:
    """Calls, queries per input and the order of both cleanings are the inner one's."""
    victim, same = FakeNoisy(0.5), FakeNoisy(0.5)
    recovery = WienerShrinkage(AverageRepeats(4), 0.25)

    rows = recovery.ask(victim, IMAGES, rng=np.random.default_rng(0))

    assert np.array_equal(rows, AverageRepeats(4).ask(same, IMAGES, rng=np.random.default_rng(0)))
    assert WienerShrinkage(AverageAugmentations(shuffled, 7), 1.0).asks_per_input == 7
    assert error(recovery.finish(rows), victim.clean(IMAGES)) < error(rows, victim.clean(IMAGES))


def test_impossible_scales_are_refused() -> None:
    """Negative or missing scales and empty shares get one line that says what was expected."""
    rows = spectrum(10)
    with pytest.raises(ConfigurationError, match="at least 0, got -1"):
        WienerShrinkage(AsAnswered(), -1.0)
    with pytest.raises(ConfigurationError, match=r"in \(0, 1\]"):
        WienerShrinkage(AsAnswered(), 1.0, clean_share=0)
    for wrong in (
        lambda order: np.ones(len(order) - 1),
        lambda order: -np.ones(len(order)),
        lambda order: np.full(len(order), np.nan),
    ):
        with pytest.raises(ConfigurationError, match="expected 10 noise scales"):
            WienerShrinkage(AsAnswered(), wrong).finish(rows)


def test_standardized_answers_have_no_scale_left() -> None:
    """A diagonal affine transform with pads comes out up to signs, column by column."""
    rng = np.random.default_rng(0)
    clean = rng.gamma(2.0, size=(50, 6)).astype(np.float32)
    scale, shift = rng.uniform(-1, 1, (2, 6))
    padded = np.hstack([clean * scale + shift, np.full((50, 2), 0.7)]).astype(np.float32)
    cleaned = Standardized().finish(padded)
    for column in range(6):
        mean, deviation = clean[:, column].mean(), clean[:, column].std()
        expected = (clean[:, column] - mean) / deviation * np.sign(scale[column])
        np.testing.assert_allclose(cleaned[:, column], expected, atol=1e-3)
    assert not cleaned[:, 6:].any()
