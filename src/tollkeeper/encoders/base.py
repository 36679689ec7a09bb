"""What an encoder is: the one interface of victims, surrogates and guarded views."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import EncoderError
from tollkeeper.types import Batch, Embeddings

Modality = str
"""One of `"text"`, `"tokens"`, `"image"`, `"tensor"`."""


@runtime_checkable
class Encoder(Protocol):
    """Anything that embeds.

    Attributes:
        name: the model name clients ask for.
        dim: embedding width d.
        accepts: modalities of input that `embed` understands.
    """

    name: str
    dim: int
    accepts: frozenset[Modality]

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs.

        Args:
            inputs: n strings, token lists or (h, w, 3) uint8 RGB images, one modality per call.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: an input cannot be embedded; names what was expected.
            EncoderError: the encoder failed.
        """
        ...


@runtime_checkable
class MeasuresUsage(Protocol):
    """Capability: an encoder that knows how many tokens it processed."""

    def embed_measured(self, inputs: Batch) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embed n inputs and count the tokens of each, for the response's `usage`.

        Args:
            inputs: as for `Encoder.embed`.

        Returns:
            (n, d) float32 and (n,) int64 tokens per input. An upstream that reports only
            a total has it spread over its inputs, so that the sum is exact.

        Raises:
            InputError: an input cannot be embedded.
            EncoderError: the encoder failed.
        """
        ...


@runtime_checkable
class Remote(Protocol):
    """Capability: an encoder that waits for another machine, so calls should overlap.

    Attributes:
        concurrency: how many calls may run at once, each from its own thread.
    """

    concurrency: int


@runtime_checkable
class RowsIndependent(Protocol):
    """Capability: an encoder that says whether batch mates can change a row.

    Kernels may add in another order for another number of rows, and dynamic quantization
    scales by the whole batch, so few models keep this by themselves. An encoder without the
    attribute is taken not to.

    Attributes:
        rows_independent: True promises that the bytes of a row depend on its own input alone,
            not on the number, the content or the order of the other inputs of a call.
    """

    rows_independent: bool


def checked(embeddings: object, *, n: int, dim: int | None) -> Embeddings:
    """Return `embeddings` as a C-contiguous (n, d) float32 array, or say what is wrong.

    Args:
        embeddings: whatever an encoder returned.
        n: rows expected.
        dim: width expected; None accepts any width of at least 1.

    Returns:
        (n, d) float32.

    Raises:
        EncoderError: wrong shape, not numeric, or not finite.
    """
    try:
        with np.errstate(over="ignore"):  # too large becomes infinity, refused below
            array = np.ascontiguousarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EncoderError(
            f"the encoder returned something that is not numbers: {error}"
        ) from error
    if array.ndim != 2 or array.shape[0] != n or array.shape[1] < 1:
        raise EncoderError(f"expected embeddings of shape ({n}, d), got {array.shape}")
    if dim is not None and array.shape[1] != dim:
        raise EncoderError(
            f"expected embeddings of width {dim}, got {array.shape[1]}; was the model swapped?"
        )
    if not np.isfinite(array).all():
        raise EncoderError("the encoder returned NaN or infinity; the request was not charged")
    return array
