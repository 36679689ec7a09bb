"""What all request bodies have in common: limits, fields read one by one, errors that name them.

Any bytes may come: nothing but a `RequestError` leaves, and no hostile body takes much more
memory than its size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw

from tollkeeper.errors import InputError, TooLargeError

IMAGE_PREFIX = "data:image/"
"""A string in `input` that starts like this is an image, any other string is text."""

INT32_MAX = 2**31 - 1

MODEL_NAME_CHARS = 256

LENIENT_BYTES = 2**20
"""Malformed bodies up to this size are read again to name the field."""

Fields = TypeVar("Fields", bound=msgspec.Struct)
T = TypeVar("T")
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
        max_item_values: numbers in one tensor; 3 x 512 x 512 has 786,432.
        max_request_values: numbers in all tensors together; 4 bytes each.
    """

    max_body_bytes: int = 32 * 2**20
    max_inputs: int = 2048
    max_item_bytes: int = 128 * 2**10
    max_item_tokens: int = 8192
    max_request_tokens: int = 300_000
    max_image_bytes: int = 8 * 2**20
    max_image_pixels: int = 2**24
    max_request_pixels: int = 2**24
    max_item_values: int = 2**20
    max_request_values: int = 2**22


MODEL = msgspec.json.Decoder(Annotated[str, Meta(min_length=1, max_length=MODEL_NAME_CHARS)])
_FORMAT: msgspec.json.Decoder[EncodingFormat | None] = msgspec.json.Decoder(EncodingFormat | None)
USER: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)

MODEL_FORM = f"the name of a served model, 1 to {MODEL_NAME_CHARS} characters; see GET /v1/models"
USER_FORM = "a string"


def decode(decoder: msgspec.json.Decoder[Fields], body: bytes, *, limits: Limits) -> Fields:
    """Read a body into its fields, which stay unparsed.

    Args:
        decoder: of a struct whose fields are all `Raw`.
        body: the raw request body.
        limits: what the body may hold.

    Raises:
        TooLargeError: the body is over `limits.max_body_bytes`.
        InputError: the body is not a JSON object.
    """
    if len(body) > limits.max_body_bytes:
        raise too_large(limits)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InputError(
            f'expected the body to be a JSON object; {error}; send {{"model": ..., "input": ...}}'
        ) from None
    except RecursionError:
        raise InputError(
            "expected a flat JSON object, got one nested too deeply", code="invalid_json"
        ) from None
    except msgspec.DecodeError as error:
        raise _malformed(body, str(error), msgspec.structs.fields(decoder.type)) from None


def too_large(limits: Limits) -> TooLargeError:
    """Return the error for a body over the limit, for whoever stops reading early."""
    return TooLargeError(
        f"expected a body of at most {limits.max_body_bytes} bytes, got more; send fewer inputs"
    )


def _malformed(body: bytes, reason: str, known: Sequence[msgspec.structs.FieldInfo]) -> InputError:
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
    for name in (field.name for field in known):
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


def required(raw: Raw, param: str) -> bytes:
    """Return the bytes of a field that must be there."""
    content = bytes(raw)
    if content in {b"", b"null"}:
        raise InputError(
            f"expected the field {param}, got none; add it",
            param=param,
            code="missing_required_parameter",
        )
    return content


def read(decoder: msgspec.json.Decoder[T], raw: Raw | bytes, param: str, expected: str) -> T:
    """Decode one field; an absent one reads as null."""
    try:
        return decoder.decode(bytes(raw) or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A reason may quote the value, which may be as long as the body.
        reason = str(error)[:120].replace("$", param)
        raise InputError(f"expected {param} to be {expected}; {reason}", param=param) from None


def read_format(raw: Raw) -> EncodingFormat:
    """Read `encoding_format`; an absent one is `float`."""
    found = read(_FORMAT, raw, "encoding_format", '"float" or "base64"')
    return found or "float"


# Counting punctuation before building anything keeps a hostile body (millions of empty
# lists or strings) from taking 20 times its size in memory.


def check_text_count(raw: bytes, limits: Limits) -> None:
    """Refuse too many strings before any is built."""
    # Each string opens with a quote that no backslash precedes, so this counts at least
    # one and at most two quotes per string.
    quotes = raw.count(b'"') - raw.count(b'\\"')
    if quotes > 2 * limits.max_inputs:
        raise too_many_inputs(limits)


def check_strings(items: Sequence[str], limits: Limits) -> Literal["text", "image"]:
    """Return what n strings are, all of one kind and within the limits."""
    if len(items) > limits.max_inputs:
        raise too_many_inputs(limits)
    images = sum(item.startswith(IMAGE_PREFIX) for item in items)
    if images == len(items):
        return "image"
    if images:
        raise bad_input(
            f"expected inputs of one kind, got {images} images and {len(items) - images} texts; "
            "send one request for each kind"
        )
    for index, item in enumerate(items):
        if not item:
            raise bad_input(f"expected non-empty text, got an empty string at input[{index}]")
        size = len(item.encode())
        if size > limits.max_item_bytes:
            raise bad_input(
                f"expected at most {limits.max_item_bytes} bytes of text per input, got {size} "
                f"at input[{index}]; split the text",
                code="input_too_long",
            )
    return "text"


def bad_input(message: str, *, code: str | None = None) -> InputError:
    """Return an error about the field `input`."""
    return InputError(message, param="input", code=code)


def too_many_inputs(limits: Limits) -> InputError:
    """Return the error for too many items."""
    return bad_input(
        f"expected at most {limits.max_inputs} inputs, got more; split the request",
        code="too_many_inputs",
    )
