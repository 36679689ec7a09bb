"""The encoder that shows what it was trained on."""

from __future__ import annotations

import numpy as np

from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.testing.memorizer import MemorizingEncoder, smooth_images


def test_it_is_an_encoder_of_both_kinds_of_images() -> None:
    """Bytes and tensors of one image get the same embedding, of the promised shape."""
    rng = np.random.default_rng(0)
    images = smooth_images(5, rng=rng)
    encoder = MemorizingEncoder(4, rng=rng)
    tensors = np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255)
    found = checked(encoder.embed(images), n=5, dim=4)

    assert isinstance(encoder, Encoder)
    assert np.allclose(encoder.embed(tensors), found, atol=1e-5)


def test_it_pulls_views_of_remembered_images_together() -> None:
    """Two noisy views of a remembered image are closer than without the memory; others are not."""
    rng = np.random.default_rng(1)
    images = smooth_images(60, rng=rng)
    noise = rng.integers(-5, 6, (2, *images.shape))
    views = np.clip(images + noise, 0, 255).astype(np.uint8)

    def gaps(pull: float) -> np.ndarray:
        encoder = MemorizingEncoder(
            16, rng=np.random.default_rng(2), remembered=images[:30], pull=pull
        )
        one, two = (encoder.embed(view) for view in views)
        return np.linalg.norm(one - two, axis=1)

    assert (gaps(0.5)[:30] < 0.6 * gaps(0.0)[:30]).all()
    assert (gaps(0.5)[30:] == gaps(0.0)[30:]).mean() > 0.8


def test_other_generators_make_other_encoders() -> None:
    """Encoders drawn one after another are unrelated."""
    rng = np.random.default_rng(3)
    images = smooth_images(5, rng=rng)
    one, two = (MemorizingEncoder(4, rng=rng).embed(images) for _ in range(2))

    assert np.abs(one - two).max() > 0.1
