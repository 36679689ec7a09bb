"""Splits are checked, and encoders are asked in an order that tells nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.audit.consistency import consistency
from tollkeeper.audit.split import Split, embed_all, measure
from tollkeeper.audit.views import Views
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.memorizer import MemorizingEncoder, smooth_images
from tollkeeper.types import Batch, Embeddings

RNG = np.random.default_rng(1)
IMAGES = smooth_images(300, rng=RNG)
SPLIT = Split(IMAGES[:100], IMAGES[100:200], IMAGES[200:], Views(3, k=3))


class Recorder(MemorizingEncoder):
    """Remembers what it was asked."""

    asked: list[bytes]

    def embed(self, inputs: Batch) -> Embeddings:
        """Note the inputs and embed them."""
        self.asked = [*getattr(self, "asked", []), *(np.asarray(x).tobytes() for x in inputs)]
        return super().embed(inputs)


def test_scores_are_those_of_all_views_together() -> None:
    """Asking in parts and out of order gives the scores of one big batch."""
    encoder = MemorizingEncoder(6, rng=RNG)
    views = np.stack([encoder.embed(SPLIT.views.make(SPLIT.pool(), k)) for k in range(3)], axis=1)
    public = encoder.embed(SPLIT.public)

    found = measure(encoder, SPLIT, modes=("std", "raw"), rng=RNG)

    assert found["std"] == pytest.approx(consistency(views, public, "std"), abs=1e-5)
    assert found["raw"] == pytest.approx(consistency(views, public, "raw"), abs=1e-5)


def test_both_sides_are_asked_in_one_shuffled_order() -> None:
    """Views of trained and held images come interleaved, each once, after the public images."""
    encoder = Recorder(6, rng=RNG)
    measure(encoder, SPLIT, modes=("raw",), rng=RNG)
    made = [SPLIT.views.make(SPLIT.pool(), k) for k in range(3)]
    sides = {view[row].tobytes(): row < 100 for view in made for row in range(200)}
    order = [sides[item] for item in encoder.asked[100:]]

    assert len(encoder.asked) == 100 + 3 * 200
    assert sorted(encoder.asked[100:]) == sorted(sides)
    assert 0.3 < np.mean(order[:300]) < 0.7


def test_every_encoder_is_asked_the_same() -> None:
    """Views do not depend on the encoder or on the order."""
    encoders = [Recorder(6, rng=RNG) for _ in range(2)]
    for encoder in encoders:
        measure(encoder, SPLIT, modes=("raw",), rng=RNG)

    assert sorted(encoders[0].asked) == sorted(encoders[1].asked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trained": IMAGES[:99]}, "at least 100 trained images, got 99"),
        ({"held": IMAGES[50:150]}, "50 items of held are in trained"),
        ({"public": IMAGES[150:250]}, "50 items of public are in held"),
        ({"trained": np.repeat(IMAGES[:50], 2, axis=0)}, "50 of 100 items of trained"),
        ({"held": IMAGES[100:200, :7]}, "item shape"),
        ({"held": IMAGES[100:200].astype(np.float64)}, "expected images"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(change: dict[str, object], reason: str) -> None:
    """Too few, on both sides, twice, or prepared otherwise."""
    SPLIT.check(least=100)
    with pytest.raises(AuditRefused, match=reason):
        replace(SPLIT, **change).check(least=100)  # type: ignore[arg-type]


class Broken(MemorizingEncoder):
    """Answers with zeros from the 257th image on."""

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed, badly."""
        found = super().embed(inputs)
        found[:] = 0 if len(found) < 256 else found
        return found


def test_an_encoder_that_leaves_rows_empty_is_refused() -> None:
    """Zero rows stop the audit and name the encoder."""
    with pytest.raises(AuditRefused, match="memorizer: 44 embeddings are all zeros"):
        embed_all(Broken(4, rng=RNG), IMAGES)
