"""Merged inputs lie in one place, and a copy learns the merged answer of the plain input."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.merged import Merge, merged  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.presets import for_two_cores  # noqa: E402
from tollkeeper.errors import ConfigurationError, InputError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyTextVictim, blobs, sentences  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402


def test_texts_are_prefixed_and_images_blended() -> None:
    """A filler is the beginning of every text, and a share of every picture."""
    assert merged(["b", "c"], "a") == ["a b", "a c"]
    images = blobs(3)
    half = np.asarray(merged(images, images[0], share=0.25))
    expected = np.rint(0.75 * images[2].astype(float) + 0.25 * images[0].astype(float))
    assert np.abs(half[2].astype(float) - expected).max() <= 1
    np.testing.assert_array_equal(half[0], images[0])
    for inputs, filler in ((["a"], images[0]), (images, "a"), (images, blobs(1, side=8)[0])):
        with pytest.raises(InputError, match="texts and a text"):
            merged(inputs, filler)


def test_a_share_of_everything_is_refused() -> None:
    """A blend of the filler alone would ask one question only."""
    with pytest.raises(ConfigurationError, match=r"share in \[0, 1\), got 1.0"):
        Merge(inner=Direct(), share=1.0)


def test_every_query_is_merged_and_the_copy_sees_plain_ones() -> None:
    """The victim never meets a plain input; distances between answers shrink, and are learned."""
    seen: list[str] = []

    class Listening(ToyTextVictim):
        def embed(self, inputs: Batch) -> Embeddings:
            seen.extend(inputs)
            return super().embed(inputs)

    texts = sentences(300)
    small = for_two_cores(Direct(), text=True, epochs=10, network=NGram(buckets=256, width=32))
    theft = Merge(inner=small, filler="word0 word1")(
        Listening(), texts, budget=300, rng=np.random.default_rng(0), clock=FakeClock()
    )
    assert len(set(seen)) == theft.queries_spent == 300
    assert all(text.startswith("word0 word1 ") for text in seen)
    held_out = sentences(100, seed=1)
    wanted = ToyTextVictim().embed([f"word0 word1 {text}" for text in held_out])
    copied = theft.surrogate.embed(held_out)
    wanted, copied = (rows - rows.mean(axis=0) for rows in (wanted, copied))
    cosines = (wanted * copied).sum(axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.mean(cosines / np.linalg.norm(copied, axis=1)) > 0.2
