"""Bytes of `POST /v1/embeddings` into an `EmbeddingsRequest`, or an error that names the field.

The format is OpenAI's, from its published OpenAPI document. Any bytes may come: nothing
but a `RequestError` leaves, and no hostile body takes much more memory than its size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw
from numpy.typing import NDArray

from tollkeeper.errors import InputError, TooLargeError

IMAGE_PREFIX = "data:image/"
"""A string in `input` that starts like this is an image, any other string is text."""

INT32_MAX = 2**31 - 1

MODEL_NAME_CHARS = 256

LENIENT_BYTES = 2**20
"""Malformed bodies up to this size are read again to name the field."""

Item = str | Sequence[int] | NDArray[np.uint8]

T = TypeVar("T")
Modality = Literal["text", "tokens", "image"]
EncodingFormat = Literal["float", "base64"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    Attributes:
        max_body_bytes: whole request body.
        max_inputs: items in `input` (OpenAI: 2,048).
        max_item_bytes: one text in UTF-8. The default gives each of 8,192 tokens 16
            bytes, about four times what prose in any script takes.
        max_item_tokens: one token list (OpenAI: 8,192).
        max_request_tokens: all token lists together (OpenAI: 300,000). The tokens of
            text are for the encoder to count.
        max_image_bytes: one encoded image, after base64.
        max_image_pixels: one decoded image; 4,096 x 4,096 takes 48 MiB.
        max_request_pixels: all decoded images together.
    """

    max_body_bytes: int = 32 * 2**20
    max_inputs: int = 2048
    max_item_bytes: int = 128 * 2**10
    max_item_tokens: int = 8192
    max_request_tokens: int = 300_000
    max_image_bytes: int = 8 * 2**20
    max_image_pixels: int = 2**24
    max_request_pixels: int = 2**24


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
_MODEL = msgspec.json.Decoder(Annotated[str, Meta(min_length=1, max_length=MODEL_NAME_CHARS)])
_FORMAT: msgspec.json.Decoder[EncodingFormat | None] = msgspec.json.Decoder(EncodingFormat | None)
_DIMENSIONS: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(
    Annotated[int, Meta(ge=1, le=INT32_MAX)] | None
)
_USER: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)

_LIST_OPENING = re.compile(rb"\[[ \t\n\r]*(.)", re.DOTALL)
_INPUT_FORMS = (
    "a string, a list of strings, a list of token ids "
    f"(integers from 0 to {INT32_MAX}) or a list of such lists"
)
_MODEL_FORM = f"the name of a served model, 1 to {MODEL_NAME_CHARS} characters; see GET /v1/models"


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
    if len(body) > limits.max_body_bytes:
        raise too_large(limits)
    fields = _fields(body)
    inputs, modality, single = _inputs(_required(fields.input, "input"), limits)
    model = _read(_MODEL, _required(fields.model, "model"), "model", _MODEL_FORM)
    encoding_format = _read(
        _FORMAT, fields.encoding_format, "encoding_format", '"float" or "base64"'
    )
    dimensions = _read(_DIMENSIONS, fields.dimensions, "dimensions", "an integer of at least 1")
    user = _read(_USER, fields.user, "user", "a string")
    return EmbeddingsRequest(
        inputs, modality, model, encoding_format or "float", dimensions, user, single
    )


def too_large(limits: Limits) -> TooLargeError:
    """Return the error for a body over the limit, for whoever stops reading early."""
    return TooLargeError(
        f"expected a body of at most {limits.max_body_bytes} bytes, got more; send fewer inputs"
    )


def _fields(body: bytes) -> _Body:
    try:
        return _BODY.decode(body)
    except msgspec.ValidationError as error:
        raise InputError(
            f'expected the body to be a JSON object; {error}; send {{"model": ..., "input": ...}}'
        ) from None
    except RecursionError:
        raise InputError(
            "expected a flat JSON object, got one nested too deeply", code="invalid_json"
        ) from None
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error)) from None


def _malformed(body: bytes, reason: str) -> InputError:
    """Say where JSON broke; name the field of what only lenient parsers accept.

    NaN, Infinity and half a surrogate pair (a JavaScript string cut inside an emoji)
    are common mistakes. Python's parser reads them, so it can tell which field they are
    in. It builds every value, which takes up to 30 times the body, hence the size limit.
    """
    try:
        lenient = json.loads(body) if len(body) <= LENIENT_BYTES else None
    except (ValueError, RecursionError):
        lenient = None
    fields = lenient if isinstance(lenient, dict) else {}
    for name in _Body.__struct_fields__:
        try:
            json.dumps(fields.get(name), allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return InputError(
                f"expected {name} to be plain JSON, got NaN, Infinity, half of a surrogate pair "
                "or deep nesting; remove it",
                param=name,
            )
    return InputError(
        f"expected the body to be JSON in UTF-8; {reason}; check how it is written",
        code="invalid_json",
    )


def _required(raw: Raw, param: str) -> bytes:
    content = bytes(raw)
    if content in {b"", b"null"}:
        raise InputError(
            f"expected the field {param}, got none; add it",
            param=param,
            code="missing_required_parameter",
        )
    return content


def _read(decoder: msgspec.json.Decoder[T], raw: Raw | bytes, param: str, expected: str) -> T:
    """Decode one field; an absent one reads as null."""
    try:
        return decoder.decode(bytes(raw) or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A reason may quote the value, which may be as long as the body.
        reason = str(error)[:120].replace("$", param)
        raise InputError(f"expected {param} to be {expected}; {reason}", param=param) from None


def _inputs(raw: bytes, limits: Limits) -> tuple[tuple[Any, ...], Modality, bool]:
    """Tell the four forms of `input` apart by their first characters, then read that form."""
    opening = _LIST_OPENING.match(raw)
    if opening is None:
        text = _read(_TEXT, raw, "input", _INPUT_FORMS)
        return (text,), _check_strings((text,), limits), True
    first = opening.group(1)
    if first == b"]":
        raise _bad_input("expected at least one input, got an empty list; add one")
    if first in b"[-0123456789":
        _check_token_counts(raw, limits)
        if first == b"[":
            lists = _read(_TOKEN_LISTS, raw, "input", _INPUT_FORMS)
        else:
            lists = [_read(_TOKENS, raw, "input", _INPUT_FORMS)]
        _check_token_lists(lists, limits)
        return tuple(lists), "tokens", first != b"["
    _check_text_count(raw, limits)
    texts = _read(_TEXTS, raw, "input", _INPUT_FORMS)
    return tuple(texts), _check_strings(texts, limits), False


def _bad_input(message: str, code: str | None = None) -> InputError:
    return InputError(message, param="input", code=code)


def _too_many_inputs(limits: Limits) -> InputError:
    return _bad_input(
        f"expected at most {limits.max_inputs} inputs, got more; split the request",
        "too_many_inputs",
    )


# Counting punctuation before building anything keeps a hostile body (millions of empty
# lists or strings) from taking 20 times its size in memory.


def _check_text_count(raw: bytes, limits: Limits) -> None:
    # Each string opens with a quote that no backslash precedes, so this counts at least
    # one and at most two quotes per string.
    quotes = raw.count(b'"') - raw.count(b'\\"')
    if quotes > 2 * limits.max_inputs:
        raise _too_many_inputs(limits)


def _check_token_counts(raw: bytes, limits: Limits) -> None:
    if raw.count(b"[") - 1 > limits.max_inputs:
        raise _too_many_inputs(limits)
    if raw.count(b",") >= limits.max_request_tokens:
        raise _bad_input(
            f"expected at most {limits.max_request_tokens} tokens in one request, got more; "
            "split the request",
            "input_too_long",
        )


def _check_strings(items: Sequence[str], limits: Limits) -> Modality:
    if len(items) > limits.max_inputs:
        raise _too_many_inputs(limits)
    images = sum(item.startswith(IMAGE_PREFIX) for item in items)
    if images == len(items):
        return "image"
    if images:
        raise _bad_input(
            f"expected inputs of one kind, got {images} images and {len(items) - images} texts; "
            "send one request for each kind"
        )
    for index, item in enumerate(items):
        if not item:
            raise _bad_input(f"expected non-empty text, got an empty string at input[{index}]")
        size = len(item.encode())
        if size > limits.max_item_bytes:
            raise _bad_input(
                f"expected at most {limits.max_item_bytes} bytes of text per input, got {size} "
                f"at input[{index}]; split the text",
                "input_too_long",
            )
    return "text"


def _check_token_lists(lists: Sequence[list[int]], limits: Limits) -> None:
    for index, tokens in enumerate(lists):
        if not tokens:
            raise _bad_input(f"expected at least one token, got an empty list at input[{index}]")
        if len(tokens) > limits.max_item_tokens:
            raise _bad_input(
                f"expected at most {limits.max_item_tokens} tokens per input, got {len(tokens)} "
                f"at input[{index}]; split the text",
                "input_too_long",
            )


def canonical(item: Item) -> bytes:
    """Return bytes that are equal if and only if two inputs are equal.

    Args:
        item: a text, a token list, or an (h, w, 3) uint8 image.
    """
    if isinstance(item, str):
        return b"t" + item.encode()
    if isinstance(item, np.ndarray):
        height, width = item.shape[:2]
        return b"i" + np.array([height, width], dtype="<u4").tobytes() + item.tobytes()
    return b"k" + np.array(item, dtype="<i8").tobytes()
