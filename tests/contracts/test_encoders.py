"""What every encoder promises, checked on one table of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tollkeeper.encoders.base import Encoder, MeasuresUsage, RowsIndependent
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.encoders.upstream import UpstreamEncoder
from tollkeeper.errors import InputError
from tollkeeper.testing import HashEncoder, check_encoder

FIXTURES = Path(__file__).parents[1] / "encoders" / "fixtures"

_RNG = np.random.default_rng(0)
TEXTS = ["bank", "a", "I still have not received my card", "", "Füße 北京", "a"]
TOKENS = [[1, 2, 3], [7], [4, 4], [9, 8, 7, 6, 5], [3], [7]]
SENTENCES = [[i, *range(1, 9 + i % 3)] for i in range(6)]
IMAGES = [_RNG.integers(0, 256, (4 + i, 9 - i, 3), dtype=np.uint8) for i in range(6)]


@dataclass(frozen=True)
class Row:
    """One encoder of the table.

    Attributes:
        make: makes it.
        inputs: six inputs it accepts.
        independent: whether it has to declare `rows_independent`, and then keep every byte.
    """

    make: Callable[[], Encoder]
    inputs: Sequence[Any]
    independent: bool = True

    @property
    def tolerance(self) -> float:
        """How much a row may differ between batch and alone."""
        return 0.0 if self.independent else 1e-6


def onnx(name: str) -> Callable[[], Encoder]:
    """Return a maker of the encoder of a fixture."""
    return lambda: load_encoder(f"onnx:{FIXTURES / name}.onnx")


def upstream() -> Encoder:
    """Make an encoder of an upstream that answers inputs backwards and in two parts."""

    def serve(request: httpx2.Request) -> httpx2.Response:
        items = json.loads(request.content)["input"]
        rows = HashEncoder(8).embed([json.dumps(item) for item in items])
        data = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
        return httpx2.Response(200, json={"data": data[::-1]})

    client = httpx2.Client(transport=httpx2.MockTransport(serve))
    return UpstreamEncoder("http://host/v1", client=client, max_batch=4)


def metered() -> Encoder:
    """Make a metered encoder with room for all checks."""
    return MeteredEncoder(HashEncoder(8), budget=100)


def callable_encoder() -> Encoder:
    """Make an encoder of a Python function."""
    return CallableEncoder(lambda batch: [[len(text), 1] for text in batch], dim=2)


TABLE = {
    "builtin-text": Row(lambda: load_encoder("builtin:text"), TEXTS),
    "builtin-image": Row(lambda: load_encoder("builtin:image"), IMAGES),
    "callable": Row(callable_encoder, TEXTS, independent=False),
    "metered": Row(metered, TEXTS),
    "upstream-text": Row(upstream, TEXTS, independent=False),
    "upstream-tokens": Row(upstream, TOKENS, independent=False),
    "upstream-images": Row(upstream, IMAGES, independent=False),
    "onnx-text": Row(onnx("strings"), TEXTS),
    "onnx-tokens": Row(onnx("tokens_masked"), TOKENS),
    "onnx-tokens-unmasked": Row(onnx("tokens_unmasked"), TOKENS),
    "onnx-tokens-mixed": Row(onnx("tokens_mixed"), SENTENCES),
    "onnx-image": Row(onnx("image_uint8_nhwc"), IMAGES),
    "onnx-image-fixed-batch": Row(onnx("image_float_nchw_batch2"), IMAGES),
}


@pytest.fixture(scope="module", params=TABLE)
def row(request: pytest.FixtureRequest) -> tuple[Encoder, Row]:
    """Make each encoder once."""
    found = TABLE[request.param]
    return found.make(), found


Case = tuple[Encoder, Row]


def test_it_keeps_the_shipped_check(row: Case) -> None:
    """The check that outside authors run passes: shape, type, finite, repeatable, order."""
    encoder, found = row
    check_encoder(encoder, found.inputs)


def test_it_is_an_encoder(row: Case) -> None:
    """It has the attributes of the protocol, with sensible values."""
    encoder, _ = row
    assert isinstance(encoder, Encoder)
    assert encoder.name
    assert encoder.dim >= 1
    assert encoder.accepts <= {"text", "tokens", "image"}
    assert encoder.accepts


def test_it_declares_what_batches_may_change(row: Case) -> None:
    """It says whether a row's bytes depend on its batch mates, and says what is expected of it."""
    encoder, found = row
    assert isinstance(encoder, RowsIndependent)
    assert encoder.rows_independent == found.independent


def test_it_gives_finite_float32_rows(row: Case) -> None:
    """Each input gives one row of d finite float32."""
    encoder, found = row
    embeddings = encoder.embed(found.inputs)
    assert embeddings.shape == (len(found.inputs), encoder.dim)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()


def test_a_batch_equals_its_inputs_one_by_one(row: Case) -> None:
    """No input's answer depends on its company, to the last bit where that is declared."""
    encoder, found = row
    together = encoder.embed(found.inputs)
    alone = np.concatenate([encoder.embed([item]) for item in found.inputs])
    np.testing.assert_allclose(together, alone, rtol=0, atol=found.tolerance)


def test_order_is_kept(row: Case) -> None:
    """Inputs in reverse give the rows in reverse."""
    encoder, found = row
    forward = encoder.embed(found.inputs)
    backward = encoder.embed(list(found.inputs)[::-1])
    np.testing.assert_allclose(backward[::-1], forward, rtol=0, atol=found.tolerance)
    assert len({vector.tobytes() for vector in forward}) > 1


def test_inputs_are_not_changed(row: Case) -> None:
    """The caller's batch is the same afterwards."""
    encoder, found = row
    before = [item.copy() if isinstance(item, np.ndarray) else item for item in found.inputs]
    lists = [list(item) if isinstance(item, list) else item for item in before]
    encoder.embed(found.inputs)
    for item, copy in zip(found.inputs, lists, strict=True):
        np.testing.assert_array_equal(item, copy)


def test_no_inputs_give_no_rows(row: Case) -> None:
    """An empty batch gives (0, d) float32."""
    encoder, _ = row
    embeddings = encoder.embed([])
    assert embeddings.shape == (0, encoder.dim)
    assert embeddings.dtype == np.float32


def test_usage_is_counted_per_input(row: Case) -> None:
    """An encoder that measures gives the same rows and non-negative (n,) int64 tokens."""
    encoder, found = row
    if not isinstance(encoder, MeasuresUsage):
        pytest.skip("does not measure usage")
    embeddings, tokens = encoder.embed_measured(found.inputs)
    np.testing.assert_array_equal(embeddings, encoder.embed(found.inputs))
    assert tokens.shape == (len(found.inputs),)
    assert tokens.dtype == np.int64
    assert (tokens >= 0).all()
    assert encoder.embed_measured([])[1].shape == (0,)


@pytest.mark.parametrize("bad", [3, None, b"bytes", {"a": 1}, 1.5])
def test_foreign_input_is_an_input_error(row: Case, bad: Any) -> None:
    """What is no text, token list or image is refused as the client's error, whatever it is."""
    encoder, found = row
    with pytest.raises(InputError):
        encoder.embed([found.inputs[0], bad])
