"""Any Python callable as an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.encoders.inputs import require
from tollkeeper.errors import ConfigurationError, EncoderError, TollkeeperError
from tollkeeper.types import Batch, Embeddings


class CallableEncoder:
    """Wraps a function from a batch to anything array-like of shape (n, d).

    Example:
        >>> lengths = CallableEncoder(lambda texts: [[float(len(t))] for t in texts], dim=1)
        >>> lengths.embed(["abc", "de"]).tolist()
        [[3.0], [2.0]]
    """

    def __init__(
        self,
        function: Callable[[list[Any]], object],
        *,
        dim: int,
        name: str = "callable",
        accepts: frozenset[Modality] = frozenset({"text"}),
        rows_independent: bool = False,
    ) -> None:
        """Wrap `function`.

        Args:
            function: called with a list of n inputs; may raise `InputError`.
                It is called from several threads at once when served.
            dim: width d of what it returns.
            name: the model name clients ask for.
            accepts: modalities it understands; others are refused before the call.
            rows_independent: whether `function` promises that the bytes of a row depend on its
                own input alone (see `RowsIndependent`); `testing.check_encoder` tries it.

        Raises:
            ConfigurationError: `dim` is not a positive integer.
        """
        if dim < 1:
            raise ConfigurationError(f"expected dim of at least 1, got {dim}")
        self.name = name
        self.dim = dim
        self.accepts = frozenset(accepts)
        self.rows_independent = rows_independent
        self._function = function

    def embed(self, inputs: Batch) -> Embeddings:
        """Call the function and check what it returns.

        Args:
            inputs: n inputs of one accepted modality.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: unaccepted input, or the function refused it.
            EncoderError: the function failed or returned something else than (n, d) numbers.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        require(inputs, self.accepts, name=self.name)
        try:
            embeddings = self._function(list(inputs))
        except TollkeeperError:
            raise
        except Exception as error:
            # The text of a foreign error may quote inputs; only its type leaves.
            raise EncoderError(f"the encoder failed with {type(error).__name__}") from error
        return checked(embeddings, n=len(inputs), dim=self.dim)
