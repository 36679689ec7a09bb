"""Bytes of `POST /v1/classify` into a `ClassifyRequest`, or an error that names the field.

The body is that of embeddings with other items: an image as a data URI, a text, or a tensor,
`{"shape": [c, h, w], "data": [numbers]}` or, shorter and exact to the bit,
`{"shape": [c, h, w], "base64": "little-endian float32"}`, with numbers from 0 to 1.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from tollkeeper.gateway.body import (
    INT32_MAX,
    MODEL,
    MODEL_FORM,
    USER,
    USER_FORM,
    EncodingFormat,
    Limits,
    bad_input,
    check_strings,
    check_text_count,
    decode,
    read,
    read_format,
    required,
    too_many_inputs,
)

__all__ = ["ClassifyModality", "ClassifyRequest", "parse_classify"]

ClassifyModality = Literal["text", "image", "tensor"]


@dataclass(frozen=True, slots=True, eq=False)
class ClassifyRequest:
    """A well-formed request for predictions.

    Attributes:
        inputs: n items in request order: texts (str), data URIs of images (str), or (c, h, w)
            float32 tensors in [0, 1].
        modality: which of these they are.
        model: the name as the client wrote it; not checked here.
        top_k: how many classes each answer lists, at least 1; None means the whole vector.
        encoding_format: how the vectors are written.
        user: the client's own label; a hint, never an identity.
    """

    inputs: tuple[Any, ...]
    modality: ClassifyModality
    model: str
    top_k: int | None
    encoding_format: EncodingFormat
    user: str | None


class _Body(msgspec.Struct):
    """The fields we know, unparsed, so that each failure can name its field."""

    input: Raw = Raw()
    model: Raw = Raw()
    top_k: Raw = Raw()
    encoding_format: Raw = Raw()
    user: Raw = Raw()


_Side = Annotated[int, Meta(ge=1, le=INT32_MAX)]
_Shape = tuple[_Side, _Side, _Side]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    """One tensor with its numbers unparsed, so that the shape can be checked before."""

    shape: _Shape
    data: Raw = Raw()
    base64: Raw = Raw()


_BODY = msgspec.json.Decoder(_Body)
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])
_TENSOR = msgspec.json.Decoder(_Tensor)
_TENSORS = msgspec.json.Decoder(list[_Tensor])
_NUMBERS = msgspec.json.Decoder(list[float])
_TOP_K: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(
    Annotated[int, Meta(ge=1, le=INT32_MAX)] | None
)

_OPENING = re.compile(rb"[ \t\n\r]*(\[?)[ \t\n\r]*(.)", re.DOTALL)
_FORMS = (
    "an image (data URI), a text, a tensor with shape [c, h, w] and data or base64, or a list of "
    "one of these kinds"
)


def parse_classify(body: bytes, *, limits: Limits) -> ClassifyRequest:
    """Read the body of `POST /v1/classify`, or say what is wrong with it.

    Unknown fields of the body are ignored, those of a tensor are refused. `null` in an optional
    field means that it is absent. Of a repeated field the last one counts.

    Args:
        body: the raw request body.
        limits: what the body may hold.

    Raises:
        TooLargeError: the body is over `limits.max_body_bytes`.
        InputError: anything else; `param` names the field, or is None if the body is
            not a JSON object.
    """
    fields = decode(_BODY, body, limits=limits)
    inputs, modality = _inputs(required(fields.input, "input"), limits)
    return ClassifyRequest(
        inputs,
        modality,
        model=read(MODEL, required(fields.model, "model"), "model", MODEL_FORM),
        top_k=read(_TOP_K, fields.top_k, "top_k", "an integer of at least 1"),
        encoding_format=read_format(fields.encoding_format),
        user=read(USER, fields.user, "user", USER_FORM),
    )


def _inputs(raw: bytes, limits: Limits) -> tuple[tuple[Any, ...], ClassifyModality]:
    """Tell the forms of `input` apart by their first characters, then read that form."""
    opening = _OPENING.match(raw)
    is_list, first = opening.groups() if opening else (b"", b"")
    if is_list and first == b"]":
        raise bad_input("expected at least one input, got an empty list; add one")
    if first == b"{":
        if raw.count(b"{") > limits.max_inputs:  # one each, as no field may hold another
            raise too_many_inputs(limits)
        return _tensors(_shaped(raw, is_list=bool(is_list)), limits), "tensor"
    check_text_count(raw, limits)
    texts = read(_TEXTS, raw, "input", _FORMS) if is_list else [read(_TEXT, raw, "input", _FORMS)]
    return tuple(texts), check_strings(texts, limits)


def _shaped(raw: bytes, *, is_list: bool) -> list[_Tensor]:
    """Read the shapes of all tensors, but no number."""
    try:
        return _TENSORS.decode(raw) if is_list else [_TENSOR.decode(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A reason may quote the name of a field, which may be as long as the body.
        reason = str(error)[:120].replace("$", "input")
        raise bad_input(f"expected input to be {_FORMS}; {reason}") from None


def _tensors(found: Sequence[_Tensor], limits: Limits) -> tuple[NDArray[np.float32], ...]:
    """Check all shapes, then build the tensors one after the other."""
    sizes = [math.prod(one.shape) for one in found]
    for index, size in enumerate(sizes):
        if size > limits.max_item_values:
            raise bad_input(
                f"expected at most {limits.max_item_values} numbers in a tensor, got shape "
                f"{list(found[index].shape)} at input[{index}]; send a smaller one",
                code="input_too_long",
            )
    if sum(sizes) > limits.max_request_values:
        raise bad_input(
            f"expected at most {limits.max_request_values} numbers in one request, got "
            f"{sum(sizes)}; split the request",
            code="input_too_long",
        )
    return tuple(
        _checked(_values(one, size, index), index).reshape(one.shape)
        for index, (one, size) in enumerate(zip(found, sizes, strict=True))
    )


def _values(tensor: _Tensor, size: int, index: int) -> NDArray[np.float32]:
    """Return the numbers of one tensor, of which there must be `size`."""
    data, base64 = (_given(one) for one in (tensor.data, tensor.base64))
    if bool(data) == bool(base64):
        got = "both" if data else "neither"
        raise bad_input(f"expected either data or base64 at input[{index}], got {got}")
    if base64:
        return _decoded(base64, size, index)
    commas = data.count(b",")  # counted before any number is built
    if commas < size:
        numbers = read(_NUMBERS, data, "input", f"a flat list of numbers at input[{index}]")
        if len(numbers) == size:
            with np.errstate(over="ignore"):  # becomes infinity, refused as out of range
                return np.array(numbers, dtype=np.float32)
        commas = len(numbers) - 1
    raise bad_input(
        f"expected {size} numbers at input[{index}], as its shape says, got {commas + 1}"
    )


def _given(field: Raw) -> bytes:
    """Return what a field holds; `null` means that it is absent."""
    content = bytes(field)
    return b"" if content == b"null" else content


def _decoded(base64: bytes, size: int, index: int) -> NDArray[np.float32]:
    text = read(_TEXT, base64, "input", f"base64 at input[{index}]")
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        content = b""
    if len(content) != 4 * size or len(text) % 4:  # strict mode lets an extra "=" pass
        raise bad_input(
            f"expected standard base64 of {4 * size} bytes, {size} float32, at input[{index}], as "
            f"its shape says, got {len(content) or 'none'}"
        )
    return np.frombuffer(content, dtype="<f4").astype(np.float32)


def _checked(values: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Return numbers of which all are from 0 to 1."""
    if not (values.min() >= 0 and values.max() <= 1):  # NaN too
        advice = "; divide pixels by 255" if values.max() > 1 else ""
        raise bad_input(
            f"expected numbers from 0 to 1 and no NaN at input[{index}], got {values.min():g} to "
            f"{values.max():g}{advice}"
        )
    return values + np.float32(0)  # zero has two signs and means the same
