"""ONNX graphs: opened with a fixed number of threads, run without torch.

Networks that serve (victims, detectors, misinformers) are graphs of `(n, ...)` float32 arrays;
whoever trains them exports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError, EncoderError

if TYPE_CHECKING:
    import onnxruntime


def open_session(
    source: Path | bytes, *, threads: int, name: str = "the model"
) -> onnxruntime.InferenceSession:
    """Open a graph with a fixed number of threads that do not spin while idle.

    Args:
        source: the file, or its bytes.
        threads: that one run may use.
        name: of a graph that comes as bytes, for messages.

    Raises:
        ConfigurationError: no such file, or not a usable graph.
    """
    import onnxruntime

    if isinstance(source, Path) and not source.is_file():
        raise ConfigurationError(f"expected an ONNX model at {source}, found no file")
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # Warnings about the graph would go to standard error.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = str(source) if isinstance(source, Path) else source
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        line, where = " ".join(str(error).split()), source if isinstance(source, Path) else name
        raise ConfigurationError(f"{where} is not a usable ONNX model: {line[:300]}") from error


class Graph:
    """A graph of one float32 input (n, ...) and one or more outputs (n, ...).

    Attributes:
        name: for messages.
        batch: rows that a run must have; None for any number.
        inputs: shape of the input, without n; None where the graph leaves it open.
        outputs: names, in the graph's order.
    """

    def __init__(self, source: Path | bytes, *, threads: int = 1, name: str = "") -> None:
        """Open a graph.

        Raises:
            ConfigurationError: no such file, not a usable graph, or not one float32 input.
        """
        self.name = name or (source.stem if isinstance(source, Path) else "graph")
        self._source = source
        self._session = open_session(source, threads=threads, name=self.name)
        (first, *others) = self._session.get_inputs()
        if others or first.type != "tensor(float)":
            raise ConfigurationError(
                f"{self.name}: expected a graph of one float32 input, got "
                f"{1 + len(others)}, the first of {first.type}"
            )
        self._input = str(first.name)
        self.batch, *inputs = (size if isinstance(size, int) else None for size in first.shape)
        self.inputs = tuple(inputs)
        self.outputs = tuple(str(node.name) for node in self._session.get_outputs())

    def to_bytes(self) -> bytes:
        """Return the graph as it was opened."""
        return self._source if isinstance(self._source, bytes) else self._source.read_bytes()

    def run(self, rows: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Run n rows together.

        Args:
            rows: (n, ...) as the graph takes them.

        Returns:
            Each output by its name, (n, ...) float32.

        Raises:
            EncoderError: the graph failed, or what it made is not finite.
        """
        try:
            made = self._session.run(list(self.outputs), {self._input: rows})
        except Exception as error:  # onnxruntime's errors share no public base class
            raise EncoderError(f"{self.name} failed with {type(error).__name__}") from error
        found = {
            name: np.asarray(one, np.float32) for name, one in zip(self.outputs, made, strict=True)
        }
        if not all(np.isfinite(one).all() for one in found.values()):
            raise EncoderError(f"{self.name} returned NaN or infinity")
        return found
