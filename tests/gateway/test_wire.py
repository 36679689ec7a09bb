"""Writing replies: OpenAI's bytes for results, models and errors."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from openai.types import CreateEmbeddingResponse, Model

from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    ConflictError,
    EncoderError,
    GuardError,
    InputError,
    LedgerError,
    ModelNotFoundError,
    RefusalError,
    RequestError,
    SuspendedError,
    ThrottledError,
    TooLargeError,
)
from tollkeeper.gateway.wire import (
    encode_embeddings,
    error_body,
    error_response,
    method_not_allowed,
    model_body,
    models_body,
    not_found,
)
from tollkeeper.types import Embeddings

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def error_of(body: bytes) -> dict[str, Any]:
    """Return the error object, which must have exactly OpenAI's four keys."""
    content = json.loads(body)
    assert list(content) == ["error"]
    error: dict[str, Any] = content["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


def test_float_reply_is_byte_for_byte_openai() -> None:
    """Keys, their order and the spelling of numbers are fixed."""
    embeddings = np.array([[0.5, -1.0], [0.1, 1e-8]], dtype=np.float32)
    assert encode_embeddings(embeddings, model='m"1', tokens=7, encoding_format="float") == (
        b'{"object":"list","data":['
        b'{"object":"embedding","index":0,"embedding":[0.5,-1.0]},'
        b'{"object":"embedding","index":1,'
        b'"embedding":[0.10000000149011612,9.99999993922529e-9]}'
        b'],"model":"m\\"1","usage":{"prompt_tokens":7,"total_tokens":7}}'
    )


def test_base64_reply_is_byte_for_byte_openai() -> None:
    """Base64 is little-endian float32 in the standard alphabet, padded."""
    embeddings = np.array([[0.5, -1.0]], dtype=np.float32)
    assert encode_embeddings(embeddings, model="m", tokens=1, encoding_format="base64") == (
        b'{"object":"list","data":['
        b'{"object":"embedding","index":0,"embedding":"AAAAPwAAgL8="}'
        b'],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'
    )


@given(matrices)
def test_both_formats_give_back_the_same_float32(embeddings: Embeddings) -> None:
    """Every finite float32 survives both formats bit for bit, in order."""
    n, d = embeddings.shape
    floats = json.loads(encode_embeddings(embeddings, model="m", tokens=1, encoding_format="float"))
    coded = json.loads(encode_embeddings(embeddings, model="m", tokens=1, encoding_format="base64"))
    for index in range(n):
        expected = embeddings[index].tobytes()
        row = np.array(floats["data"][index]["embedding"], dtype=np.float32)
        raw = base64.b64decode(coded["data"][index]["embedding"], validate=True)
        # As the openai client decodes, and as the slow oracle does.
        assert np.frombuffer(raw, dtype="float32").tobytes() == expected
        assert list(struct.unpack(f"<{d}f", raw)) == embeddings[index].tolist()
        assert row.tobytes() == expected
        assert floats["data"][index]["index"] == coded["data"][index]["index"] == index


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_memory_layout_does_not_matter(encoding_format: Any) -> None:
    """Transposed, strided and big-endian arrays give the bytes of their plain copy."""
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    wide = np.repeat(plain, 2, axis=1)

    def encode(embeddings: Embeddings) -> bytes:
        return encode_embeddings(embeddings, model="m", tokens=1, encoding_format=encoding_format)

    layouts = [np.asfortranarray(plain), wide[:, ::2], plain.astype(">f4")]
    assert {encode(layout) for layout in layouts} == {encode(plain)}


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_two_thousand_rows_keep_their_order(encoding_format: Any) -> None:
    """OpenAI's own type reads the largest request, in input order."""
    embeddings = np.arange(2000, dtype=np.float32)[:, None]
    body = encode_embeddings(embeddings, model="m", tokens=5, encoding_format=encoding_format)
    reply = json.loads(body)
    assert [row["index"] for row in reply["data"]] == list(range(2000))
    if encoding_format == "float":
        read = CreateEmbeddingResponse.model_validate_json(body)
        assert [row.embedding for row in read.data] == embeddings.tolist()


# Exception, status, code, type, headers.
MAPPING: list[tuple[BaseException, int, str, str, dict[bytes, bytes]]] = [
    (InputError("m"), 400, "invalid_value", "invalid_request_error", {}),
    (InputError("m", code="own"), 400, "own", "invalid_request_error", {}),
    (RequestError("m"), 400, "invalid_value", "invalid_request_error", {}),
    (ModelNotFoundError("m"), 404, "model_not_found", "invalid_request_error", {}),
    (TooLargeError("m"), 413, "request_too_large", "invalid_request_error", {}),
    (
        AuthenticationError("m"),
        401,
        "invalid_api_key",
        "invalid_request_error",
        {b"www-authenticate": b"Bearer"},
    ),
    (RefusalError("m"), 403, "access_denied", "permission_error", {}),
    (SuspendedError("m"), 403, "account_suspended", "permission_error", {}),
    (
        ThrottledError("m", retry_after_s=2.1),
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
        {b"retry-after": b"3"},
    ),
    (
        ThrottledError("m", retry_after_s=0.0),
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
        {b"retry-after": b"1"},
    ),
    (
        BudgetExhausted("m"),
        429,
        "insufficient_quota",
        "insufficient_quota",
        {b"x-should-retry": b"false"},
    ),
]


@pytest.mark.parametrize(("error", "status", "code", "kind", "headers"), MAPPING)
def test_errors_for_clients_show_their_text(
    error: BaseException, status: int, code: str, kind: str, headers: dict[bytes, bytes]
) -> None:
    """Each request error and refusal has its status, code, type and headers."""
    reply = error_response(error)
    assert error_of(reply.body) == {"message": "m", "type": kind, "param": None, "code": code}
    assert (reply.status, dict(reply.headers)) == (status, headers)


@pytest.mark.parametrize("cls", [InputError, ModelNotFoundError])
def test_errors_name_their_field(cls: type[RequestError]) -> None:
    """The field at fault reaches the client."""
    assert error_of(error_response(cls("m", param="input")).body)["param"] == "input"


@pytest.mark.parametrize(
    "error",
    [
        EncoderError("coverage 0.41"),
        LedgerError("coverage 0.41"),
        ConflictError("coverage 0.41", expected=1, found=2),
        GuardError("coverage 0.41"),
        ValueError("coverage 0.41"),
        MemoryError("coverage 0.41"),
        KeyboardInterrupt("coverage 0.41"),
    ],
)
def test_errors_of_our_own_say_nothing(error: BaseException) -> None:
    """Whatever fails inside, the client sees the same neutral bytes and may retry soon."""
    reply = error_response(error)
    assert reply == error_response(RuntimeError())
    assert (reply.status, dict(reply.headers)) == (503, {b"retry-after": b"1"})
    assert error_of(reply.body)["code"] == "guard_unavailable"
    assert b"coverage" not in reply.body


def test_unknown_routes_and_methods_are_openai_errors() -> None:
    """404 and 405 have the error object, and 405 lists the methods in `allow`."""
    missing = not_found("GET", "/v1/other")
    assert missing.status == 404
    assert error_of(missing.body)["code"] == "unknown_url"
    refused = method_not_allowed("PUT", "/v1/models", "GET")
    assert refused.status == 405
    assert dict(refused.headers) == {b"allow": b"GET"}
    assert error_of(refused.body)["code"] == "method_not_allowed"


@given(st.text(), st.text())
@example("G" * 5000, "/" * 5000)
@example("GET", "/\ud800")
def test_any_path_can_be_answered(method: str, path: str) -> None:
    """Paths with half a surrogate pair and of any length get a short, valid reply."""
    for reply in (not_found(method, path), method_not_allowed(method, path, "GET")):
        assert len(error_of(reply.body)["message"]) < 300


def test_error_body_has_all_four_keys() -> None:
    """Keys without a value are null, not missing."""
    body = error_body("m", type="t", param=None, code=None)
    assert body == b'{"error":{"message":"m","type":"t","param":null,"code":null}}'


def test_models_are_openai_models() -> None:
    """OpenAI's own type reads one model and the list of them."""
    one = model_body("a/b", 12)
    assert one == b'{"id":"a/b","object":"model","created":12,"owned_by":"tollkeeper"}'
    assert Model.model_validate_json(one).id == "a/b"
    assert models_body({"a/b": 12}) == b'{"object":"list","data":[%b]}' % one
