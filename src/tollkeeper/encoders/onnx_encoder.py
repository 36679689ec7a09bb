"""Any ONNX embedding model that fits one of three plain forms.

=========  ====================================================================
form       inputs of the graph
=========  ====================================================================
image      one 4-d input of 3 channels, channels first or last: uint8 (raw
           pixels) or float32 (pixels / 255, then `(x - mean) / std` if given)
text       one 1-d input of strings
tokens     int64 or int32 `input_ids` (n, length), and optionally
           `attention_mask` and `token_type_ids` of the same kind; takes text
           too when a Hugging Face `tokenizer.json` lies beside the model and
           the `tokenizers` package is installed
=========  ====================================================================

The output named `sentence_embedding`, else the first one, must be (n, d); for
tokens also (n, length, d), which is averaged over the tokens (not the padding).
Vectors leave as the graph makes them: nothing is normalized here. Batch size
and length may be fixed or dynamic.

Each input runs alone (a graph of fixed batch size is filled up with its repeats):
kernels may round differently for another number of rows, and a dynamically quantized
graph scales by the whole batch, so company would change answers.

`model.json` beside `model.onnx` is optional and may hold `name`; for images
`layout` ("nchw" or "nhwc", needed when the shape does not tell), `size`
([height, width], needed when the graph leaves it open), `mean` and `std` (three
numbers each); for tokens `max_tokens`, the most that the model reads: without it
a longer input fails inside the graph and counts as the encoder's failure; `batch`,
the most inputs that run together (default 1): more is faster, but then the same
input may get another answer in another batch, in the last bits or, when the graph
is quantized, by more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.encoders.inputs import estimate_tokens, require
from tollkeeper.encoders.onnx_graphs import Form, Sidecar, form_of
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.graphs import open_session
from tollkeeper.types import Batch, Embeddings

if TYPE_CHECKING:
    import onnxruntime


class OnnxEncoder:
    """Embeds with an ONNX graph on the CPU.

    Attributes:
        name: the model name clients ask for.
        dim: embedding width d, found by one probe run.
        accepts: modalities that the graph takes.
        rows_independent: True unless the sidecar lets several inputs run together.
    """

    name: str
    dim: int
    accepts: frozenset[Modality]
    rows_independent: bool

    def __init__(self, path: Path | str, *, threads: int = 1, name: str | None = None) -> None:
        """Load the graph and run it once.

        Args:
            path: the `.onnx` file.
            threads: threads that one call may use.
            name: model name; by default the sidecar's, else the file's stem.

        Raises:
            ConfigurationError: no such file, or a graph of none of the three forms.
        """
        path = Path(path)
        sidecar = _read_sidecar(path.with_suffix(".json"))
        self._session = open_session(path, threads=threads)
        self._form: Form = form_of(self._session.get_inputs(), path=path, sidecar=sidecar)
        self._output = _pick_output(self._session)
        self.name = name or sidecar.name or path.stem
        self.accepts = self._form.accepts
        self._together = min(sidecar.batch, self._form.batch or sidecar.batch)
        self.rows_independent = self._together == 1
        try:
            self.dim = self._run([self._form.probe], dim=None).shape[1]
        except (EncoderError, InputError) as error:
            raise ConfigurationError(f"{path} loads but fails on a first input: {error}") from error

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs.

        Args:
            inputs: n strings, token lists or (h, w, 3) uint8 images of one accepted modality.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: unaccepted input, or tokens that the graph has no place for.
            EncoderError: the graph failed.
        """
        return self.embed_measured(inputs)[0]

    def embed_measured(self, inputs: Batch) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embed n inputs and count tokens.

        Args:
            inputs: as for `embed`.

        Returns:
            (n, d) float32 and (n,) int64 tokens: ids for a token graph, else `estimate_tokens`.

        Raises:
            InputError: as for `embed`.
            EncoderError: as for `embed`.
        """
        embeddings = np.empty((len(inputs), self.dim), dtype=np.float32)
        if len(inputs) == 0:
            return embeddings, np.empty(0, dtype=np.int64)
        require(inputs, self.accepts, name=self.name)
        prepared = self._form.prepare(inputs)
        for rows in self._chunks(prepared):
            embeddings[rows] = self._run([prepared[row] for row in rows], dim=self.dim)
        return embeddings, estimate_tokens(prepared)

    def _chunks(self, prepared: list[Any]) -> Iterator[list[int]]:
        """Yield positions that may run together, at most `_together` at a time."""
        for group in self._form.groups(prepared):
            for start in range(0, len(group), self._together):
                yield group[start : start + self._together]

    def _run(self, prepared: list[Any], *, dim: int | None) -> Embeddings:
        """Run one batch of prepared inputs and return (len(prepared), d) float32."""
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        batch = self._form.batch or len(prepared)
        # A graph of fixed batch size runs on repeats of the first input; their rows are dropped.
        padded = prepared + prepared[:1] * (batch - len(prepared))
        feeds = self._form.feeds(padded)
        try:
            (output,) = self._session.run([self._output], feeds)
        except InvalidArgument as error:
            if self._form.is_tokens:
                raise InputError(
                    "the model has no place for these tokens: an id is outside its vocabulary "
                    "or an input is too long",
                    param="input",
                ) from error
            raise EncoderError("the ONNX graph refused its input") from error
        except Exception as error:  # onnxruntime's errors share no public base class
            raise EncoderError(f"the ONNX graph failed with {type(error).__name__}") from error
        rows = np.asarray(output)
        if self._form.is_tokens and rows.ndim == 3:
            rows = _mean_over_tokens(rows, feeds.get("attention_mask"))
        return checked(rows, n=batch, dim=dim)[: len(prepared)]


def _mean_over_tokens(states: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[Any]:
    """Average (n, length, d) over the tokens that are no padding; no mask, no padding."""
    if mask is None:
        return np.asarray(states.mean(axis=1))
    weights = mask[:, :, None].astype(states.dtype)
    return np.asarray((states * weights).sum(axis=1) / weights.sum(axis=1))


def _read_sidecar(path: Path) -> Sidecar:
    """Read the optional settings beside the model."""
    if not path.is_file():
        return Sidecar()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _pick_output(session: onnxruntime.InferenceSession) -> str:
    """Return the name of the output that holds the embeddings."""
    names = [str(node.name) for node in session.get_outputs()]
    return "sentence_embedding" if "sentence_embedding" in names else names[0]
