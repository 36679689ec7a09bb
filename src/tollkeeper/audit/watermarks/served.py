"""A text service whose answers carry a mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, Modality, checked
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings


class TextMark(Protocol):
    """Changes what a text service answers.

    A mark is a function of text and embedding, so that a repeated question is answered alike.

    Attributes:
        name: of the method.
    """

    name: str

    def mark(self, texts: Sequence[str], embeddings: Embeddings) -> Embeddings:
        """Return marked (n, d) float32 unit vectors of n texts and their (n, d) embeddings."""
        ...


class MarkedEncoder:
    """An encoder with a mark on its answers.

    Attributes:
        name: of the encoder.
        dim: embedding width d.
        accepts: text only.
    """

    accepts: frozenset[Modality] = frozenset({"text"})

    def __init__(self, encoder: Encoder, mark: TextMark) -> None:
        """Stand in front of `encoder`.

        Raises:
            ConfigurationError: it reads no text.
        """
        if "text" not in encoder.accepts:
            raise ConfigurationError(
                f"expected an encoder of text, {encoder.name!r} takes {sorted(encoder.accepts)}"
            )
        self.name, self.dim = encoder.name, encoder.dim
        self._encoder, self._mark = encoder, mark

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n texts and mark them: (n, d) float32 unit vectors.

        Raises:
            InputError: an input cannot be embedded.
            EncoderError: the encoder failed.
        """
        marked = self._mark.mark(list(inputs), self._encoder.embed(inputs))
        return checked(marked, n=len(inputs), dim=self.dim)


def unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale (n, d) rows to length 1 in float64; a row of zeros stays one."""
    wide = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1.0)
    return scaled
