"""A pool of images on two sides, and how an encoder is asked for views of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit import gates
from tollkeeper.audit.consistency import Frame, Mode, agreement
from tollkeeper.audit.views import Pictures, Views, check_pictures
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Embeddings, Scores

_BATCH = 64
"""Images per call, each in all its views."""

_TOGETHER = 256
"""Images per call, without views."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images of which the owner says which were trained on.

    Attributes:
        trained: (n1, ...) images that the victim was trained on.
        held: (n2, ...) images of the same source that were used for nothing.
        public: (m, ...) other images of the kind, in which coordinates are fitted.
        views: what is asked of each image; its seed is committed.
        randomized: whether a committed coin decided which side an image is on, before training.
            Else that the sides are exchangeable is argued, and more has to hold.
    """

    trained: Pictures
    held: Pictures
    public: Pictures
    views: Views
    randomized: bool = False

    def check(self, *, least: int = gates.LEAST) -> None:
        """Refuse sides that cannot be compared.

        Args:
            least: images per side.

        Raises:
            AuditRefused: too few images, duplicates, images on both sides or in the public batch,
                or sides that were prepared differently.
        """
        for side, name in ((self.trained, "trained"), (self.held, "held")):
            check_pictures(side)
            gates.check_samples(len(side), least=least, what=f"{name} images")
            gates.check_distinct(side, name)
            gates.check_preprocessing(side, self.public, names=(name, "public"))
            gates.check_disjoint(side, self.public, names=(name, "public"))
        gates.check_preprocessing(self.trained, self.held)
        gates.check_disjoint(self.trained, self.held)

    def pool(self) -> Pictures:
        """Return (n1 + n2, ...) images, the trained ones first."""
        return np.concatenate([self.trained, self.held])


ModeScores = Mapping[Mode, NDArray[np.float64]]
"""(n,) scores of one encoder, or (M, n) of several, by mode."""


def measure(
    encoder: Encoder, split: Split, *, modes: Sequence[Mode], rng: np.random.Generator
) -> dict[Mode, Scores]:
    """Ask an encoder for all views and return its scores of the pool, the trained images first.

    The order is shuffled, so that nothing that drifts while asking can tell the sides apart.

    Args:
        encoder: asked for len(public) + k (n1 + n2) embeddings.
        split: what is asked.
        modes: in which views are compared.
        rng: draws the order.

    Returns:
        (n1 + n2,) scores by mode.

    Raises:
        AuditRefused: NaN, zero rows, another width than before, or constant embeddings.
    """
    frames = fit_frames(encoder, split.public, modes)
    pool = split.pool()
    scores = {mode: np.empty(len(pool)) for mode in modes}
    order = rng.permutation(len(pool))
    for rows in batches(order):
        views = embed_views(encoder, pool[rows], split.views, rows)
        for mode, frame in frames.items():
            scores[mode][rows] = agreement(views, frame)
    return scores


def fit_frames(encoder: Encoder, public: Pictures, modes: Sequence[Mode]) -> dict[Mode, Frame]:
    """Return the frame of each mode, from the encoder's embeddings of public images."""
    reference = embed_all(encoder, public)
    return {mode: Frame.fit(reference, mode) for mode in modes}


def embed_all(encoder: Encoder, images: Pictures) -> Embeddings:
    """Return (n, d) embeddings of images, asked in parts.

    Raises:
        AuditRefused: NaN, zero rows, or a width that changed.
    """
    found = np.empty((len(images), encoder.dim), np.float32)
    for at in range(0, len(images), _TOGETHER):
        found[at : at + _TOGETHER] = _embed(encoder, images[at : at + _TOGETHER])
    return found


def embed_views(
    encoder: Encoder, images: Pictures, views: Views, ids: NDArray[np.intp]
) -> Embeddings:
    """Return (n, K, d) embeddings of K views of n images, asked in one call."""
    asked = np.stack([views.make(images, view, ids) for view in range(views.k)], axis=1)
    found = _embed(encoder, asked.reshape(-1, *images.shape[1:]))
    return found.reshape(len(images), views.k, -1)


def _embed(encoder: Encoder, images: NDArray[Any]) -> Embeddings:
    found = encoder.embed(images)
    gates.check_embeddings(found, rows=len(images), width=encoder.dim, who=encoder.name)
    return found


def batches(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield rows of the pool in parts that are asked together, in all views."""
    return (rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH))
