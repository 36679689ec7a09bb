"""A small text surrogate: hashed words and letter 4-grams, summed and scaled, then two layers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.errors import InputError
from tollkeeper.lab.torching import device, seeded_init
from tollkeeper.types import Batch

_WORD = re.compile(r"\w+|[^\w\s]")
_LETTERS = 4
_START = 0.005
"""Deviation of the table at the start. The sum is scaled to RMS 1, so only the ratio of the
learning rate to this matters: a small start lets rare n-grams move as fast as the layers do."""


@dataclass(frozen=True, slots=True)
class NGram:
    """Vectors of words and letter 4-grams (after fastText), summed, then two layers.

    The sum is divided by its root mean square, so long and short texts weigh the same. Word
    pairs are left out: they fit the answers, but tell little of other texts.

    Attributes:
        buckets: rows of the table that n-grams are hashed into.
        width: of those rows; below the victim's it is a bottleneck.
        hidden: units of the middle layer, which a linear layer goes around.
        longest: n-grams per text that are read.
    """

    buckets: int = 2**15
    width: int = 128
    hidden: int = 512
    longest: int = 256

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return a network from texts to (n, dim)."""
        with seeded_init(rng):
            network = _NGramNetwork(self, dim)
        return network.to(device())


class _NGramNetwork(nn.Module):
    accepts = "text"

    def __init__(self, sizes: NGram, dim: int) -> None:
        super().__init__()
        self.sizes = sizes
        # Row 0 stands for "no n-gram" and is left out of the sum.
        self.table = nn.EmbeddingBag(sizes.buckets + 1, sizes.width, mode="sum", padding_idx=0)
        nn.init.normal_(self.table.weight, std=_START)
        self.straight = nn.Linear(sizes.width, dim)
        self.bent = nn.Sequential(
            nn.Linear(sizes.width, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, dim)
        )

    def prepare(self, inputs: Batch) -> Tensor:
        """Return the hashed n-grams of n texts, (n, longest) int64, filled up with zeros."""
        rows = np.zeros((len(inputs), self.sizes.longest), dtype=np.int64)
        for row, text in zip(rows, inputs, strict=True):
            if not isinstance(text, str):
                raise InputError(f"expected texts, got {type(text).__name__}")
            found = [1 + zlib.crc32(gram.encode()) % self.sizes.buckets for gram in _grams(text)]
            row[: len(found[: self.sizes.longest])] = found[: self.sizes.longest]
        return torch.from_numpy(rows)

    def forward(self, grams: Tensor) -> Tensor:
        """Embed hashed n-grams (n, longest): (n, dim)."""
        scaled = F.rms_norm(self.table(grams).float(), (self.sizes.width,), eps=1e-12)
        embedded: Tensor = self.straight(scaled) + self.bent(scaled)
        return embedded


def _grams(text: str) -> Iterator[str]:
    """Yield words, then their letters by fours, so that a cut drops the letters of the last."""
    words = _WORD.findall(text.lower())
    yield from words
    for word in words:
        marked = f"<{word}>"
        yield from (marked[i : i + _LETTERS] for i in range(len(marked) - _LETTERS + 1))
