"""Any ONNX image classifier: one float32 input (n, c, h, w), one output (n, k).

Each input runs alone (a graph of fixed batch size is filled up with its repeats): kernels may
round differently for another number of rows, so company would change answers.

`model.json` beside `model.onnx` is optional and may hold

=============  =================================================================================
`name`         the model name clients ask for; default: the file's stem
`classes`      names of the k columns; default: their numbers from 0
`outputs`      "probabilities" (default), or "logits", of which the softmax is taken
`input_shape`  [c, h, w], needed where the graph leaves it open
`mean`, `std`  one number for each channel; the graph sees `(x - mean) / std` of x in [0, 1]
`batch`        the most inputs that run together (default 1): more is faster, but then the same
               input may get another answer in another batch, in the last bits or, when the
               graph is quantized, by more
=============  =================================================================================

The output that is named as `outputs` says is read, else the first one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.encoders.classifiers.base import (
    canonical,
    checked_probabilities,
    class_names,
    softmax,
)
from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.graphs import Graph
from tollkeeper.types import Batch, Images, Probabilities

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Sidecar(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `model.json` may say; unknown fields are refused, so typos are seen."""

    name: str | None = None
    classes: tuple[str, ...] | None = None
    outputs: Literal["probabilities", "logits"] = "probabilities"
    input_shape: tuple[_Count, _Count, _Count] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[_Positive, ...] | None = None
    batch: _Count = 1


class OnnxClassifier:
    """Classifies with an ONNX graph on the CPU.

    Attributes:
        name: the model name clients ask for.
        classes: names of the columns.
        input_shape: (c, h, w).
        dim: number of classes k.
        accepts: pictures and tensors.
        rows_independent: True unless the sidecar lets several inputs run together.
    """

    accepts: frozenset[Modality] = frozenset({"image", "tensor"})

    def __init__(self, path: Path | str, *, threads: int = 1, name: str | None = None) -> None:
        """Load the graph and run it once.

        Args:
            path: the `.onnx` file.
            threads: threads that one call may use.
            name: model name; by default the sidecar's, else the file's stem.

        Raises:
            ConfigurationError: no such file, no such graph, or a sidecar that does not fit it.
        """
        path = Path(path)
        sidecar = _read_sidecar(path.with_suffix(".json"))
        self._graph = Graph(path, threads=threads)
        self.name = name or sidecar.name or path.stem
        self.input_shape = _input_shape(self._graph, sidecar.input_shape, path)
        self._mean = _per_channel(sidecar.mean, 0.0, self.input_shape[0], path)
        self._std = _per_channel(sidecar.std, 1.0, self.input_shape[0], path)
        self._is_logits = sidecar.outputs == "logits"
        names = self._graph.outputs
        self._output = sidecar.outputs if sidecar.outputs in names else names[0]
        self._together = min(sidecar.batch, self._graph.batch or sidecar.batch)
        self.rows_independent = self._together == 1
        self.dim = self._probe(path)
        self.classes = class_names(sidecar.classes, self.dim, whose=str(path))

    def embed(self, inputs: Batch) -> Probabilities:
        """Classify n inputs.

        Args:
            inputs: n (h, w, 3) uint8 images or (c, h, w) float32 tensors in [0, 1].

        Returns:
            (n, k) float32 probabilities, in input order.

        Raises:
            InputError: another size or number of channels, or values out of range.
            EncoderError: the graph failed, or its rows are no probabilities.
        """
        rows = canonical(inputs, self.input_shape, name=self.name)
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        for start in range(0, len(rows), self._together):
            part = slice(start, start + self._together)
            found[part] = self._answer(rows[part], self.dim)
        return found

    def _probe(self, path: Path) -> int:
        """Return the number of classes, seen in the answer to a black picture."""
        black = np.zeros((1, *self.input_shape), dtype=np.float32)
        try:
            classes = int(checked(self._run(black), n=1, dim=None).shape[1])
            self._answer(black, classes)
        except (EncoderError, ValueError) as error:  # ValueError: an output that is not numbers
            raise ConfigurationError(
                f"{path} loads but fails on a first input: {error}; "
                f'{path.with_suffix(".json").name} may say "outputs": "logits"'
            ) from error
        return classes

    def _answer(self, rows: Images, classes: int) -> Probabilities:
        """Return the probabilities of one batch."""
        answer = self._run(rows)
        make = softmax if self._is_logits else checked_probabilities
        return make(answer, n=len(rows), classes=classes)

    def _run(self, rows: Images) -> NDArray[np.float32]:
        """Return the graph's output for one batch."""
        pixels = (rows - self._mean) / self._std
        batch = self._graph.batch or len(rows)
        # A graph of fixed batch size runs on repeats of the first input; their rows are dropped.
        padding = np.repeat(pixels[:1], batch - len(rows), axis=0)
        return self._graph.run(np.concatenate([pixels, padding]))[self._output][: len(rows)]


def _read_sidecar(path: Path) -> _Sidecar:
    """Read the optional settings beside the model."""
    if not path.is_file():
        return _Sidecar()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _input_shape(
    graph: Graph, told: tuple[int, int, int] | None, path: Path
) -> tuple[int, int, int]:
    """Return (c, h, w) as the graph says, and where it is silent as the sidecar says."""
    if len(graph.inputs) != 3:
        raise ConfigurationError(
            f"{path}: expected one input of shape (n, c, h, w), found (n, {graph.inputs})"
        )
    wanted = told or graph.inputs
    fits = all(own in {None, size} for own, size in zip(graph.inputs, wanted, strict=True))
    if not fits or None in wanted:
        raise ConfigurationError(
            f"{path} takes (c, h, w) = {graph.inputs}; put fitting numbers as "
            f'"input_shape": [c, h, w] into {path.with_suffix(".json").name}'
        )
    channels, height, width = (int(size or 0) for size in wanted)
    return channels, height, width


def _per_channel(
    given: tuple[float, ...] | None, default: float, channels: int, path: Path
) -> NDArray[np.float32]:
    """Return one number for each channel, (c, 1, 1)."""
    numbers = given or (default,) * channels
    if len(numbers) != channels:
        raise ConfigurationError(
            f"{path.with_suffix('.json')}: expected {channels} numbers in mean and std, one for "
            f"each channel, got {len(numbers)}"
        )
    return np.array(numbers, dtype=np.float32)[:, None, None]
