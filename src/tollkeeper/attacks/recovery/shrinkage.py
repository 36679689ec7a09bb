"""Shrinkage: clean and noisy rows live in one space, and the clean ones tell its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from tollkeeper.attacks.recovery.base import Recovery
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

NoiseScale = Callable[[NDArray[np.intp]], NDArray[np.float64]]
"""Standard deviation per coordinate left in the rows at (m,) places of the asking order."""


@dataclass(frozen=True, slots=True)
class WienerShrinkage:
    """Shrinks every row toward the space that the cleanest rows span.

    A row is x + ε with ε ~ N(0, σᵢ² I) and x ~ N(μ, Σ). Mean and covariance are those of the
    cleanest rows, the covariance less their own noise. In the basis of Σ's eigenvectors the best
    linear guess of x multiplies component k by λₖ / (λₖ + σᵢ²) (Wiener filter): strong
    components stay, those that the noise buries vanish. The noise schedule of B4B is public, so
    σᵢ is known up to the coverage at which row i was answered; `estimate_noise` measures it.

    It takes white noise for granted, in the space of the answers. Behind an orthogonal transform
    or none it is; behind a dense one it is not, and shrinkage helps less.

    The covariance is Ledoit and Wolf's ("A well-conditioned estimator for large-dimensional
    covariance matrices", JMVA 2004), so fewer clean rows than coordinates are enough to start.

    Attributes:
        inner: how inputs are asked.
        noise_scale: σ left in the rows that `inner` returns, one for all or by asking order.
        clean_share: share of the rows, the least noisy ones, that tell the shape; ties with the
            last of them count too, so under constant noise it is all rows.
    """

    inner: Recovery
    noise_scale: NoiseScale | float
    clean_share: float = 0.25

    def __post_init__(self) -> None:
        """Refuse shares outside (0, 1] and negative noise."""
        if not 0 < self.clean_share <= 1:
            raise ConfigurationError(f"expected a clean share in (0, 1], got {self.clean_share}")
        if not callable(self.noise_scale) and not self.noise_scale >= 0:
            raise ConfigurationError(
                f"expected a noise scale of at least 0, got {self.noise_scale}"
            )

    @property
    def asks_per_input(self) -> int:
        """As many as the inner recovery needs."""
        return self.inner.asks_per_input

    def ask(self, victim: Encoder, inputs: Batch, *, rng: np.random.Generator) -> Embeddings:
        """Ask as the inner recovery does: (n, d)."""
        return self.inner.ask(victim, inputs, rng=rng)

    def finish(self, embeddings: Embeddings) -> Embeddings:
        """Shrink all rows: (n, d) in asking order to (n, d).

        Raises:
            ConfigurationError: `noise_scale` returned something else than n scales.
        """
        rows = self.inner.finish(embeddings)
        if len(rows) < 2:
            return rows  # One row tells nothing about the others' shape.
        scales = self._scales(len(rows))
        clean = scales <= np.quantile(scales, self.clean_share, method="higher")
        noise = float(np.square(scales[clean]).mean())
        return shrink(rows, scales, clean=rows[clean], clean_variance=noise)

    def _scales(self, count: int) -> NDArray[np.float64]:
        if not callable(self.noise_scale):
            return np.full(count, float(self.noise_scale))
        scales = np.asarray(self.noise_scale(np.arange(count)), dtype=np.float64)
        if scales.shape != (count,) or not (scales >= 0).all():
            raise ConfigurationError(
                f"expected {count} noise scales of at least 0, got shape {scales.shape}"
            )
        return scales


def shrink(
    rows: Embeddings,
    scales: NDArray[np.float64],
    *,
    clean: Embeddings,
    clean_variance: float,
) -> Embeddings:
    """Multiply every principal component by its Wiener gain.

    Args:
        rows: (n, d).
        scales: (n,) noise standard deviation per coordinate.
        clean: (m, d) rows that tell mean and covariance, m >= 1.
        clean_variance: mean noise variance per coordinate in `clean`.

    Returns:
        (n, d) float32.
    """
    wide = clean.astype(np.float64)
    center = wide.mean(axis=0)
    covariance, _ = ledoit_wolf(wide - center, assume_centered=True)
    eigenvalues, basis = np.linalg.eigh(covariance)
    signal = np.maximum(eigenvalues - clean_variance, 0)
    total = signal + np.square(scales)[:, None]
    # A row without noise is right as it is, also in directions without signal.
    gains = np.divide(signal, total, out=np.ones_like(total), where=total > 0)
    gains[scales == 0] = 1
    components = (rows - center) @ basis
    shrunk: Embeddings = (center + (gains * components) @ basis.T).astype(np.float32)
    return shrunk
