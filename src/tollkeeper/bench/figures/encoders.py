"""Encoders that figures are taken on: the built-in ones, and two of another make.

A figure that holds on one encoder can be an accident of its geometry. The two others are
classical, fitted here in seconds, and unlike the built-in ones in width, sign and spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.types import Batch, Embeddings

Embed = Callable[[Batch], Embeddings]
"""n inputs to (n, d)."""

_SIDE, _PATCH, _STRIDE = 32, 6, 2
_CHUNK = 128


def lsa(texts: Sequence[str], *, dim: int, seed: int) -> Embed:
    """Fit latent semantic analysis: term weights of words, projected and scaled to unit norm.

    Source: Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 1990.

    Args:
        texts: to fit on.
        dim: width.
        seed: of the randomized decomposition.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    steps: Any = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=30_000),
        TruncatedSVD(dim, random_state=seed),
        Normalizer(copy=False),
    )
    steps.fit(list(texts))
    return lambda inputs: steps.transform(list(inputs)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Whitening:
    """Centers and decorrelates patches.

    Attributes:
        mean: (p,).
        matrix: (p, p).
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    @classmethod
    def fit(cls, patches: NDArray[np.float32]) -> _Whitening:
        values, vectors = np.linalg.eigh(np.cov(patches.T))
        scales = np.diag(1 / np.sqrt(values + 0.1))
        matrix = np.asarray(vectors @ scales @ vectors.T, np.float32)
        mean = np.asarray(patches.mean(axis=0), np.float32)
        return cls(mean, matrix)

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        whitened: NDArray[Any] = (patches - self.mean) @ self.matrix
        return whitened


def patches(images: NDArray[np.uint8], *, centroids: int, seed: int) -> Embed:
    """Fit k-means features: how near an image's patches are to learned ones, by quadrant.

    Features are not negative, as those of a network that ends in a ReLU; the width is
    4 * `centroids`.

    Source: Coates, Ng and Lee, "An Analysis of Single-Layer Networks in Unsupervised Feature
    Learning", AISTATS 2011, with the triangle activation. Differences: a stride of 2.

    Args:
        images: (n, 32, 32, 3) to fit on.
        centroids: learned patches.
        seed: of the choice of patches and of k-means.
    """
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(seed)
    known = _cut(images).reshape(-1, 3 * _PATCH**2)
    known = known[rng.permutation(len(known))[:40_000]]
    whitening = _Whitening.fit(known)
    fitted = MiniBatchKMeans(centroids, random_state=seed, n_init=1, batch_size=2048)
    centers = fitted.fit(whitening(known)).cluster_centers_.astype(np.float32)

    def embed(inputs: Batch) -> Embeddings:
        array = np.asarray(inputs)
        parts = [
            _pooled(whitening(_cut(array[at : at + _CHUNK])), centers)
            for at in range(0, len(array), _CHUNK)
        ]
        return np.concatenate(parts)

    return embed


def _cut(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return normalized patches (n, places, 3 * 36)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (_PATCH, _PATCH), axis=(1, 2))
    chosen = windows[:, ::_STRIDE, ::_STRIDE].reshape(len(images), -1, 3 * _PATCH**2)
    flat = chosen.astype(np.float32)
    flat -= flat.mean(axis=2, keepdims=True)
    flat /= np.sqrt(flat.var(axis=2, keepdims=True) + 10)
    return flat


def _pooled(cut: NDArray[np.float32], centers: NDArray[np.float32]) -> Embeddings:
    """Return (n, 4 k) triangle activations, summed over quadrants."""
    count, places, _ = cut.shape
    side = int(np.sqrt(places))
    squares = np.square(cut).sum(axis=2, keepdims=True) + np.square(centers).sum(axis=1)
    away = np.sqrt(np.maximum(squares - 2 * cut @ centers.T, 0))
    near = np.maximum(away.mean(axis=2, keepdims=True) - away, 0)
    grid = near.reshape(count, side, side, -1)
    half = side // 2
    rows, columns = (slice(None, half), slice(half, None)), (slice(None, half), slice(half, None))
    quadrants = [grid[:, row, column].sum(axis=(1, 2)) for row in rows for column in columns]
    return np.concatenate(quadrants, axis=1).astype(np.float32)


MODALITY: Mapping[str, str] = {
    "builtin:text": "text",
    "lsa": "text",
    "builtin:image": "image",
    "patches": "image",
}
"""Encoders by name, and what they read."""
