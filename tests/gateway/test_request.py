"""Reading requests: every form of input, every mistake, and any bytes at all."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tollkeeper.errors import InputError, RequestError, TooLargeError
from tollkeeper.gateway.request import INT32_MAX, EmbeddingsRequest, Limits, canonical
from tollkeeper.gateway.wire import error_response, parse_embeddings

LIMITS = Limits(
    max_body_bytes=2000,
    max_inputs=3,
    max_item_bytes=20,
    max_item_tokens=5,
    max_request_tokens=8,
)
URI = "data:image/png;base64,AAAA"

# What stands for "input" in the body, and the code it gets.
BAD_INPUTS: list[tuple[str, str]] = [
    ("null", "missing_required_parameter"),
    ('""', "invalid_value"),
    ("[]", "invalid_value"),
    ("[ \n]", "invalid_value"),
    ("{}", "invalid_value"),
    ("true", "invalid_value"),
    ("7", "invalid_value"),
    ("1e999", "invalid_value"),
    ("9" * 1000, "invalid_value"),
    ('["a", ""]', "invalid_value"),
    ('["a", null]', "invalid_value"),
    ('["a", 1]', "invalid_value"),
    ('["a", ["b"]]', "invalid_value"),
    ("[null]", "invalid_value"),
    ("[{}]", "invalid_value"),
    ("[true]", "invalid_value"),
    ("[false, 1]", "invalid_value"),
    ('[1, "a"]', "invalid_value"),
    ("[1, true]", "invalid_value"),
    ("[1, null]", "invalid_value"),
    ("[1, [2]]", "invalid_value"),
    ("[-1]", "invalid_value"),
    ("[1.0]", "invalid_value"),
    ("[1.5]", "invalid_value"),
    ("[1e3]", "invalid_value"),
    ("[1e999]", "invalid_value"),
    (f"[{INT32_MAX + 1}]", "invalid_value"),
    (f"[{'9' * 1000}]", "invalid_value"),
    ("[[]]", "invalid_value"),
    ("[[1], []]", "invalid_value"),
    ("[[1], 2]", "invalid_value"),
    ('[[1], "a"]', "invalid_value"),
    ("[[true]]", "invalid_value"),
    ("[[-1]]", "invalid_value"),
    ("[[[1]]]", "invalid_value"),
    (f'["a", "{URI}"]', "invalid_value"),
    ("NaN", "invalid_value"),
    ("[NaN]", "invalid_value"),
    ("[1, Infinity]", "invalid_value"),
    ("[[-Infinity]]", "invalid_value"),
    (r'"\ud800"', "invalid_value"),
    (r'["a", "\udc00 tail"]', "invalid_value"),
    ('["a", "b", "c", "d"]', "too_many_inputs"),
    ("[[1], [1], [1], [1]]", "too_many_inputs"),
    (f'"{"x" * 21}"', "input_too_long"),
    (f'["a", "{"é" * 11}"]', "input_too_long"),
    ("[1, 2, 3, 4, 5, 6]", "input_too_long"),
    ("[[1], [1, 2, 3, 4, 5, 6]]", "input_too_long"),
    ("[[1, 2, 3], [1, 2, 3], [1, 2, 3]]", "input_too_long"),
]

# Further fields of the body, the field at fault, and the code.
BAD_FIELDS: list[tuple[str, str, str]] = [
    ('"model": null', "model", "missing_required_parameter"),
    ('"model": ""', "model", "invalid_value"),
    ('"model": 1', "model", "invalid_value"),
    ('"model": ["m"]', "model", "invalid_value"),
    (f'"model": "{"m" * 257}"', "model", "invalid_value"),
    ('"encoding_format": "Float"', "encoding_format", "invalid_value"),
    ('"encoding_format": ""', "encoding_format", "invalid_value"),
    ('"encoding_format": ["float", "base64"]', "encoding_format", "invalid_value"),
    ('"encoding_format": 1', "encoding_format", "invalid_value"),
    ('"dimensions": 0', "dimensions", "invalid_value"),
    ('"dimensions": -1', "dimensions", "invalid_value"),
    ('"dimensions": true', "dimensions", "invalid_value"),
    ('"dimensions": 1.5', "dimensions", "invalid_value"),
    ('"dimensions": "8"', "dimensions", "invalid_value"),
    ('"dimensions": [8]', "dimensions", "invalid_value"),
    ('"dimensions": NaN', "dimensions", "invalid_value"),
    (f'"dimensions": {"9" * 1000}', "dimensions", "invalid_value"),
    ('"user": 1', "user", "invalid_value"),
    ('"user": {}', "user", "invalid_value"),
]

BAD_BODIES: list[tuple[bytes, str | None, str]] = [
    (b"", None, "invalid_json"),
    (b"{", None, "invalid_json"),
    (b"{'input': 'a'}", None, "invalid_json"),
    (b'{"input": "a", "model": "m"} x', None, "invalid_json"),
    (b'{"input": "a", "model": "m",}', None, "invalid_json"),
    (b'\xef\xbb\xbf{"input": "a", "model": "m"}', None, "invalid_json"),
    (b'{"input": "a", "model": "m", "extra": NaN}', None, "invalid_json"),
    (b'{"input": "a\nb", "model": "m"}', None, "invalid_json"),
    (b'{"input": [01], "model": "m"}', None, "invalid_json"),
    (b"NaN", None, "invalid_json"),
    (b'{"input": ' + b"[" * 1900, None, "invalid_json"),
    (b"null", None, "invalid_value"),
    (b"[]", None, "invalid_value"),
    (b"[" * 1900, None, "invalid_value"),
    (b'"text"', None, "invalid_value"),
    (b"7", None, "invalid_value"),
    (b"{}", "input", "missing_required_parameter"),
    (b'{"model": "m"}', "input", "missing_required_parameter"),
    (b'{"input": "a"}', "model", "missing_required_parameter"),
    (b'{"input": "\xff", "model": "m"}', "input", "invalid_value"),
    (b'{"input": ["a", "\xc3("], "model": "m"}', "input", "invalid_value"),
    (b'{"input": "a", "model": "\xff"}', "model", "invalid_value"),
]


def body(**fields: Any) -> bytes:
    """Return a valid body with some fields changed."""
    return json.dumps({"input": "a", "model": "m"} | fields).encode()


def parse(raw: bytes, limits: Limits = LIMITS) -> EmbeddingsRequest:
    """Parse with small limits."""
    return parse_embeddings(raw, limits=limits)


def refusal(raw: bytes) -> tuple[int, str | None, str | None]:
    """Return status, param and code of the reply to a body that must be refused."""
    with pytest.raises(RequestError) as caught:
        parse(raw)
    reply = error_response(caught.value)
    error = json.loads(reply.body)["error"]
    assert len(error["message"]) < 400
    return reply.status, error["param"], error["code"]


@pytest.mark.parametrize(("value", "code"), BAD_INPUTS)
def test_bad_inputs_name_the_field(value: str, code: str) -> None:
    """Each bad `input` is a 400 that names `input`."""
    assert refusal(b'{"model": "m", "input": %b}' % value.encode()) == (400, "input", code)


@pytest.mark.parametrize(("field", "param", "code"), BAD_FIELDS)
def test_bad_fields_are_named(field: str, param: str, code: str) -> None:
    """Each other bad field is a 400 that names that field."""
    raw = b'{"model": "m", "input": "a", %b}' % field.encode()
    assert refusal(raw) == (400, param, code)


@pytest.mark.parametrize(("raw", "param", "code"), BAD_BODIES)
def test_bad_bodies_are_refused(raw: bytes, param: str | None, code: str) -> None:
    """What is not a JSON object with the two required fields is a 400."""
    assert refusal(raw) == (400, param, code)


def test_a_body_over_the_limit_is_too_large() -> None:
    """One byte over the limit is a 413, and the limit itself is not."""
    raw = body()
    exact = Limits(max_body_bytes=len(raw))
    assert parse(raw, exact).inputs == ("a",)
    with pytest.raises(TooLargeError):
        parse(raw + b" ", exact)
    assert refusal(b" " * 2001) == (413, None, "request_too_large")


def test_messages_say_where() -> None:
    """A message names the position of the item at fault."""
    with pytest.raises(InputError, match=r"got `int` - at `input\[1\]`"):
        parse(body(input=["a", 1]))
    with pytest.raises(InputError, match=r"empty string at input\[2\]"):
        parse(body(input=["a", "b", ""]))


@pytest.mark.parametrize(
    ("value", "inputs", "modality", "single"),
    [
        ("a", ("a",), "text", True),
        (" \n", (" \n",), "text", True),
        ('say "hi", [you]', ('say "hi", [you]',), "text", True),
        ("é" * 10, ("é" * 10,), "text", True),
        (["a"], ("a",), "text", False),
        (["\\", '"', ","], ("\\", '"', ","), "text", False),
        (["a", "a", "\U0001f600"], ("a", "a", "\U0001f600"), "text", False),
        ([0], ([0],), "tokens", True),
        ([INT32_MAX, 1], ([INT32_MAX, 1],), "tokens", True),
        ([[1, 2], [3]], ([1, 2], [3]), "tokens", False),
        (URI, (URI,), "image", True),
        ([URI, URI], (URI, URI), "image", False),
        ("DATA:image/", ("DATA:image/",), "text", True),
    ],
)
def test_every_form_of_input_is_read(
    value: Any, inputs: tuple[Any, ...], modality: str, single: bool
) -> None:
    """Strings, token lists and images arrive as they were sent, alone and in lists."""
    request = parse(body(input=value))
    assert (request.inputs, request.modality, request.single) == (inputs, modality, single)


def test_optional_fields_default_and_null_means_absent() -> None:
    """Absent and null optional fields read the same."""
    absent = parse(body())
    assert absent == EmbeddingsRequest(("a",), "text", "m", "float", None, None, single=True)
    assert parse(body(encoding_format=None, dimensions=None, user=None)) == absent


def test_optional_fields_are_read() -> None:
    """Given optional fields arrive as they were sent."""
    request = parse(body(encoding_format="base64", dimensions=8, user=""))
    assert (request.encoding_format, request.dimensions, request.user) == ("base64", 8, "")


def test_unknown_fields_are_ignored() -> None:
    """Extensions of other servers do no harm, whatever they hold."""
    assert parse(body(input_type="query", truncate={"side": ["left"]}, seed=1.5)) == parse(body())


def test_the_last_of_a_repeated_field_counts() -> None:
    """A repeated field reads as in Python's and JavaScript's parsers."""
    request = parse(b'{"input": "a", "model": "m", "input": "b"}')
    assert request.inputs == ("b",)


@pytest.mark.parametrize("item", [b"[]", b'"ab"', b"[1]", b"123456", b'"\\\\"', b'{"a":1}'])
@pytest.mark.parametrize("field", [b"input", b"extra"])
def test_hostile_bodies_take_little_memory(item: bytes, field: bytes) -> None:
    """A body of millions of tiny values takes at most three times its size."""
    items = b"[" + b",".join([item] * 400_000) + b"]"
    raw = b'{"model": "m", "%b": %b, "input": %b}' % (field, items, items)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            parse(raw, Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(raw)


def json_of(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """Return JSON values with these floats."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=10,
    )


# NaN and infinity are no JSON, but Python writes them.
lenient_values = json_of(st.floats())
strict_values = json_of(st.floats(allow_nan=False, allow_infinity=False))
texts = st.text(min_size=1, max_size=5).filter(lambda text: not text.startswith("data:image/"))
token_lists = st.lists(st.integers(0, INT32_MAX), min_size=1, max_size=5)
valid_bodies = st.fixed_dictionaries(
    {
        "input": texts
        | token_lists
        | st.lists(texts, min_size=1, max_size=3)
        | st.lists(token_lists.map(lambda tokens: tokens[:2]), min_size=1, max_size=3),
        "model": st.text(min_size=1, max_size=5),
    },
    optional={
        "encoding_format": st.sampled_from(["float", "base64", None]),
        "dimensions": st.none() | st.integers(1, INT32_MAX),
        "user": st.none() | st.text(max_size=5),
        "extra": strict_values,
    },
)


def survives(raw: bytes) -> None:
    """Parse; nothing but a request error may come out."""
    with suppress(RequestError):
        parse(raw)


@given(st.binary(max_size=200))
@example(b'{"input":"a","model":"\\ud800"}')
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    """No bytes raise anything but a request error."""
    survives(raw)


@given(
    st.dictionaries(
        st.sampled_from(["input", "model", "encoding_format", "dimensions", "user"]), lenient_values
    )
    | lenient_values,
    st.booleans(),
)
def test_any_json_parses_or_is_refused(value: Any, ascii_only: bool) -> None:
    """No JSON value raises anything but a request error, NaN and odd strings included."""
    survives(json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass"))


def test_any_depth_is_refused() -> None:
    """However deep a value is nested, and whatever parser gives up first, it is refused."""
    limits = Limits()
    for depth in range(800, 1100):
        nested = b"[" * depth + b"]" * depth
        for start in (b"", b"NaN, "):
            with pytest.raises(InputError):
                parse(b'{"input": [%b%b]}' % (start, nested), limits)


@given(valid_bodies, st.data())
def test_damaged_bodies_parse_or_are_refused(fields: dict[str, Any], data: st.DataObject) -> None:
    """No byte changed, cut or repeated in a valid body raises anything but a request error."""
    raw = json.dumps(fields).encode()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    middle = data.draw(st.binary(max_size=4) | st.just(raw[start:end] * 2))
    survives(raw[:start] + middle + raw[end:])


@given(valid_bodies, st.booleans())
@settings(max_examples=200)
def test_valid_bodies_read_as_python_reads_them(fields: dict[str, Any], ascii_only: bool) -> None:
    """A valid body arrives unchanged, compared with the standard library's parser."""
    raw = json.dumps(fields, ensure_ascii=ascii_only).encode()
    oracle = json.loads(raw)
    value = oracle["input"]
    single = isinstance(value, str) or isinstance(value[0], int)
    assert parse(raw) == EmbeddingsRequest(
        inputs=(value,) if single else tuple(value),
        modality="text" if isinstance(value if single else value[0], str) else "tokens",
        model=oracle["model"],
        encoding_format=oracle.get("encoding_format") or "float",
        dimensions=oracle.get("dimensions"),
        user=oracle.get("user"),
        single=single,
    )


items = (
    st.text(max_size=3)
    | st.lists(st.integers(0, 300), max_size=3)
    | st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1)).map(
        lambda shape: np.full((shape[0], shape[1], 3), shape[2], dtype=np.uint8)
    )
    | st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 0.5, 1])).map(
        lambda shape: np.full((shape[0], shape[1], 3), shape[2], dtype=np.float32)
    )
)


def identity(item: Any) -> tuple[str, str]:
    """Return what makes two inputs the same, the slow way."""
    is_array = isinstance(item, np.ndarray)
    kind = f"{item.dtype}{item.shape}" if is_array else type(item).__name__
    return kind, json.dumps(item.tolist() if is_array else item)


@given(items, items)
def test_canonical_bytes_are_equal_only_for_equal_items(one: Any, other: Any) -> None:
    """Two inputs have the same bytes exactly if they are the same input."""
    assert (canonical(one) == canonical(other)) == (identity(one) == identity(other))


def test_canonical_bytes_stay_as_they_are() -> None:
    """Stored identities depend on these bytes, so they never change."""
    assert canonical("aé") == b"ta\xc3\xa9"
    assert canonical([1, 256]) == b"k\x01" + b"\0" * 7 + b"\0\x01" + b"\0" * 6
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert canonical(image) == b"i\x01\0\0\0\x02\0\0\0\0\x01\x02\x03\x04\x05"
    tensor = np.array([0, 1, 0.5], dtype=np.float32).reshape(1, 1, 3)
    shape = b"\x01\0\0\0\x01\0\0\0\x03\0\0\0"
    assert canonical(tensor) == b"f" + shape + b"\0\0\0\0\0\0\x80?\0\0\0?"


def test_zero_has_one_canonical_form() -> None:
    """A tensor whose zeros have signs is the same input."""
    zero = np.zeros((1, 1, 2), dtype=np.float32)
    assert canonical(-zero) == canonical(zero)
