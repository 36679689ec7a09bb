"""Networks inside detectors: graphs that keep their bytes, and what their logits say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import DetectorError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images

Rows = NDArray[np.float64]
"""(n, d) float64."""

_TOGETHER = 128
"""Rows that run together: attention in the largest networks here takes half a megabyte each."""


def run_graph(graph: Graph, inputs: Images) -> Mapping[str, NDArray[np.float32]]:
    """Return each output of n inputs, (n, ...) float32; memory does not grow with n.

    Raises:
        DetectorError: the graph failed, or what it made is not finite.
    """
    starts = range(0, max(1, len(inputs)), _TOGETHER)
    try:
        parts = [graph.run(inputs[at : at + _TOGETHER]) for at in starts]
    except EncoderError as error:
        raise DetectorError(str(error)) from error
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Network:
    """A graph with its bytes, run in parts so that memory does not grow with n.

    Attributes:
        source: the graph's bytes.
        shape: (c, h, w) of one input.
    """

    def __init__(self, source: bytes, *, threads: int = 1, name: str) -> None:
        """Open a graph of pictures.

        Raises:
            ConfigurationError: not a usable graph.
            DetectorError: its input is not (n, c, h, w) of fixed c, h and w.
        """
        self.source, self.name = source, name
        self._graph = Graph(source, threads=threads, name=name)
        shape = self._graph.inputs
        if len(shape) != 3 or None in shape:
            raise DetectorError(f"{name}: expected a graph of (n, c, h, w) pictures, got {shape}")
        channels, height, width = (size or 0 for size in shape)
        self.shape = (channels, height, width)

    def run(self, inputs: Images) -> Mapping[str, NDArray[np.float32]]:
        """Return each output of n inputs, (n, ...) float32.

        Raises:
            DetectorError: the graph failed, or what it made is not finite.
        """
        return run_graph(self._graph, inputs)

    def logits(self, inputs: Images) -> Rows:
        """Return (n, k) float64, the first output."""
        return self.run(inputs)[self._graph.outputs[0]].astype(np.float64)


def log_sum_exp(logits: Rows) -> NDArray[np.float64]:
    """Return log of the sum of exponentials of each row, (n,)."""
    top = logits.max(axis=1)
    found: NDArray[np.float64] = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found


def softmax(logits: Rows) -> Rows:
    """Return the probabilities of (n, k) logits, float64."""
    found: Rows = np.exp(logits - log_sum_exp(logits)[:, None])
    return found
