"""What every encoder of the ownership experiments is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.consistency import MODES, Frame, Mode, agreement
from tollkeeper.audit.split import Split
from tollkeeper.audit.views import Views
from tollkeeper.bench.ownership.scene import Block, Scene
from tollkeeper.bench.theft.probes import linear_probe
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Embeddings, Scores

_BATCH = 512


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Images for encoders; the views are made once for all of them.

    Attributes:
        splits: of the claims. They are randomized: the scene was shuffled before any training.
        pools: (2 n, 16, 16, 3) uint8 by claim, the private images first.
        views: (2 n, K, 16, 16, 3) uint8 of these.
        public: (m, 16, 16, 3) uint8 that no encoder was trained on.
        train: labeled images for the downstream classifier.
        test: labeled images that it is tested on.
    """

    splits: tuple[Split, ...]
    pools: tuple[NDArray[np.uint8], ...]
    views: tuple[NDArray[np.uint8], ...]
    public: NDArray[np.uint8]
    train: Block
    test: Block


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What an encoder answered.

    Attributes:
        scores: (2 n,) consistency by mode, for each claim.
        plain: (2 n, d) embeddings of each claim's images themselves.
        public: (m, d) embeddings of the public images.
        accuracy: of a linear classifier on the encoder, in [0, 1].
    """

    scores: tuple[dict[Mode, Scores], ...]
    plain: tuple[Embeddings, ...]
    public: Embeddings
    accuracy: float


def prepare(scene: Scene, *, k: int, rng: np.random.Generator) -> Asked:
    """Make k views of each image of each claim, from a seed of each claim's own."""
    splits = tuple(
        Split(
            trained=claim.private.images,
            held=claim.held.images,
            public=scene.public.images,
            views=Views(seed=int(rng.integers(1 << 63)), k=k),
            randomized=True,
        )
        for claim in scene.claims
    )
    pools = tuple(
        np.concatenate([claim.private.images, claim.held.images]) for claim in scene.claims
    )
    views = tuple(_views(split.views, pool) for split, pool in zip(splits, pools, strict=True))
    return Asked(splits, pools, views, scene.public.images, scene.probe_train, scene.probe_test)


def _views(views: Views, pool: NDArray[np.uint8]) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = np.stack(
        [views.make(pool, number).astype(np.uint8) for number in range(views.k)], axis=1
    )
    return made


def tell(encoder: Encoder, asked: Asked) -> Told:
    """Ask an encoder everything.

    Raises:
        AuditRefused: NaN, zero rows or constant embeddings.
    """
    public = _embed(encoder, asked.public)
    frames = {mode: Frame.fit(public, mode) for mode in MODES}
    scores = []
    for views in asked.views:
        n, k = views.shape[:2]
        seen = _embed(encoder, views.reshape(n * k, *views.shape[2:])).reshape(n, k, -1)
        scores.append({mode: agreement(seen, frame) for mode, frame in frames.items()})
    plain = tuple(_embed(encoder, pool) for pool in asked.pools)
    return Told(tuple(scores), plain, public, downstream(encoder, asked))


def downstream(encoder: Encoder, asked: Asked) -> float:
    """Return the accuracy of a linear classifier on an encoder's embeddings."""
    train, test = (_embed(encoder, block.images) for block in (asked.train, asked.test))
    predicted = linear_probe(train, asked.train.labels, test)
    return float((predicted == asked.test.labels).mean())


def _embed(encoder: Encoder, images: NDArray[np.uint8]) -> Embeddings:
    parts = [encoder.embed(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
    return np.concatenate(parts)
