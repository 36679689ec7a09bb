"""The built-in text encoder: sentences to unit vectors with numpy and onnxruntime only.

A text is a sum of table rows (words, neighbors, n-grams) that goes through a small nonlinear
network; `weights/text.md` says how it was trained and how good it is. A row of the answer never
depends on the other inputs of the request:

- the table holds small integers, so the sum of a short text is exact in float32 and neither the
  order of its terms nor the padding can change it; a long text is never padded;
- the network never sees a batch of one row, which is where matrix kernels change their order of
  summation; nothing is quantized from the data of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import checked
from tollkeeper.encoders.inputs import SEND_STRINGS
from tollkeeper.encoders.tokenizer import PAD, Tokenizer, Vocabulary, split
from tollkeeper.errors import EncoderError, InputError
from tollkeeper.types import Batch, Embeddings

if TYPE_CHECKING:
    from tollkeeper.encoders.base import Modality

WEIGHTS = Path(__file__).parent / "weights"

_CHUNK_CELLS = 8_192  # padded table rows in one run of the graph; 25 MB of activations
_CHUNK_ROWS = 64  # texts in one run of the graph
_LEAST_ROWS = 2  # a lone text gets a companion, see above
_LONG_FROM = 512  # texts with more rows than this have their repeats counted and run alone

_Bag = tuple[NDArray[np.int64], NDArray[np.float32]]
"""A text as (l,) table rows and (l,) how often each counts."""


def _validated(inputs: Batch) -> list[str]:
    """Return the inputs as a list, or raise InputError."""
    if isinstance(inputs, str):
        raise InputError("expected a list of strings, got one string; wrap it", param="input")
    texts: list[Any] = list(inputs)
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(
                f"expected strings, got {kind} at position {at}; {SEND_STRINGS}", param="input"
            )
    return texts


def _bag(rows: list[int]) -> _Bag:
    """Return the rows of a text with their counts; repeats in long texts are merged."""
    array = np.asarray(rows, dtype=np.int64)
    if len(rows) <= _LONG_FROM:
        return array, np.ones(len(rows), dtype=np.float32)
    unique, counts = np.unique(array, return_counts=True)
    return unique, counts.astype(np.float32)


def _chunks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield groups of texts of similar size, so that padding and memory stay small.

    Args:
        sizes: Table rows of each text, repeats included.

    Yields:
        Positions of the texts of one run; each position occurs once overall.
    """
    chunk: list[int] = []
    for at in sorted(range(len(sizes)), key=sizes.__getitem__):
        full = len(chunk) == _CHUNK_ROWS or (len(chunk) + 1) * sizes[at] > _CHUNK_CELLS
        if chunk and (full or sizes[at] > _LONG_FROM):
            yield chunk
            chunk = []
        chunk.append(at)
    if chunk:
        yield chunk


class TextEncoder:
    """Embeds English text as unit vectors on the CPU.

    Attributes:
        name: Model name that clients ask for.
        dim: Embedding width d.
        accepts: Text only.
        rows_independent: True, see above.
        max_tokens: Longest input, in tokens as `count_tokens` counts them.

    Args:
        intra_op_num_threads: Threads of one forward pass; one is best for short texts.
        weights: Folder with `text.onnx` and `text-vocab.json.gz`; the shipped ones by default.

    Raises:
        EncoderError: The weights are missing or unreadable.
    """

    name: str = "tollkeeper-text"
    accepts: frozenset[Modality] = frozenset({"text"})
    rows_independent: bool = True
    max_tokens: int = 8_192

    def __init__(self, *, intra_op_num_threads: int = 1, weights: Path | None = None) -> None:
        """Load the vocabulary and the graph; takes about a quarter of a second."""
        folder = WEIGHTS if weights is None else weights
        try:
            self._tokenizer = Tokenizer(Vocabulary.load(folder / "text-vocab.json.gz"))
            self._session = _open_session(folder / "text.onnx", intra_op_num_threads)
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"cannot load the text encoder from {folder}: {error}") from error
        self.dim: int = int(self._session.get_outputs()[0].shape[1])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text: words (24 characters a piece) and other characters.

        Args:
            texts: n strings of any length.

        Returns:
            n counts; 0 for a text of whitespace only.

        Raises:
            InputError: The texts are not strings.
        """
        return [len(split(text)) for text in _validated(texts)]

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n texts.

        Args:
            inputs: n strings; anything goes, empty and unknown words included.

        Returns:
            (n, d) float32 unit vectors in input order; equal texts give equal bytes.

        Raises:
            InputError: An item is not a string or has more than `max_tokens` tokens.
            EncoderError: The forward pass failed.
        """
        return self.embed_measured(inputs)[0]

    def embed_measured(self, inputs: Batch) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embed n texts and count the tokens of each.

        Args:
            inputs: As for `embed`.

        Returns:
            (n, d) float32 unit vectors and (n,) int64 tokens per text.

        Raises:
            InputError: An item is not a string or has more than `max_tokens` tokens.
            EncoderError: The forward pass failed.
        """
        bags: list[_Bag] = []
        sizes: list[int] = []
        counts: list[int] = []
        for at, text in enumerate(_validated(inputs)):
            tokens = split(text)
            if len(tokens) > self.max_tokens:
                raise InputError(
                    f"expected at most {self.max_tokens} tokens, got {len(tokens)}"
                    f" at position {at}; shorten the text",
                    param="input",
                )
            counts.append(len(tokens))
            rows = self._tokenizer.rows(tokens)
            sizes.append(len(rows))
            bags.append(_bag(rows))
        out = np.empty((len(bags), self.dim), dtype=np.float32)
        for chunk in _chunks(sizes):
            out[chunk] = self._forward([bags[at] for at in chunk])
        return checked(out, n=len(bags), dim=self.dim), np.asarray(counts, dtype=np.int64)

    def _forward(self, bags: list[_Bag]) -> Embeddings:
        """Run the graph on n bags of rows, padded to one length; returns (n, d)."""
        shape = (max(len(bags), _LEAST_ROWS), max(len(rows) for rows, _ in bags))
        rows = np.full(shape, PAD, dtype=np.int64)
        counts = np.zeros(shape, dtype=np.float32)
        for at, (found, weight) in enumerate(bags):
            rows[at, : len(found)] = found
            counts[at, : len(found)] = weight
        try:
            answer: Embeddings = self._session.run(None, {"rows": rows, "counts": counts})[0]
        except Exception as error:  # onnxruntime raises its own undocumented types
            raise EncoderError(f"the text encoder failed: {error}") from error
        return answer[: len(bags)]


def _open_session(path: Path, intra_op_num_threads: int) -> Any:
    """Open the graph on the CPU, without the arena that would keep peak memory forever."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_num_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
