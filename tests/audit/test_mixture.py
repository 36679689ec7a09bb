"""Mixture inference: published settings and defects, invariances, and the gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.mixture import (
    CORRECTED,
    PAPER,
    PAPER_WIDE,
    RELEASED,
    MixtureEvidence,
    MixtureInference,
    MixtureRecipe,
    Preparation,
    gmm_scores,
    halved_p,
)
from tollkeeper.audit.two_sample import two_sample
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.memorizer import MemorizingEncoder, smooth_images
from tollkeeper.types import Embeddings

pytest.importorskip("sklearn")

SMALL = replace(CORRECTED, components=3, seeds=2, iterations=20)
D = 10


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(9)


@pytest.fixture
def rows(rng: np.random.Generator) -> list[Embeddings]:
    """Return fitted, trained and held rows; held ones lie further out."""
    centers = 3 * rng.normal(size=(3, D))
    made = centers[rng.integers(0, 3, 900)] + rng.normal(size=(900, D))
    made[700:] += 0.5 * rng.normal(size=(200, D))
    found = made.astype(np.float32)
    return [found[:500], found[500:700], found[700:]]


def _scores(rows: list[Embeddings], recipe: MixtureRecipe) -> NDArray[np.float64]:
    a, b = gmm_scores(*rows, recipe=recipe, rng=np.random.default_rng(1))
    return np.concatenate([a, b])


def test_one_component_is_a_gaussian(rows: list[Embeddings]) -> None:
    """With one full component the score is the Gaussian log-likelihood of the fitted rows."""
    recipe = MixtureRecipe(1, standardize=False, reduce=None, regularization=0, seeds=1)
    fitted, trained = (part.astype(np.float64) for part in rows[:2])
    covariance = np.cov(fitted.T, bias=True)
    away = trained - fitted.mean(axis=0)
    square = np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away)
    _, volume = np.linalg.slogdet(covariance)

    found = _scores(rows, recipe)[:200]

    assert found == pytest.approx(-0.5 * (square + volume + D * np.log(2 * np.pi)), abs=1e-2)


@pytest.mark.parametrize("recipe", [SMALL, PAPER, PAPER_WIDE, RELEASED])
def test_obfuscations_that_change_nothing(
    recipe: MixtureRecipe, rows: list[Embeddings], rng: np.random.Generator
) -> None:
    """Permuted, scaled and zero-padded embeddings get the same differences of scores."""
    recipe = replace(recipe, components=3, iterations=20)
    order = rng.permutation(D)
    plain = _scores(rows, recipe)
    slack = 2e-3 * plain.std()

    permuted = _scores([part[:, order] for part in rows], recipe)
    scaled = _scores([np.float32(4.2) * part for part in rows], recipe)
    padded = _scores([np.pad(part, ((0, 0), (0, 5))) for part in rows], recipe)

    assert permuted == pytest.approx(plain, abs=slack)
    assert scaled == pytest.approx(plain, abs=slack)
    # Dimensions that are always 0 add the same number to every score.
    assert padded - padded.mean() == pytest.approx(plain - plain.mean(), abs=slack)


def test_likelier_rows_are_found(rows: list[Embeddings], rng: np.random.Generator) -> None:
    """Held rows that lie further out are less likely, by every recipe."""
    for recipe in (SMALL, replace(PAPER, components=3), replace(RELEASED, components=3)):
        scores = _scores(rows, recipe)

        assert two_sample(scores[:200], scores[200:], rng=rng).p_welch < 1e-3


def test_published_settings() -> None:
    """Paper and script differ where the method spec says they do."""
    paper = PAPER.components, PAPER.covariance, PAPER.normalize, PAPER.standardize
    wide = PAPER_WIDE.components, PAPER_WIDE.covariance, PAPER_WIDE.standardize
    released = RELEASED.components, RELEASED.covariance, RELEASED.iterations

    assert paper == (10, "full", True, False)
    assert wide == (50, "diag", True)
    assert released == (20, "diag", 1000)


def test_the_released_p_value_calls_the_wrong_side_theft(rng: np.random.Generator) -> None:
    """Halving a two-sided p-value accuses an encoder that shows the opposite effect."""
    a, b = rng.normal(0, 1, 300), rng.normal(0.5, 1, 300)

    assert halved_p(a, b) < 1e-5
    assert two_sample(a, b, rng=rng).p_welch > 0.999
    assert halved_p(a, b) == pytest.approx(halved_p(b, a))


def test_preparation_whitens_few_components(rng: np.random.Generator) -> None:
    """At most a fiftieth of the rows many components are kept, each of variance 1."""
    rows = (rng.normal(size=(400, 20)) * np.arange(1, 21)).astype(np.float32)
    found = Preparation.fit(rows, CORRECTED).apply(rows)

    assert found.shape == (400, 8)
    assert np.cov(found.T, bias=True) == pytest.approx(np.eye(8), abs=1e-3)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rows: rows.__setitem__(3, 0), "are all zeros"),
        (lambda rows: rows.__setitem__(3, np.nan), "NaN"),
    ],
)
def test_rows_left_unfilled_are_refused(spoil: object, reason: str, rows: list[Embeddings]) -> None:
    """Zero rows, which the released script fits without a word, and NaN are refused."""
    assert callable(spoil)
    spoil(rows[2])
    with pytest.raises(AuditRefused, match=reason):
        _scores(rows, SMALL)


def test_too_few_rows_and_constants_are_refused(rows: list[Embeddings]) -> None:
    """A mixture needs rows, and rows that differ."""
    with pytest.raises(AuditRefused, match="rows to fit a mixture"):
        _scores([rows[0][:5], *rows[1:]], SMALL)
    with pytest.raises(AuditRefused, match="the same embedding"):
        _scores([np.ones_like(part) for part in rows], SMALL)


def test_the_test_is_behind_its_gate(rng: np.random.Generator) -> None:
    """Without the victim's control, or with one that failed, no suspect is judged."""
    images = smooth_images(120, rng=rng)
    evidence = MixtureEvidence(images[:60], images[60:90], images[90:])
    test = MixtureInference(SMALL, least=30)
    suspect = MemorizingEncoder(8, rng=rng)

    with pytest.raises(AuditRefused, match="no positive control"):
        test.run(suspect, evidence, rng=rng)
    p = test.control(MemorizingEncoder(8, rng=rng), evidence, rng=rng)
    with pytest.raises(AuditRefused, match="the positive control failed"):
        test.run(suspect, replace(evidence, control=max(p, 0.01)), rng=rng)
    found = test.run(suspect, replace(evidence, control=1e-4), rng=rng)

    assert found.null == "data"
    assert 0 < found.p_value <= 1
    assert found.details["p_halved"] <= 0.5
    assert found.interval[0] < found.effect_size < found.interval[1]


def test_parts_that_overlap_are_refused(rng: np.random.Generator) -> None:
    """Nothing may be fitted on and scored."""
    images = smooth_images(90, rng=rng)
    for first, second, third in ((0, 20, 60), (0, 30, 0), (0, 30, 50)):
        parts = [images[at : at + 30] for at in (first, second, third)]
        with pytest.raises(AuditRefused, match="must be disjoint"):
            MixtureEvidence(*parts, control=0.0001).check(least=30)
