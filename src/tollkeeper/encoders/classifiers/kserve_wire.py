"""What KServe v2 servers say of a model and answer for it, made sense of.

The protocol is KServe's v2, also called the Open Inference Protocol (specification/protocol/
inference_rest.md of kserve/open-inference-protocol). Everything here is a pure function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import checked
from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.types import Images

_MOST_VALUES = 1 << 26
"""Numbers in one request that a server may ask for: 256 MiB, 512 pictures of 3 x 224 x 224 among
them."""

_FLOATS = {"FP16", "BF16", "FP32", "FP64"}
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Metadata(msgspec.Struct):
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    parameters: Any = None


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: msgspec.Raw


class _Answer(msgspec.Struct):
    outputs: list[_Output]


@dataclass(frozen=True, slots=True)
class Model:
    """A classifier as its server describes it.

    Attributes:
        input: name of the input.
        picture: (c, h, w) of the pictures it takes; None for text.
        rank: dimensions of the input, n included.
        batch: inputs that a request must have; None for any number.
        output: name of the output to read.
        classes: names that the server gives its classes, if any.
    """

    input: str
    picture: tuple[int, int, int] | None
    rank: int
    batch: int | None
    output: str
    classes: tuple[str, ...] | None


def parse_metadata(body: bytes, *, prefer: str) -> Model:
    """Read the answer to `GET v2/models/NAME`.

    Args:
        body: the response body.
        prefer: name of the output to read if there are several.

    Raises:
        EncoderError: no such answer.
        ConfigurationError: a model that is no classifier of pictures or text.
    """
    try:
        found = msgspec.json.decode(body, type=_Metadata)
    except _NO_JSON as error:
        raise EncoderError("the server answered 200 without KServe v2 metadata") from error
    outputs = [one.name for one in found.outputs if one.datatype in _FLOATS]
    if len(found.inputs) != 1 or not outputs:
        raise ConfigurationError(
            f"expected a model of one input and an output of floats, got {_words(found.inputs)} "
            f"and {_words(found.outputs)}"
        )
    if len({one.name for one in found.outputs}) != len(found.outputs):
        raise ConfigurationError(
            f"expected outputs of different names, got {_words(found.outputs)}"
        )
    (taken,) = found.inputs
    picture = _picture(taken)
    if max(taken.shape) > _MOST_VALUES or math.prod(map(abs, taken.shape)) > _MOST_VALUES:
        raise ConfigurationError(
            f"expected a model whose request holds at most {_MOST_VALUES:,} numbers, got "
            f"{_words([taken])}"
        )
    return Model(
        input=taken.name,
        picture=picture,
        rank=len(taken.shape),
        batch=taken.shape[0] if taken.shape[0] > 0 else None,
        output=prefer if prefer in outputs else outputs[0],
        classes=_classes(found.parameters),
    )


def _picture(taken: _Tensor) -> tuple[int, int, int] | None:
    """Return (c, h, w) of a model of pictures, None of a model of text."""
    shape = taken.shape
    if taken.datatype == "FP32" and len(shape) == 4 and min(shape[1:]) > 0:
        return shape[1], shape[2], shape[3]
    if taken.datatype == "BYTES" and shape in ([-1], [1], [-1, 1], [1, 1]):
        return None
    raise ConfigurationError(
        "expected a model that takes FP32 [n, c, h, w] of fixed c, h and w, or BYTES [n] or "
        f"[n, 1], got {_words([taken])}"
    )


def _words(tensors: Sequence[_Tensor]) -> str:
    named = (f"{one.name} {one.datatype} {one.shape}" for one in tensors)
    return ", ".join(named)[:200] or "nothing"


def _classes(parameters: Any) -> tuple[str, ...] | None:
    """Return the names in `parameters.classes`: a list of strings, or one as JSON."""
    given = parameters.get("classes") if isinstance(parameters, dict) else None
    if given is None:
        return None
    try:
        if isinstance(given, str):
            return msgspec.json.decode(given, type=tuple[str, ...])
        return msgspec.convert(given, tuple[str, ...])
    except _NO_JSON as error:
        raise ConfigurationError(
            "expected the server's parameter `classes` to be a list of names"
        ) from error


def infer_body(model: Model, items: Images | Sequence[str]) -> bytes:
    """Write the body of `POST v2/models/NAME/infer` for n inputs, exact to the bit."""
    if isinstance(items, np.ndarray):
        sent = {"shape": items.shape, "datatype": "FP32", "data": items.ravel().tolist()}
    else:
        shape = [len(items)] + [1] * (model.rank - 1)
        sent = {"shape": shape, "datatype": "BYTES", "data": list(items)}
    return msgspec.json.encode(
        {"inputs": [{"name": model.input, **sent}], "outputs": [{"name": model.output}]}
    )


def parse_infer(body: bytes, *, model: Model, n: int) -> NDArray[np.float32]:
    """Read the answer to `infer`; numbers may come flat or as rows.

    Returns:
        (n, k) float32, finite.

    Raises:
        EncoderError: no such answer, another shape, or numbers that are not finite.
    """
    try:
        found = msgspec.json.decode(body, type=_Answer)
    except _NO_JSON as error:
        raise EncoderError("the server answered 200 without tensors of numbers") from error
    outputs = {output.name: output for output in found.outputs}
    output = outputs.get(model.output)
    if output is None:
        raise EncoderError(f"the server answered without the output {model.output!r}")
    if len(output.shape) != 2 or output.shape[0] != n or output.shape[1] < 1:
        raise EncoderError(f"the server gave an output of shape {output.shape} for {n} inputs")
    try:
        rows = np.asarray(_numbers(output.data), dtype=np.float64).reshape(output.shape)
    except (*_NO_JSON, ValueError) as error:
        raise EncoderError("the server gave other numbers than its shape says") from error
    return checked(rows, n=n, dim=None)


def _numbers(data: msgspec.Raw) -> list[float] | list[list[float]]:
    """Decode numbers that are flat, or in rows."""
    try:
        return msgspec.json.decode(data, type=list[float])
    except msgspec.ValidationError:
        return msgspec.json.decode(data, type=list[list[float]])
