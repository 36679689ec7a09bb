"""Reading requests for predictions: every form of input, every mistake, and any bytes at all."""

from __future__ import annotations

import base64
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tollkeeper.errors import InputError, RequestError, TooLargeError
from tollkeeper.gateway.body import INT32_MAX, Limits
from tollkeeper.gateway.classify_request import ClassifyRequest, parse_classify
from tollkeeper.gateway.wire import error_response

LIMITS = Limits(
    max_body_bytes=3000,
    max_inputs=3,
    max_item_bytes=20,
    max_item_values=6,
    max_request_values=12,
)
URI = "data:image/png;base64,AAAA"
ONE = '{"shape": [1, 1, 1], "data": [1]}'


def shaped(*shape: int, **fields: Any) -> str:
    """Return a tensor's JSON."""
    return json.dumps({"shape": shape, **fields})


def packed(*numbers: float) -> str:
    """Return base64 of float32."""
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


# What stands for "input" in the body, the code it gets, and what the message says.
BAD_INPUTS: list[tuple[str, str, str]] = [
    ("null", "missing_required_parameter", "add it"),
    ('""', "invalid_value", "empty string"),
    ("[]", "invalid_value", "empty list"),
    ("[ \n]", "invalid_value", "empty list"),
    ("7", "invalid_value", "got `int`"),
    ("true", "invalid_value", "got `bool`"),
    ("[7]", "invalid_value", "got `int`"),
    ("[[0.5]]", "invalid_value", "got `array`"),
    ("[null]", "invalid_value", "got `null`"),
    ('["a", ""]', "invalid_value", "empty string"),
    ("{}", "invalid_value", "missing required field `shape`"),
    ('{"data": [1]}', "invalid_value", "missing required field `shape`"),
    (f'[{ONE}, "a"]', "invalid_value", "got `str`"),
    (f'["a", {ONE}]', "invalid_value", "got `object`"),
    (f"[{ONE}, 1]", "invalid_value", "got `int`"),
    (f'["a", "{URI}"]', "invalid_value", "of one kind"),
    (shaped(data=[]), "invalid_value", "length 3"),
    (shaped(1, 1, data=[1]), "invalid_value", "length 3"),
    (shaped(1, 1, 1, 1, data=[1]), "invalid_value", "length 3"),
    (shaped(1, 0, 1, data=[]), "invalid_value", ">= 1"),
    (shaped(1, -1, 1, data=[]), "invalid_value", ">= 1"),
    ('{"shape": [1, 1, 1.5], "data": [1]}', "invalid_value", "got `float`"),
    ('{"shape": [1, 1, 1e400], "data": [1]}', "invalid_value", "expected"),
    (shaped(1, 1, INT32_MAX + 1, data=[1]), "invalid_value", "<= 2147483647"),
    (shaped(*[INT32_MAX] * 3, data=[1]), "input_too_long", "at most 6 numbers in a tensor"),
    (shaped(1, 1, 7, data=[0] * 7), "input_too_long", "at most 6 numbers in a tensor"),
    (
        f"[{', '.join([shaped(1, 1, 5, data=[0] * 5)] * 3)}]",
        "input_too_long",
        "at most 12 numbers in one request, got 15",
    ),
    (shaped(1, 1, 1), "invalid_value", "got neither"),
    (shaped(1, 1, 1, data=[1], base64=packed(1)), "invalid_value", "got both"),
    (shaped(1, 1, 1, data=[1], dtype="uint8"), "invalid_value", "unknown field `dtype`"),
    (shaped(1, 1, 2, data=[]), "invalid_value", "expected 2 numbers at input[0]"),
    (shaped(1, 1, 2, data=[1]), "invalid_value", "got 1"),
    (shaped(1, 1, 2, data=[1, 1, 1]), "invalid_value", "got 3"),
    (shaped(1, 1, 2, data=[[1, 1]]), "invalid_value", "flat list of numbers"),
    (shaped(1, 1, 1, data=["1"]), "invalid_value", "got `str`"),
    (shaped(1, 1, 1, data=[True]), "invalid_value", "got `bool`"),
    (shaped(1, 1, 1, data=[None]), "invalid_value", "got `null`"),
    (shaped(1, 1, 1, data=None), "invalid_value", "got neither"),
    (shaped(1, 1, 1, data={}), "invalid_value", "got `object`"),
    (shaped(1, 1, 1, data="1"), "invalid_value", "got `str`"),
    (shaped(1, 1, 2, data=[0, 1.01]), "invalid_value", "got 0 to 1.01; divide pixels by 255"),
    (shaped(1, 1, 2, data=[-0.01, 1]), "invalid_value", "got -0.01 to 1"),
    ('{"shape": [1, 1, 1], "data": [1e300]}', "invalid_value", "from 0 to 1"),
    ('{"shape": [1, 1, 1], "data": [1e999]}', "invalid_value", "at input[0]"),
    ('{"shape": [1, 1, 1], "data": [NaN]}', "invalid_value", "NaN"),
    ('{"shape": [1, 1, 1], "data": [-Infinity]}', "invalid_value", "Infinity"),
    (shaped(1, 1, 1, base64=packed(np.nan)), "invalid_value", "NaN"),
    (shaped(1, 1, 1, base64=packed(np.inf)), "invalid_value", "to inf"),
    (shaped(1, 1, 1, base64=packed(2)), "invalid_value", "got 2 to 2"),
    (shaped(1, 1, 1, base64=packed(1, 1)), "invalid_value", "4 bytes, 1 float32, at input[0]"),
    (shaped(1, 1, 1, base64=packed(1)[:-1]), "invalid_value", "standard base64"),
    (shaped(1, 1, 1, base64=packed(1)[:-2] + "é"), "invalid_value", "standard base64"),
    (shaped(1, 1, 1, base64=packed(1) + "="), "invalid_value", "standard base64"),
    (shaped(1, 1, 1, base64="\n" + packed(1)), "invalid_value", "standard base64"),
    (shaped(1, 1, 1, base64=""), "invalid_value", "standard base64"),
    (shaped(1, 1, 1, base64=[1]), "invalid_value", "got `array`"),
    (f"[{ONE}, {shaped(1, 1, 1, data=[2])}]", "invalid_value", "input[1]"),
    (f"[{', '.join([ONE] * 4)}]", "too_many_inputs", "at most 3 inputs"),
    ('["a", "b", "c", "d"]', "too_many_inputs", "at most 3 inputs"),
    (f'"{"x" * 21}"', "input_too_long", "at most 20 bytes"),
    (r'"\ud800"', "invalid_value", "surrogate"),
]

BAD_FIELDS: list[tuple[str, str]] = [
    ('"model": ""', "model"),
    ('"top_k": 0', "top_k"),
    ('"top_k": -1', "top_k"),
    ('"top_k": 1.5', "top_k"),
    ('"top_k": "3"', "top_k"),
    ('"top_k": true', "top_k"),
    ('"top_k": [3]', "top_k"),
    ('"top_k": NaN', "top_k"),
    (f'"top_k": {INT32_MAX + 1}', "top_k"),
    ('"encoding_format": "hex"', "encoding_format"),
    ('"user": 1', "user"),
]


def body(**fields: Any) -> bytes:
    """Return a valid body with some fields changed."""
    return json.dumps({"input": "a", "model": "m"} | fields).encode()


def parse(raw: bytes, limits: Limits = LIMITS) -> ClassifyRequest:
    """Parse with small limits."""
    return parse_classify(raw, limits=limits)


def refusal(raw: bytes) -> tuple[int, str | None, str | None, str]:
    """Return status, param, code and message of the reply to a body that must be refused."""
    with pytest.raises(RequestError) as caught:
        parse(raw)
    reply = error_response(caught.value)
    error = json.loads(reply.body)["error"]
    assert len(error["message"]) < 500
    return reply.status, error["param"], error["code"], error["message"]


@pytest.mark.parametrize(("value", "code", "words"), BAD_INPUTS)
def test_bad_inputs_name_the_field(value: str, code: str, words: str) -> None:
    """Each bad `input` is a 400 that names `input` and says what is wrong with it."""
    *found, message = refusal(b'{"model": "m", "input": %b}' % value.encode())
    assert found == [400, "input", code]
    assert words in message


@pytest.mark.parametrize(("field", "param"), BAD_FIELDS)
def test_bad_fields_are_named(field: str, param: str) -> None:
    """Each other bad field is a 400 that names that field."""
    raw = b'{"model": "m", "input": "a", %b}' % field.encode()
    assert refusal(raw)[:3] == (400, param, "invalid_value")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"input": "a"}', b'{"model": "m"}'])
def test_bad_bodies_are_refused(raw: bytes) -> None:
    """What is not a JSON object with the two required fields is a 400."""
    assert refusal(raw)[0] == 400


def test_a_body_over_the_limit_is_too_large() -> None:
    """One byte over the limit is a 413."""
    with pytest.raises(TooLargeError):
        parse(b" " * 3001)


@pytest.mark.parametrize(
    ("value", "inputs", "modality"),
    [
        ("a", ("a",), "text"),
        (["a", "{b}"], ("a", "{b}"), "text"),
        (URI, (URI,), "image"),
        ([URI, URI], (URI, URI), "image"),
    ],
)
def test_texts_and_images_are_read(value: Any, inputs: tuple[str, ...], modality: str) -> None:
    """Strings arrive as they were sent, alone and in lists."""
    request = parse(body(input=value))
    assert (request.inputs, request.modality) == (inputs, modality)


tensors = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.just(1)),
    elements=st.floats(0, 1, width=32),
)


@given(st.lists(tensors, min_size=1, max_size=2), st.booleans(), st.booleans())
def test_tensors_arrive_exact_to_the_bit(
    sent: list[NDArray[np.float32]], is_packed: bool, single: bool
) -> None:
    """Numbers and base64 give the very tensor that was sent, alone and in lists."""
    items = [
        {"shape": one.shape, "base64": packed(*one.ravel())}
        if is_packed
        else {"shape": one.shape, "data": one.ravel().tolist()}
        for one in sent
    ]
    request = parse(body(input=items[0] if single else items))
    assert request.modality == "tensor"
    for got, want in zip(request.inputs, sent[:1] if single else sent, strict=True):
        assert (got.dtype, got.shape) == (np.float32, want.shape)
        assert got.tobytes() == want.tobytes() or (want == 0).any()  # zero loses its sign
        np.testing.assert_array_equal(got, want)
        assert not np.signbit(got).any()


def test_a_negative_zero_is_zero() -> None:
    """A sign that means nothing does not make another input, or noise could be averaged away."""
    (got,) = parse(body(input={"shape": [1, 1, 2], "base64": packed(-0.0, 1)})).inputs
    assert not np.signbit(got).any()


def test_optional_fields_are_read_and_null_means_absent() -> None:
    """Given fields arrive as they were sent; absent and null ones read the same."""
    for given_fields in ({}, {"top_k": None, "encoding_format": None, "user": None}):
        request = parse(body(**given_fields))
        assert (request.top_k, request.encoding_format, request.user) == (None, "float", None)
    request = parse(body(top_k=3, encoding_format="base64", user="u", extra=[{"a": 1}]))
    assert (request.top_k, request.encoding_format, request.user) == (3, "base64", "u")


HOSTILE = [
    b"[" + b",".join([b"{}"] * 400_000) + b"]",
    b"[" + b",".join([b'{"shape":[1,1,1],"data":[0]}'] * 40_000) + b"]",
    b"[" + b",".join([b'""'] * 400_000) + b"]",
    b'[{"shape":[1,1,1],"data":[0]},' + b",".join([b"0"] * 400_000) + b"]",
    b'{"shape":[1,1,1],"data":[' + b",".join([b"0"] * 400_000) + b"]}",
    b'{"shape":[1,1,1],"data":[' + b",".join([b"[]"] * 400_000) + b"]}",
    b'{"shape":[' + b",".join([b"1"] * 400_000) + b'],"data":[0]}',
    b'{"shape":[1,1,1],"base64":"' + b"A" * 400_000 + b'"}',
    b'{"shape":[1,1,1],"data":[0],"' + b"x" * 400_000 + b'":0}',
    b"[" * 400_000,
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies_take_little_memory(raw: bytes) -> None:
    """A body of millions of tiny values takes at most four times its size."""
    whole = b'{"model": "m", "input": %b}' % raw
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            parse(whole, Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(whole)


def test_any_depth_is_refused() -> None:
    """However deep a value is nested, and whatever parser gives up first, it is refused."""
    for depth in range(800, 1100, 7):
        nested = b"[" * depth + b"]" * depth
        for value in (
            nested,
            b'{"shape": %b}' % nested,
            b'{"shape": [1,1,1], "data": %b}' % nested,
        ):
            with pytest.raises(InputError):
                parse(b'{"model": "m", "input": %b}' % value, Limits())


lenient_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["shape", "data", "base64", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)
valid_bodies = st.fixed_dictionaries(
    {
        "input": st.sampled_from(
            [
                "a",
                [URI],
                {"shape": [1, 2, 1], "data": [0, 0.5]},
                [{"shape": [1, 1, 1], "base64": packed(0.25)}],
            ]
        ),
        "model": st.just("m"),
    },
    optional={"top_k": st.integers(1, 3), "user": st.text(max_size=3)},
)


def survives(raw: bytes) -> None:
    """Parse; nothing but a request error may come out."""
    with suppress(RequestError):
        parse(raw)


@given(st.binary(max_size=200))
@example(b'{"input":"a","model":"\\ud800"}')
@example(b'{"input":{"shape":[1,1,1],"data":[\xff]},"model":"m"}')
@example(b'{"input":{"shape":[1,1,1],"base64":"\xff"},"model":"m"}')
@example(b'{"input":{"shape":[1,1,1],"\xff":"a"},"model":"m"}')
@example(b'{"input":[{"shape":[1,1,1],"base64":"\\ud800"}],"model":"m"}')
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    """No bytes raise anything but a request error."""
    survives(raw)


@given(
    st.dictionaries(
        st.sampled_from(["input", "model", "encoding_format", "top_k", "user"]), lenient_values
    ),
    st.booleans(),
)
@settings(max_examples=200)
def test_any_json_parses_or_is_refused(value: Any, ascii_only: bool) -> None:
    """No JSON value raises anything but a request error, NaN and odd strings included."""
    fields = {"model": "m", **value}
    survives(json.dumps(fields, ensure_ascii=ascii_only).encode(errors="surrogatepass"))


@given(valid_bodies, st.data())
@settings(max_examples=200)
def test_damaged_bodies_parse_or_are_refused(fields: dict[str, Any], data: st.DataObject) -> None:
    """No byte changed, cut or repeated in a valid body raises anything but a request error."""
    raw = json.dumps(fields).encode()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    middle = data.draw(st.binary(max_size=4) | st.just(raw[start:end] * 2))
    survives(raw[:start] + middle + raw[end:])


@pytest.mark.parametrize(
    "fields", [{"data": None, "base64": packed(1)}, {"data": [1], "base64": None}]
)
def test_null_in_a_tensor_means_absent_too(fields: dict[str, Any]) -> None:
    """Clients that write every field may leave one of data and base64 null."""
    body = f'{{"model": "m", "input": {shaped(1, 1, 1, **fields)}}}'.encode()
    (tensor,) = parse_classify(body, limits=LIMITS).inputs
    assert tensor.tolist() == [[[1.0]]]
