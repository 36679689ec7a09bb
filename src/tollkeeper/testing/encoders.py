"""Encoders that need no model: the same answer everywhere, at almost no cost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Modality
from tollkeeper.types import Batch, Embeddings

_DIGEST_BYTES = 4
"""Four billion distinct embeddings, from four rows each of a table that fits in cache."""


class HashEncoder:
    """Embeds anything by its hash: equal inputs agree, different inputs are unrelated.

    Each byte of a short digest picks one row of a fixed Gaussian table, and the rows
    add up. Coordinates have mean 0 and variance 1. Nothing about the *content* is
    encoded, so use it to test plumbing and speed, never quality.

    Example:
        >>> encoder = HashEncoder(8)
        >>> encoder.embed(["a", "b"]).shape
        (2, 8)
    """

    accepts: frozenset[Modality] = frozenset({"text", "tokens", "image"})
    rows_independent: bool = True

    def __init__(self, dim: int) -> None:
        """Make an encoder of width `dim`, named `hash-<dim>`.

        Raises:
            ValueError: `dim` is not positive.
        """
        if dim < 1:
            raise ValueError(f"expected a width of at least 1, got {dim}")
        self.name = f"hash-{dim}"
        self.dim = dim
        rows = np.random.default_rng(dim).standard_normal((_DIGEST_BYTES * 256, dim))
        self._table = (rows / np.sqrt(_DIGEST_BYTES)).astype(np.float32)

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs of any modality.

        Args:
            inputs: n strings, token lists or (h, w, 3) uint8 images.

        Returns:
            (n, d) float32.
        """
        digests = b"".join(
            hashlib.blake2b(_content(item), digest_size=_DIGEST_BYTES).digest() for item in inputs
        )
        picks = np.frombuffer(digests, np.uint8).reshape(len(inputs), _DIGEST_BYTES).astype(np.intp)
        picks += 256 * np.arange(_DIGEST_BYTES)
        embeddings: Embeddings = self._table[picks[:, 0]]
        for column in range(1, _DIGEST_BYTES):
            embeddings += self._table[picks[:, column]]
        return embeddings


def _content(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, np.ndarray):
        return f"{item.shape}{item.dtype}".encode() + item.tobytes()
    tokens: Sequence[int] = item
    return np.asarray(tokens, np.int64).tobytes()


def hash_encoder(dim: int) -> HashEncoder:
    """Return a hash encoder of width `dim`."""
    return HashEncoder(dim)


def hash_encoder_384() -> HashEncoder:
    """Return a 384-d hash encoder: `python:tollkeeper.testing.encoders:hash_encoder_384`."""
    return HashEncoder(384)


def hash_encoder_768() -> HashEncoder:
    """Return a 768-d hash encoder: `python:tollkeeper.testing.encoders:hash_encoder_768`."""
    return HashEncoder(768)


def hash_encoder_1536() -> HashEncoder:
    """Return a 1536-d hash encoder: `python:tollkeeper.testing.encoders:hash_encoder_1536`."""
    return HashEncoder(1536)
