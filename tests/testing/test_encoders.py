"""The hash encoders."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tollkeeper.encoders.load import load_encoder
from tollkeeper.testing.checks import check_encoder
from tollkeeper.testing.encoders import HashEncoder, hash_encoder

IMAGES = [np.full((4, 4, 3), value, np.uint8) for value in (0, 1, 255)]


@pytest.mark.parametrize(
    "inputs",
    [["a", "b", "", "ü"], [[1, 2], [3], []], IMAGES],
    ids=["text", "tokens", "image"],
)
def test_keeps_the_encoder_contract(inputs: list[object]) -> None:
    """Every modality passes the contract check."""
    check_encoder(hash_encoder(16), inputs)


@pytest.mark.parametrize("dim", [384, 768, 1536])
def test_specs_load(dim: int) -> None:
    """Each shipped factory can be named in an encoder spec."""
    encoder = load_encoder(f"python:tollkeeper.testing.encoders:hash_encoder_{dim}")
    assert (encoder.dim, encoder.embed(["x"]).shape) == (dim, (1, dim))


def test_answer_is_the_sum_of_table_rows() -> None:
    """An embedding is the sum of the rows that the digest's bytes pick."""
    encoder = HashEncoder(8)
    rows = np.random.default_rng(8).standard_normal((1024, 8))
    digest = hashlib.blake2b(b"hello", digest_size=4).digest()
    expected = sum(rows[256 * i + byte] for i, byte in enumerate(digest)) / 2
    assert np.allclose(encoder.embed(["hello"])[0], expected, atol=1e-5)


def test_coordinates_are_standard() -> None:
    """Over many inputs a coordinate has mean 0 and variance 1, and inputs are unrelated."""
    embeddings = hash_encoder(64).embed([str(i) for i in range(4000)])
    assert abs(float(embeddings.mean())) < 0.05
    assert abs(float(embeddings.var()) - 1) < 0.1
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert abs(float((unit[:2000] * unit[2000:]).sum(axis=1).mean())) < 0.02


def test_images_differ_by_shape() -> None:
    """The same bytes in another shape are another image."""
    flat, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    one, other = hash_encoder(8).embed([flat, tall])
    assert not np.array_equal(one, other)


def test_width_must_be_positive() -> None:
    """A width of zero is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        hash_encoder(0)
