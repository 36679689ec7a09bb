"""An encoder that is somebody's service: asked politely, within caps, and never twice in vain."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.client.allowance import Spend
from tollkeeper.client.calls import Ask, Line, Round, Stopped
from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.inputs import digest, require
from tollkeeper.encoders.upstream_ask import Asker
from tollkeeper.types import Batch, Embeddings

Rows = dict[int, NDArray[np.float32]]
"""Answers (d,) by position."""


class Target:
    """One account at an OpenAI-compatible service, as an encoder; make it with `open_target`.

    Every answer is on disk before it is returned. What the transcript already holds is not
    asked again: the k-th time that a run asks an input it gets the k-th answer ever given,
    so a run that broke and is repeated goes the same way and pays only for what is new.

    Attributes:
        name: the model's name.
        dim: embedding width d; 0 until it is known.
        accepts: `{"text", "tokens", "image"}`; what the target itself does not take it refuses.
    """

    accepts: frozenset[Modality] = frozenset({"text", "tokens", "image"})

    def __init__(self, line: Line, *, model: str | None, batch: int, closing: ExitStack) -> None:
        """Stand for a target.

        Args:
            line: whom to call and how.
            model: name to send; None sends none.
            batch: inputs in one call.
            closing: closes what the target owns.
        """
        self.name = model or "target"
        self.dim = 0
        self._line = line
        self._asker = Asker(model)
        self._batch = batch
        self._closing = closing
        self._lock = threading.Lock()
        self._turns: Counter[bytes] = Counter()

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs; one call of this method at a time, made of several HTTP calls at once.

        Args:
            inputs: n strings, token lists or (h, w, 3) uint8 images. Strings (data URIs too)
                and token lists are sent as they are, images as PNG, which loses nothing.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            BudgetExhausted: a cap is or would be reached; nothing more was sent.
            InputError: the target refused an input.
            TooLargeError: a single input is too large for the target.
            ModelNotFoundError: the target does not serve the model.
            RefusalError: the target refuses this account, for now or for good.
            EncoderError: the target failed or answered garbage.
            LedgerError: the transcript cannot be written.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        kind = require(inputs, self.accepts, name=self.name)
        with self._lock:
            asks = self._plan(inputs, kind)
            rows = self._known(asks)
            rows |= self._ask([ask for ask in asks if ask.position not in rows])
            self._turns.update(ask.digest for ask in asks)
        return np.stack([rows[position] for position in range(len(asks))])

    def rewind(self) -> None:
        """Begin a new run: the next time an input is asked is its first time again."""
        with self._lock:
            self._turns.clear()

    def spend(self) -> Spend:
        """Return what this account has cost, in all runs of its transcript."""
        return self._line.transcript.spend()

    def close(self) -> None:
        """Close the connections and the transcript."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self, inputs: Batch, kind: Modality) -> list[Ask]:
        """Tell the inputs apart that are asked for the first, the second, ... time."""
        turns: Counter[bytes] = Counter()
        asks = []
        for position, item in enumerate(inputs):
            mark = digest(item, kind)
            asks.append(Ask(position, item, mark, self._turns[mark] + turns[mark]))
            turns[mark] += 1
        return asks

    def _known(self, asks: Sequence[Ask]) -> Rows:
        """Return what the transcript holds."""
        found = [(ask, self._line.transcript.find(ask.digest, ask.turn)) for ask in asks]
        return {ask.position: row for ask, row in found if row is not None}

    def _ask(self, asks: Sequence[Ask]) -> Rows:
        """Ask the target; return (d,) answers by position."""
        if not asks:
            return {}
        batches = [asks[i : i + self._batch] for i in range(0, len(asks), self._batch)]
        self._check(asks, calls=len(batches))
        calls = Round(self._line, self._asker, dim=self.dim or None)
        with ThreadPoolExecutor(min(self._line.pace.concurrency, len(batches))) as pool:
            futures = [pool.submit(_rows, calls, batch) for batch in batches]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # After a failure or Ctrl-C: calls in flight may end, and no other begins.
                calls.stop()
                pool.shutdown(cancel_futures=True)
        return _gathered(futures)

    def _check(self, asks: Sequence[Ask], *, calls: int) -> None:
        """Refuse before the first call what is going to break a cap."""
        allowance = self._line.allowance
        distinct = sum(ask.turn == 0 for ask in asks)
        money = allowance.estimate([ask.item for ask in asks], calls=calls)
        repeats = len(asks) - distinct
        allowance.check(Spend(calls=calls, distinct=distinct, repeats=repeats, money=money))


class ClassifierTarget(Target):
    """One account at a service that predicts, as a classifier; make it with `open_classifier_target`.

    Its rows are what the target answers, which a defense may have changed: they need not sum to
    one. Tensors are sent as base64 of float32, exact to the bit.

    Attributes:
        classes: names of the columns, as the target gives them, else their numbers.
        input_shape: (c, h, w) of the probe; None for text.
        accepts: `{"text", "image", "tensor"}`; what the target itself does not take it refuses.
    """

    classes: tuple[str, ...] = ()
    input_shape: tuple[int, int, int] | None = None
    accepts: frozenset[Modality] = frozenset({"text", "image", "tensor"})

    def knows(self, probe: Any) -> None:
        """Take over what the probe and its answer tell."""
        named = self._line.transcript.fact("classes")
        names = map(str, range(self.dim)) if named is None else json.loads(named)
        self.classes = tuple(names)
        if isinstance(probe, np.ndarray):
            channels_last = probe.dtype == np.uint8
            sizes = np.moveaxis(probe, 2, 0).shape if channels_last else probe.shape
            self.input_shape = (sizes[0], sizes[1], sizes[2])


def _rows(calls: Round, batch: Sequence[Ask]) -> Rows:
    return {
        ask.position: row
        for part, embeddings in calls.ask(batch)
        for ask, row in zip(part, embeddings, strict=True)
    }


def _gathered(futures: Sequence[Future[Rows]]) -> Rows:
    """Return the answers of all calls, or raise what ended the round."""
    rows: Rows = {}
    failures = []
    for future in futures:
        if future.cancelled():
            continue
        if error := future.exception():
            failures.append(error)
        else:
            rows |= future.result()
    for error in sorted(failures, key=lambda error: isinstance(error, Stopped)):
        raise error  # those that were only stopped come last
    return rows
