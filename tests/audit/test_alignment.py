"""Alignment of a suspect's answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.watermarks.alignment import independents_p, ridge_align
from tollkeeper.errors import AuditRefused


def rows(n: int, d: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return random embeddings."""
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_an_affine_map_is_undone() -> None:
    """After a random affine map into more dimensions the alignment finds the way back."""
    target = rows(300, 6)
    source = target @ rows(6, 9, 1) + rows(1, 9, 2)
    found = ridge_align(source, target, ridge=1e-6)
    assert np.abs(found(source) - target).max() < 1e-3


def test_it_is_the_ridge_regression() -> None:
    """Weights solve the penalized normal equations of the centered rows."""
    source, target = rows(50, 4), rows(50, 3, 1)
    found = ridge_align(source, target, ridge=0.1)
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    penalty = 0.1 * np.trace(x.T @ x) / 4 * np.eye(4)
    assert np.allclose(found.weights, np.linalg.solve(x.T @ x + penalty, x.T @ y), atol=1e-5)
    assert np.allclose(found(source).mean(axis=0), target.mean(axis=0), atol=1e-5)


def test_unusable_anchors_are_refused() -> None:
    """Too few, constant, unpaired or NaN embeddings are refused, and a suspect that changes width."""
    good = rows(50, 4)
    with pytest.raises(AuditRefused, match="more inputs"):
        ridge_align(rows(4, 4), rows(4, 4))
    with pytest.raises(AuditRefused, match="same embedding"):
        ridge_align(np.ones((50, 4), np.float32), good)
    with pytest.raises(AuditRefused, match="same inputs"):
        ridge_align(good, rows(49, 4))
    with pytest.raises(AuditRefused, match="NaN"):
        ridge_align(np.where(good > 2, np.nan, good), good)
    with pytest.raises(AuditRefused, match="swapped"):
        ridge_align(good, good)(rows(5, 3))


def test_the_p_of_independents_is_uniform() -> None:
    """For one more draw of a normal distribution the p-value is uniform."""
    draws = np.random.default_rng(3).standard_normal((3000, 9))
    found = [independents_p(row[0], row[1:].tolist()) for row in draws]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_few_independents_are_refused() -> None:
    """Seven encoders are too few for a null."""
    with pytest.raises(AuditRefused, match="at least 8"):
        independents_p(1.0, [0.0] * 7)
