"""Bytes of `POST /v1/embeddings` into an `EmbeddingsRequest`, or an error that names the field.

The format is OpenAI's, from its published OpenAPI document. Any bytes may come: nothing
but a `RequestError` leaves, and no hostile body takes much more memory than its size.
"""

from __future__ import annotations

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
    too_large,
    too_many_inputs,
)

__all__ = [
    "INT32_MAX",
    "EmbeddingsRequest",
    "EncodingFormat",
    "Item",
    "Limits",
    "Modality",
    "canonical",
    "parse_embeddings",
    "too_large",
]

Item = str | Sequence[int] | NDArray[np.uint8] | NDArray[np.float32]

Modality = Literal["text", "tokens", "image"]


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A well-formed request for embeddings.

    Attributes:
        inputs: n items in request order: texts (str), token lists (list of int), or data
            URIs of images (str).
        modality: which of these they are.
        model: the name as the client wrote it; not checked here.
        encoding_format: how the embeddings are written.
        dimensions: width asked for, at least 1; None means full width.
        user: the client's own label; a hint, never an identity.
        single: whether `input` was one item and not a list of items.
    """

    inputs: tuple[Any, ...]
    modality: Modality
    model: str
    encoding_format: EncodingFormat
    dimensions: int | None
    user: str | None
    single: bool


class _Body(msgspec.Struct):
    """The fields we know, unparsed, so that each failure can name its field.

    Fields we do not know are skipped without being built, so they cost no memory.
    """

    input: Raw = Raw()
    model: Raw = Raw()
    encoding_format: Raw = Raw()
    dimensions: Raw = Raw()
    user: Raw = Raw()


_Token = Annotated[int, Meta(ge=0, le=INT32_MAX)]
_BODY = msgspec.json.Decoder(_Body)
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])
_TOKENS = msgspec.json.Decoder(list[_Token])
_TOKEN_LISTS = msgspec.json.Decoder(list[list[_Token]])
_DIMENSIONS: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(
    Annotated[int, Meta(ge=1, le=INT32_MAX)] | None
)

_LIST_OPENING = re.compile(rb"\[[ \t\n\r]*(.)", re.DOTALL)
_INPUT_FORMS = (
    "a string, a list of strings, a list of token ids "
    f"(integers from 0 to {INT32_MAX}) or a list of such lists"
)


def parse_embeddings(body: bytes, *, limits: Limits) -> EmbeddingsRequest:
    """Read the body of `POST /v1/embeddings`, or say what is wrong with it.

    Fields other than OpenAI's are ignored, as real servers have extensions. `null` in
    an optional field means that it is absent. Of a repeated field the last one counts;
    only what was read here goes on to an upstream, so no two parsers can disagree.

    Args:
        body: the raw request body.
        limits: what the body may hold.

    Raises:
        TooLargeError: the body is over `limits.max_body_bytes`.
        InputError: anything else; `param` names the field, or is None if the body is
            not a JSON object.
    """
    fields = decode(_BODY, body, limits=limits)
    inputs, modality, single = _inputs(required(fields.input, "input"), limits)
    return EmbeddingsRequest(
        inputs,
        modality,
        model=read(MODEL, required(fields.model, "model"), "model", MODEL_FORM),
        encoding_format=read_format(fields.encoding_format),
        dimensions=read(_DIMENSIONS, fields.dimensions, "dimensions", "an integer of at least 1"),
        user=read(USER, fields.user, "user", USER_FORM),
        single=single,
    )


def _inputs(raw: bytes, limits: Limits) -> tuple[tuple[Any, ...], Modality, bool]:
    """Tell the four forms of `input` apart by their first characters, then read that form."""
    opening = _LIST_OPENING.match(raw)
    if opening is None:
        text = read(_TEXT, raw, "input", _INPUT_FORMS)
        return (text,), check_strings((text,), limits), True
    first = opening.group(1)
    if first == b"]":
        raise bad_input("expected at least one input, got an empty list; add one")
    if first in b"[-0123456789":
        _check_token_counts(raw, limits)
        if first == b"[":
            lists = read(_TOKEN_LISTS, raw, "input", _INPUT_FORMS)
        else:
            lists = [read(_TOKENS, raw, "input", _INPUT_FORMS)]
        _check_token_lists(lists, limits)
        return tuple(lists), "tokens", first != b"["
    check_text_count(raw, limits)
    texts = read(_TEXTS, raw, "input", _INPUT_FORMS)
    return tuple(texts), check_strings(texts, limits), False


def _check_token_counts(raw: bytes, limits: Limits) -> None:
    if raw.count(b"[") - 1 > limits.max_inputs:
        raise too_many_inputs(limits)
    if raw.count(b",") >= limits.max_request_tokens:
        raise bad_input(
            f"expected at most {limits.max_request_tokens} tokens in one request, got more; "
            "split the request",
            code="input_too_long",
        )


def _check_token_lists(lists: Sequence[list[int]], limits: Limits) -> None:
    for index, tokens in enumerate(lists):
        if not tokens:
            raise bad_input(f"expected at least one token, got an empty list at input[{index}]")
        if len(tokens) > limits.max_item_tokens:
            raise bad_input(
                f"expected at most {limits.max_item_tokens} tokens per input, got {len(tokens)} "
                f"at input[{index}]; split the text",
                code="input_too_long",
            )


def canonical(item: Item) -> bytes:
    """Return bytes that are equal if and only if two inputs are equal.

    Args:
        item: a text, a token list, an (h, w, 3) uint8 image, or a (c, h, w) float32 tensor.
    """
    if isinstance(item, str):
        return b"t" + item.encode()
    if isinstance(item, np.ndarray) and item.dtype == np.float32:
        # Zero has two signs and means the same.
        values = (item + np.float32(0)).astype("<f4").tobytes()
        return b"f" + np.array(item.shape, dtype="<u4").tobytes() + values
    if isinstance(item, np.ndarray):
        height, width = item.shape[:2]
        return b"i" + np.array([height, width], dtype="<u4").tobytes() + item.tobytes()
    return b"k" + np.array(item, dtype="<i8").tobytes()
