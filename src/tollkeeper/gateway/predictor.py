"""Predictions for pieces of requests, and what a detector thinks of each query."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tollkeeper.detectors.base import Detector
from tollkeeper.encoders.classifiers.base import Classifier, canonical, checked_probabilities
from tollkeeper.errors import DetectorError, TollkeeperError
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.embedder import Embedder
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.types import Embeddings, Probabilities, Scores


class Predictor(Embedder):
    """Calls the classifier, and the detector with the very tensors that the classifier got."""

    def __init__(
        self, classifier: Classifier, metrics: Metrics, detector: Detector | None = None
    ) -> None:
        """Predict with `classifier`; `detector` scores each query."""
        super().__init__(classifier, metrics)
        self._shape = classifier.input_shape
        self._detector = detector
        self.prepares = self._shape is not None

    def check(self, ask: Ask) -> None:
        """Bring pictures into the one form that both classifier and detector see.

        Raises:
            InputError: wrong modality, size or values.
        """
        super().check(ask)
        if self._shape is not None:
            ask.inputs = tuple(canonical(ask.inputs, self._shape, name=self.encoder.name))
            ask.modality = "tensor"

    def _checked(self, rows: object, *, n: int) -> Probabilities:
        return checked_probabilities(rows, n=n, classes=self.encoder.dim)

    def _look(self, pieces: Sequence[Piece], inputs: tuple[Any, ...], rows: Embeddings) -> None:
        """Score queries; whatever fails there answers nobody."""
        if self._detector is None:
            return
        started = time.perf_counter()
        try:
            scores = self._detector.score(np.stack(inputs), rows)
        except TollkeeperError:
            raise
        except Exception as error:
            raise DetectorError(f"the detector raised {type(error).__name__}: {error}") from error
        finally:
            self._metrics.detector_seconds.observe(time.perf_counter() - started)
        checked_scores(scores, n=len(inputs))
        start = 0
        for piece in pieces:
            stop = start + piece.rows.stop - piece.rows.start
            piece.ask.scores.append(scores[start:stop])
            start = stop


def checked_scores(scores: Scores, *, n: int) -> Scores:
    """Return the scores of n queries, or say what is wrong with them.

    Raises:
        DetectorError: another number of them, or not all finite.
    """
    if np.shape(scores) != (n,) or not np.isfinite(scores).all():
        raise DetectorError(f"expected {n} finite scores, got shape {np.shape(scores)}")
    return scores
