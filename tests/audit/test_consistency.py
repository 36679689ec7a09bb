"""Consistency of views: its arithmetic, what leaves it unchanged, and calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.consistency import (
    MODES,
    Frame,
    Mode,
    agreement,
    calibrate,
    consistency,
    standardized,
)
from tollkeeper.audit.two_sample import welch
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings

N, K, D, M = 400, 4, 12, 300


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(11)


@pytest.fixture
def answers(rng: np.random.Generator) -> tuple[Embeddings, Embeddings]:
    """Return (n, K, d) embeddings of views and (m, d) of public images, with unequal dimensions.

    Views of the first half are closer together.
    """
    scale = np.exp(rng.normal(0, 0.5, D))
    center = rng.normal(1, 1, D)
    spread = np.where(np.arange(N) < N // 2, 0.5, 0.6)[:, None, None]
    views = rng.normal(size=(N, 1, D)) + spread * rng.normal(size=(N, K, D))
    public = rng.normal(size=(M, D)) * 1.15
    return (
        (views * scale + center).astype(np.float32),
        (public * scale + center).astype(np.float32),
    )


def _t(scores: NDArray[np.float64]) -> float:
    return welch(scores[: N // 2], scores[N // 2 :])[0]


def test_agrees_with_a_slow_mean_of_cosines(answers: tuple[Embeddings, Embeddings]) -> None:
    """The score is the mean cosine of all pairs of views, in each mode's coordinates."""
    views, public = answers
    covariance = np.cov(public.T.astype(np.float64))
    values, vectors = np.linalg.eigh(covariance)
    maps = {
        "raw": lambda z: z,
        "std": lambda z: (z - public.mean(axis=0)) / public.std(axis=0, ddof=1),
        "white": lambda z: (z - public.mean(axis=0)) @ vectors / np.sqrt(values),
    }
    for mode in MODES:
        z = maps[mode](views[:5].astype(np.float64))
        z = z / np.linalg.norm(z, axis=2, keepdims=True)
        slow = [
            np.mean([one[i] @ one[j] for i in range(K) for j in range(K) if i != j]) for one in z
        ]

        assert consistency(views[:5], public, mode) == pytest.approx(slow, abs=1e-4)


def _permute(z: Embeddings) -> Embeddings:
    return z[..., np.random.default_rng(0).permutation(D)]


def _rotate(z: Embeddings) -> Embeddings:
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))
    return (z @ q).astype(np.float32)


def _pad(value: float) -> Callable[[Embeddings], Embeddings]:
    def padded(z: Embeddings) -> Embeddings:
        return np.concatenate([z, np.full((*z.shape[:-1], 7), value, np.float32)], axis=-1)

    return padded


def _stretch(z: Embeddings) -> Embeddings:
    factors = np.exp(np.random.default_rng(1).normal(size=D))
    found: Embeddings = (z * factors + 3).astype(np.float32)
    return found


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("raw", _permute),
        ("raw", _rotate),
        ("raw", _pad(0)),
        ("raw", lambda z: np.float32(6.3) * z),
        ("std", _permute),
        ("std", _pad(2.5)),
        ("std", _stretch),
        ("white", _permute),
        ("white", _pad(2.5)),
        ("white", _rotate),
        ("white", _stretch),
    ],
)
def test_obfuscations_that_change_nothing(
    mode: Mode, change: Callable[[Embeddings], Embeddings], answers: tuple[Embeddings, Embeddings]
) -> None:
    """Each mode's scores stay the same under the maps that it undoes."""
    views, public = answers

    plain = consistency(views, public, mode)
    changed = consistency(change(views), change(public), mode)

    assert changed == pytest.approx(plain, abs=2e-4)


def test_modes_differ_where_they_should(answers: tuple[Embeddings, Embeddings]) -> None:
    """Raw scores do change under padding with constants, which mode std undoes."""
    views, public = answers
    change = _pad(2.5)

    assert (
        np.abs(consistency(change(views), public, "raw") - consistency(views, public, "raw")).max()
        > 0.05
    )


def test_a_random_affine_map_moves_white_t_little(
    answers: tuple[Embeddings, Embeddings], rng: np.random.Generator
) -> None:
    """Under any invertible affine map the t of mode white moves by less than 5%."""
    views, public = answers
    matrix, offset = rng.normal(size=(D, D)), rng.normal(size=D)

    def mapped(z: Embeddings) -> Embeddings:
        return np.asarray(z @ matrix + offset, np.float32)

    plain = _t(consistency(views, public, "white"))
    changed = _t(consistency(mapped(views), mapped(public), "white"))

    assert plain > 3
    assert changed == pytest.approx(plain, rel=0.05)


def test_parts_add_up(answers: tuple[Embeddings, Embeddings]) -> None:
    """A frame fitted once scores images in parts as it scores them together."""
    views, public = answers
    frame = Frame.fit(public, "std")
    parts = [agreement(views[at : at + 7], frame) for at in range(0, N, 7)]

    assert np.concatenate(parts) == pytest.approx(agreement(views, frame), abs=1e-6)


def test_calibration_is_a_regression_on_the_references(rng: np.random.Generator) -> None:
    """The slope is least squares on the mean of standardized references; residuals ignore it."""
    difficulty = rng.normal(size=500)
    references = 3 * difficulty + rng.normal(size=(4, 500)) + 7
    own = -2 + 0.5 * difficulty + 0.1 * rng.normal(size=500)
    residuals, beta = calibrate(own, references)
    mean = standardized(references).mean(axis=0)

    assert beta == pytest.approx(np.polyfit(mean, standardized(own), 1)[0])
    assert residuals @ mean == pytest.approx(0, abs=1e-9)
    assert residuals.mean() == pytest.approx(0, abs=1e-12)
    assert residuals.std() < 0.5


@pytest.mark.parametrize(
    ("views", "public", "mode", "reason"),
    [
        (np.zeros((3, 2, 4)), np.eye(4), "raw", "zero, NaN"),
        (np.full((3, 2, 4), np.nan), np.eye(4), "raw", "zero, NaN"),
        (np.ones((3, 1, 4)), np.eye(4), "raw", "K >= 2 views"),
        (np.ones((3, 2, 4)), np.eye(4), "white", "twice as many"),
        (np.ones((3, 2, 4)), np.ones((9, 4)), "std", "same embedding"),
        (np.ones((3, 2, 4)), np.ones((9, 4)), "white", "same embedding"),
        (np.ones((3, 2, 5)), np.eye(4), "std", "was the suspect swapped"),
        (np.ones((3, 2, 4)), np.full((9, 4), np.inf), "std", "NaN or infinity"),
        (np.ones((3, 2, 4)), np.ones((1, 4)), "std", "two or more reference rows"),
        (np.ones((3, 2, 4)), np.eye(4), "odd", "a mode of std, raw, white"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    views: Embeddings, public: Embeddings, mode: Mode, reason: str
) -> None:
    """Each defect of answers is refused with its reason."""
    with pytest.raises(AuditRefused, match=reason):
        consistency(views.astype(np.float32), public.astype(np.float32), mode)


def test_scores_that_cannot_be_calibrated_are_refused() -> None:
    """Constants, other images, no references and NaN."""
    good = np.arange(5.0)
    for scores, references, reason in (
        (np.ones(5), [good], "the same"),
        (good, [good[:4]], "the suspect's n images"),
        (good, np.empty((0, 5)), "the suspect's n images"),
        (good, [[1, 2, 3, 4, np.nan]], "NaN"),
    ):
        with pytest.raises(AuditRefused, match=reason):
            calibrate(scores, references)
