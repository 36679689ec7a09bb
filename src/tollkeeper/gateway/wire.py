"""The edge: requests from bytes, results and exceptions to bytes.

The formats are OpenAI's: the embeddings and models routes and the error object of its
published OpenAPI document. This is the only file that knows HTTP statuses and error
codes. It holds no state and imports no web framework.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from tollkeeper.challenge.protocol import PROOF_HEADER
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    ChallengeRequired,
    InputRefused,
    ModelNotFoundError,
    ProofError,
    RefusalError,
    RequestError,
    SuspendedError,
    ThrottledError,
    TooLargeError,
)
from tollkeeper.gateway.request import (
    EmbeddingsRequest,
    EncodingFormat,
    Limits,
    canonical,
    parse_embeddings,
    too_large,
)
from tollkeeper.types import Embeddings

__all__ = [
    "EmbeddingsRequest",
    "ErrorReply",
    "Limits",
    "canonical",
    "encode_embeddings",
    "error_body",
    "error_response",
    "method_not_allowed",
    "model_body",
    "models_body",
    "not_found",
    "parse_embeddings",
    "too_large",
]

Headers = tuple[tuple[bytes, bytes], ...]

PROOF = PROOF_HEADER.encode()
NO_STORE = (b"cache-control", b"no-store")
MOST_PREPAID = 10**9
LONGEST_WAIT_S = 86400.0
_NO_RETRY = (b"x-should-retry", b"false")


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as HTTP sends it.

    Attributes:
        status: HTTP status.
        headers: names and values on top of content type and length, as ASGI wants them.
        body: the error object.
    """

    status: int
    headers: Headers
    body: bytes


def encode_embeddings(
    embeddings: Embeddings, *, model: str, tokens: int, encoding_format: EncodingFormat
) -> bytes:
    """Write the 200 body, byte for byte in OpenAI's shape and key order.

    Floats are written as the shortest decimal of their float64 value, as OpenAI does:
    they parse back to the same float32. Base64 holds little-endian float32, which is
    smaller and needs no number formatting.

    Args:
        embeddings: (n, d) float32, finite.
        model: the name to report.
        tokens: usage to report.
        encoding_format: how to write each embedding.
    """
    rows = np.ascontiguousarray(embeddings, dtype="<f4")
    vectors = (
        [b'"%b"' % binascii.b2a_base64(row, newline=False) for row in rows]
        if encoding_format == "base64"
        else [msgspec.json.encode(row) for row in rows.tolist()]
    )
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % pair for pair in enumerate(vectors)
    )
    return (
        b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        % (
            data,
            msgspec.json.encode(model),
            tokens,
            tokens,
        )
    )


def model_body(name: str, created: int) -> bytes:
    """Write one model, for `GET /v1/models/{id}`; `created` is in seconds since the epoch."""
    return msgspec.json.encode(_model(name, created))


def models_body(models: Mapping[str, int]) -> bytes:
    """Write the list of served models by name and creation, for `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": [_model(*one) for one in models.items()]})


def _model(name: str, created: int) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": created, "owned_by": "tollkeeper"}


def error_body(message: str, *, type: str, param: str | None, code: str | None) -> bytes:  # noqa: A002 - the wire's own word
    """Write the error object with all four keys."""
    # A path may hold half a surrogate pair, which JSON in UTF-8 cannot.
    message = message.encode(errors="replace").decode()
    return msgspec.json.encode(
        {"error": {"message": message, "type": type, "param": param, "code": code}}
    )


class _Prepayment(msgspec.Struct):
    inputs: Annotated[int, msgspec.Meta(ge=1, le=MOST_PREPAID)]


def parse_prepayment(body: bytes) -> int:
    """Return how many new inputs a client wants to pay for ahead.

    Raises:
        RequestError: the body is not `{"inputs": <whole number from 1>}`.
    """
    try:
        return msgspec.json.decode(body, type=_Prepayment).inputs
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(
            f'expected {{"inputs": <whole number from 1 to {MOST_PREPAID}>}}', param="inputs"
        ) from error


def prepayment_body(challenge: str | None, inputs: int) -> bytes:
    """Write the answer to a prepayment."""
    return msgspec.json.encode({"challenge": challenge, "inputs": inputs})


def answer_headers(receipt: str | None, allowance: int | None) -> Headers:
    """Return what an answer tells beside its body: what paid for it, what is left for free."""
    headers: Headers = ()
    if receipt is not None:
        headers += ((b"tollkeeper-receipt", receipt.encode()),)
    if allowance is not None:
        headers += ((b"ratelimit", b'"allowance";r=%d' % allowance),)
    return headers


_INVALID = "invalid_request_error"
_STATUSES: dict[type[BaseException], tuple[int, str, str]] = {
    RequestError: (400, _INVALID, "invalid_value"),
    ModelNotFoundError: (404, _INVALID, "model_not_found"),
    ProofError: (400, _INVALID, "proof_malformed"),
    TooLargeError: (413, _INVALID, "request_too_large"),
    RefusalError: (403, "permission_error", "access_denied"),
    AuthenticationError: (401, _INVALID, "invalid_api_key"),
    SuspendedError: (403, "permission_error", "account_suspended"),
    InputRefused: (403, "permission_error", "input_refused"),
    ChallengeRequired: (402, "payment_required", "challenge_required"),
    ThrottledError: (429, "rate_limit_error", "rate_limit_exceeded"),
    BudgetExhausted: (429, "insufficient_quota", "insufficient_quota"),
}
"""Status, `type` and `code` of each exception whose text a client may see."""


def error_response(error: BaseException) -> ErrorReply:
    """Turn any exception into a reply.

    Only request errors and refusals show their text. For all others the text stays here:
    a client learns that nothing was answered and that it may try again.

    Args:
        error: whatever serving a request raised.
    """
    known = next((_STATUSES[cls] for cls in type(error).__mro__ if cls in _STATUSES), None)
    if known is None:
        message = "The service cannot answer right now. Try again shortly."
        body = error_body(message, type="server_error", param=None, code="guard_unavailable")
        return ErrorReply(503, ((b"retry-after", b"1"),), body)
    status, kind, code = known
    param = None
    if isinstance(error, RequestError):
        param, code = error.param, error.code or code
    if isinstance(error, ChallengeRequired):
        code = error.code
    body = error_body(str(error), type=kind, param=param, code=code)
    return ErrorReply(status, _headers(error), body)


def _headers(error: BaseException) -> Headers:
    if isinstance(error, AuthenticationError):
        return ((b"www-authenticate", b"Bearer"),)  # RFC 9110, section 15.5.2
    if isinstance(error, ThrottledError):
        wait_s = min(max(1.0, error.retry_after_s), LONGEST_WAIT_S)
        return ((b"retry-after", b"%d" % math.ceil(wait_s)),)
    if isinstance(error, BudgetExhausted):
        return (_NO_RETRY,)  # else OpenAI's client tries twice more
    if isinstance(error, ChallengeRequired):
        return ((b"www-authenticate", error.challenge.encode()), NO_STORE, _NO_RETRY)
    return ()


def not_found(method: str, path: str) -> ErrorReply:
    """Answer a path that is not served."""
    message = f"expected a route of this API, got {method[:20]} {path[:200]}"
    body = error_body(message, type=_INVALID, param=None, code="unknown_url")
    return ErrorReply(404, (), body)


def unserved(method: str, path: str, setting: str) -> ErrorReply:
    """Answer a path that this server could serve and does not."""
    message = f"this server has no {setting}, so {method[:20]} {path} is not served"
    body = error_body(message, type=_INVALID, param=None, code="unknown_url")
    return ErrorReply(404, (), body)


def method_not_allowed(method: str, path: str, allowed: str) -> ErrorReply:
    """Answer a served path asked with a wrong method; `allowed` lists the right ones."""
    message = f"expected {allowed} for {path[:200]}, got {method[:20]}"
    body = error_body(message, type=_INVALID, param=None, code="method_not_allowed")
    return ErrorReply(405, ((b"allow", allowed.encode()),), body)
