"""Clean embeddings for pieces of requests: the encoder's side of the service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, MeasuresUsage, checked
from tollkeeper.errors import EncoderError, InputError, RequestError, TollkeeperError
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.types import Embeddings

LARGEST = 1e15
"""Norms above this would overflow the guard's sums for a whole batch, so they are refused."""


class Embedder:
    """Calls the encoder, measures it, and checks what it returns.

    Attributes:
        encoder: that it calls.
        shares_calls: whether inputs of several requests may go into one encoder call:
            only if a row's bytes do not depend on its batch mates (law 2).
        prepares: whether `check` converts inputs, which may take a while.
    """

    prepares = False

    def __init__(self, encoder: Encoder, metrics: Metrics) -> None:
        """Embed with `encoder`."""
        self.encoder = encoder
        self._metrics = metrics
        self.shares_calls = bool(getattr(encoder, "rows_independent", False))
        # Asking a protocol is slow, so it is asked once.
        self._measure = encoder.embed_measured if isinstance(encoder, MeasuresUsage) else None

    def check(self, ask: Ask) -> None:
        """Refuse what the encoder cannot take.

        Raises:
            InputError: wrong modality or too many dimensions.
        """
        if ask.modality not in self.encoder.accepts:
            raise InputError(_wrong_modality(ask.modality, self.encoder), param="input")
        if ask.dimensions is not None and ask.dimensions > self.encoder.dim:
            raise InputError(
                f"expected dimensions of at most {self.encoder.dim} for {self.encoder.name}, "
                f"got {ask.dimensions}",
                param="dimensions",
            )

    def embed(self, pieces: Sequence[Piece]) -> list[TollkeeperError | None]:
        """Embed pieces of one modality in one encoder call; complete asks get their embeddings.

        Returns:
            For each piece None, or the error to give its ask. A bad input of one ask does
            not touch the others.
        """
        try:
            self._embed_together(pieces)
        except TollkeeperError as error:
            if len(pieces) == 1:
                return [error]
            return [outcome for piece in pieces for outcome in self.embed([piece])]
        return [None] * len(pieces)

    def _embed_together(self, pieces: Sequence[Piece]) -> None:
        inputs = tuple(item for piece in pieces for item in piece.ask.inputs[piece.rows])
        started = time.perf_counter()
        try:
            embeddings, tokens = self._call(inputs)
        except (RequestError, EncoderError):
            raise
        except Exception as error:
            raise EncoderError(f"the encoder raised {type(error).__name__}: {error}") from error
        finally:
            self._metrics.encoder_seconds.observe(time.perf_counter() - started)
        embeddings = self._checked(embeddings, n=len(inputs))
        self._look(pieces, inputs, embeddings)
        start = 0
        for piece in pieces:
            stop = start + piece.rows.stop - piece.rows.start
            _add(piece.ask, embeddings[start:stop], int(tokens[start:stop].sum()))
            start = stop

    def _checked(self, rows: object, *, n: int) -> Embeddings:
        """Return what the encoder returned for n inputs, or say what is wrong with it."""
        embeddings = checked(rows, n=n, dim=self.encoder.dim)
        if max(embeddings.max(initial=0), -embeddings.min(initial=0)) > LARGEST:
            raise EncoderError(f"the encoder returned numbers above {LARGEST:.0e}")
        return embeddings

    def _look(self, pieces: Sequence[Piece], inputs: tuple[Any, ...], rows: Embeddings) -> None:
        """Look at what was asked and answered, before the pieces get their rows."""

    def _call(self, inputs: tuple[Any, ...]) -> tuple[Embeddings, NDArray[np.int64]]:
        if self._measure is not None:
            return self._measure(inputs)
        return self.encoder.embed(inputs), np.ones(len(inputs), np.int64)


def _add(ask: Ask, embeddings: Embeddings, tokens: int) -> None:
    """Give an ask the embeddings of its next inputs."""
    ask.parts.append(embeddings)
    ask.tokens += tokens
    if sum(map(len, ask.parts)) == len(ask.inputs):
        ask.embeddings = ask.parts[0] if len(ask.parts) == 1 else np.concatenate(ask.parts)
        ask.parts = []


def _wrong_modality(modality: str, encoder: Encoder) -> str:
    takes = " or ".join(sorted(encoder.accepts))
    if modality == "tokens":
        return (
            f"{encoder.name} takes {takes}, not token ids: send strings. "
            "In langchain-openai set check_embedding_ctx_length=False."
        )
    return f"{encoder.name} takes {takes}, got {modality}"
