"""What OpenAI-compatible servers answer, made sense of.

Servers differ: vectors as base64 or floats, `data` out of order or without
`index`, usage of zero, errors in the shape of OpenAI (`{"error": {...}}`), of
text-embeddings-inference (flat `{"message", "type", "code"}`) or of FastAPI
(`{"detail": ...}`). Everything here is a pure function of bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import checked
from tollkeeper.errors import EncoderError
from tollkeeper.types import Embeddings

_MAX_MESSAGE = 300  # Characters of an upstream's own words that may reach a client.
_MAX_BYTES_PER_INPUT = 2**20  # Floats as JSON text at 40,000 dimensions.
_MAX_COMPLAINT_BYTES = 2**16
_MAX_USAGE = 2**31  # More tokens than any request holds; above it the count is garbage.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SECRETS = re.compile(r"https?://\S+|\b(?:sk|hf|tk)[-_]\S{6,}|\bBearer\s+(?!<)\S+", re.IGNORECASE)
_TOO_MANY = re.compile(
    r"batch[ _-]?size|too many (?:inputs|items|texts)|(?:maximum|max) batch|"
    r"batch (?:is )?too (?:large|long|big)|array (?:is )?too long|tokens? per request|request size|"
    r"split the request",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One 200 answer.

    Attributes:
        embeddings: (n, d) float32, finite, in the order asked.
        tokens: tokens the upstream counted; None when it gave none or zero.
        model: the model name it gave, if any.
        classes: what it calls the columns, if anything.
    """

    embeddings: Embeddings
    tokens: int | None
    model: str | None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error answer.

    Attributes:
        message: one cleaned line, empty when the upstream said nothing.
        code: its machine-readable code as a string, if any.
    """

    message: str
    code: str | None

    @property
    def is_about_batch(self) -> bool:
        """Whether fewer inputs at once might be accepted."""
        return _TOO_MANY.search(self.message) is not None

    @property
    def is_missing_route(self) -> bool:
        """Whether a 404 means the address and not the model: no words, or a framework's own."""
        return self.message.strip(".").lower() in {"", "not found"}


def answer_limit(n: int) -> int:
    """Return the most bytes that an answer for n inputs can sensibly have."""
    return _MAX_COMPLAINT_BYTES + _MAX_BYTES_PER_INPUT * n


def parse_answer(body: bytes, *, n: int, dim: int | None, vector: str = "embedding") -> Answer:
    """Read a 200 answer.

    Args:
        body: the response body.
        n: inputs asked.
        dim: width expected; None accepts any.
        vector: field of an item that holds its vector.

    Returns:
        The answer with rows in the order asked.

    Raises:
        EncoderError: not such an answer, wrong count, wrong width, duplicate or
            missing index, or numbers that are not finite.
    """
    try:
        answer = msgspec.json.decode(body)
    except _NO_JSON as error:
        raise EncoderError("the server answered 200 with something that is not JSON") from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise EncoderError("the server answered 200 without a list of embeddings")
    if len(data) != n:
        raise EncoderError(f"the server gave {len(data)} embeddings for {n} inputs")
    rows = [_vector(item.get(vector)) for item in _in_order(data)]
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise EncoderError(f"the server gave embeddings of different widths: {widths}")
    model = answer.get("model")
    embeddings = np.stack(rows)
    if not np.isfinite(embeddings).all():
        raise EncoderError("the server gave NaN or infinity")
    return Answer(
        embeddings=checked(embeddings, n=n, dim=dim),
        tokens=_tokens(answer.get("usage")),
        model=model if isinstance(model, str) and 0 < len(model) <= _MAX_MESSAGE else None,
        classes=_names(answer.get("classes"), embeddings.shape[1]),
    )


def parse_complaint(body: bytes, *, secret: str | None) -> Complaint:
    """Read an error answer of any known shape.

    Args:
        body: the response body; may be empty or no JSON.
        secret: the operator's credential, which an upstream may quote.

    Returns:
        The complaint, safe to show: one line, no addresses, no credentials.
    """
    try:
        answer = msgspec.json.decode(body)
    except _NO_JSON:
        return Complaint("", None)
    fields = answer if isinstance(answer, dict) else {}
    inner = fields.get("error", fields)
    if isinstance(inner, str):
        # text-embeddings-inference's own routes and llama.cpp say {"error": "text", ...}.
        return Complaint(_clean(inner, secret), _code(fields))
    inner = inner if isinstance(inner, dict) else {}
    message = inner.get("message", inner.get("detail", ""))
    return Complaint(_clean(_flat(message), secret), _code(inner))


def spread(total: int, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Share a total among inputs in proportion to their weights, in whole tokens.

    Args:
        total: tokens reported for all, at most `_MAX_USAGE`.
        weights: (n,) positive.

    Returns:
        (n,) int64 that sum to `total`.
    """
    edges = np.cumsum(weights) * total // weights.sum()
    shares: NDArray[np.int64] = np.diff(edges, prepend=0)
    return shares


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort items by `index`; without any index the order is taken as it came."""
    indices = [item.get("index") for item in data]
    if all(index is None for index in indices):
        return data
    by_index = {index: item for index, item in zip(indices, data, strict=True) if _is_int(index)}
    if by_index.keys() != set(range(len(data))):
        raise EncoderError("the server gave a duplicate, missing or foreign index")
    return [by_index[position] for position in range(len(data))]


def _is_int(value: Any) -> bool:
    """Tell whether a JSON value is an integer; True is none."""
    return type(value) is int


def _vector(value: Any) -> NDArray[Any]:
    """Decode one embedding from base64 or a list of floats."""
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        if isinstance(value, list) and all(type(number) in {int, float} for number in value):
            with np.errstate(over="ignore"):  # Too large becomes infinity, which is refused.
                return np.asarray(value, dtype=np.float32)
    except (binascii.Error, ValueError, OverflowError) as error:
        raise EncoderError("the server gave an embedding that cannot be decoded") from error
    raise EncoderError("the server gave an embedding that is neither base64 nor floats")


def _names(classes: Any, n: int) -> tuple[str, ...] | None:
    """Return the names of n columns, None when there are no such."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return None
    return tuple(classes) if len(classes) == n else None


def _tokens(usage: Any) -> int | None:
    """Return the tokens in `usage`, None when there is no sensible count."""
    if not isinstance(usage, dict):
        return None
    for field in ("prompt_tokens", "total_tokens"):
        count = usage.get(field)
        if isinstance(count, int) and 0 < count <= _MAX_USAGE:
            return count
    return None


def _flat(message: Any) -> str:
    """Return a message as text; FastAPI's validation errors are a list of `{"msg"}`."""
    if isinstance(message, list):
        parts = [part.get("msg", "") if isinstance(part, dict) else part for part in message]
        return "; ".join(part for part in parts if isinstance(part, str))
    return message if isinstance(message, str) else ""


def _clean(message: str, secret: str | None) -> str:
    """Return one printable line without addresses and credentials."""
    if secret:
        message = message.replace(secret, "[removed]")
    message = _SECRETS.sub("[removed]", message)
    printable = "".join(char if char.isprintable() else " " for char in message)
    return " ".join(printable.split())[:_MAX_MESSAGE]


def _code(fields: dict[str, Any]) -> str | None:
    """Return the error code as a string, whatever it came as."""
    code = fields.get("code")
    if isinstance(code, str) and code.isprintable():
        return code[:_MAX_MESSAGE] or None
    return str(code) if _is_int(code) else None
