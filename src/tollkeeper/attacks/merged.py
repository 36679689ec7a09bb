"""Ask every input merged with the same filler, and learn from the answers as they come.

A text behind a fixed prefix, or a picture blended with one other picture, is embedded near that
filler: to a guard that measures where an account has been, all of them lie in one place.
An encoder that pools over its input still lets what differs through, shrunk, and a copy
learns the merged answer of the plain input, which is as good for any task with a head on top.

Not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tollkeeper.attacks.asking import remaining
from tollkeeper.attacks.behind import Behind
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Batch, Embeddings


def merged(inputs: Batch, filler: Any, *, share: float = 0.5) -> Batch:
    """Return n inputs merged with a filler: a prefix of texts, or blended into images.

    Args:
        inputs: strings, or (n, h, w, 3) uint8 images.
        filler: a string, or one (h, w, 3) image.
        share: of the filler in a blend; texts get all of it.

    Raises:
        InputError: inputs and filler are not both texts or images of one size.
    """
    if isinstance(filler, str) and all(isinstance(one, str) for one in inputs):
        return [f"{filler} {one}" for one in inputs]
    images = np.asarray(inputs)
    if not isinstance(filler, np.ndarray) or images.shape[1:] != filler.shape:
        raise InputError("expected texts and a text, or images and one image of their size")
    blend = (1 - share) * images.astype(np.float32) + share * filler.astype(np.float32)
    whole: Batch = np.rint(blend).astype(np.uint8)
    return whole


class Merging:
    """An account that is asked every input merged with a filler."""

    def __init__(self, account: Encoder, filler: Any, *, share: float = 0.5) -> None:
        """Stand before a metered account; filler and share are those of `merged`."""
        self.name, self.dim, self.accepts = account.name, account.dim, account.accepts
        self._account, self._filler, self._share = account, filler, share

    @property
    def remaining(self) -> int:
        """Distinct inputs that may still be asked."""
        return remaining(self._account)

    def embed(self, inputs: Batch) -> Embeddings:
        """Return the (n, d) answers to the merged inputs."""
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._account.embed(merged(inputs, self._filler, share=self._share))


@dataclass(frozen=True, kw_only=True)
class Merge(Behind):
    """Any attack; it sees plain inputs and merged answers.

    Attributes:
        filler: what every input is merged with; None takes the first input of the pool.
        share: of the filler in a blend of images.
    """

    paper: ClassVar[str] = "ours"
    filler: Any = None
    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a blend that shows nothing of the input.

        Raises:
            ConfigurationError: a share that is not in [0, 1).
        """
        if not 0 <= self.share < 1:
            raise ConfigurationError(f"expected a filler's share in [0, 1), got {self.share}")

    def put(self, account: Encoder, queries: Batch) -> Encoder:
        """Return the account behind the disguise."""
        filler = queries[0] if self.filler is None else self.filler
        return Merging(account, filler, share=self.share)
