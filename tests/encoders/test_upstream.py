"""Promises of the upstream adapter, over real HTTP against a fake upstream with the known quirks."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tollkeeper.encoders.base import Encoder, MeasuresUsage, Remote
from tollkeeper.encoders.upstream import UpstreamEncoder
from tollkeeper.encoders.upstream_wire import spread
from tollkeeper.errors import (
    ConfigurationError,
    EncoderError,
    InputError,
    ModelNotFoundError,
    RequestError,
    TooLargeError,
)

KEY = "sk-operator-0123456789"
DIM = 4


@dataclass
class Reply:
    """What the fake answers: status, body (bytes or JSON), headers; `drop` closes instead."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


Behavior = Callable[[dict[str, Any]], Reply]


def vector(item: Any) -> NDArray[np.float32]:
    """Return the embedding the fake gives an item, from a hash of its JSON."""
    digest = hashlib.sha256(json.dumps(item).encode()).digest()
    return np.frombuffer(digest[:DIM], np.uint8).astype(np.float32) / np.float32(7)


def encode(row: NDArray[np.float32], encoding: str) -> Any:
    """Return a row as the wire carries it."""
    return (
        base64.b64encode(row.astype("<f4").tobytes()).decode()
        if encoding == "base64"
        else row.tolist()
    )


def good(request: dict[str, Any]) -> Reply:
    """Answer as OpenAI does, ten tokens an item."""
    items = request["input"]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": encode(vector(item), request["encoding_format"]),
        }
        for index, item in enumerate(items)
    ]
    tokens = 10 * len(items)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(body={"object": "list", "data": data, "model": "fake-1", "usage": usage})


def changed(change: Callable[[dict[str, Any]], object]) -> Behavior:
    """Return a behavior that answers well, then changes the answer's body."""

    def behavior(request: dict[str, Any]) -> Reply:
        reply = good(request)
        change(reply.body)
        return reply

    return behavior


class FakeUpstream:
    """An HTTP server on 127.0.0.1 whose next replies are queued, then `behavior` rules."""

    def __init__(self) -> None:
        """Start serving."""
        self.behavior: Behavior = good
        self.queue: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                reply = fake.answer(self.path, dict(self.headers.items()), json.loads(content))
                if reply.drop:
                    self.close_connection = True
                    return
                body = (
                    reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                )
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, path: str, headers: dict[str, str], request: dict[str, Any]) -> Reply:
        """Record one request and choose its reply."""
        self.paths.append(path)
        self.headers.append({name.lower(): value for name, value in headers.items()})
        self.requests.append(request)
        return self.queue.pop(0) if self.queue else self.behavior(request)

    def sizes(self) -> list[int]:
        """Return how many inputs each request had."""
        return [len(request["input"]) for request in self.requests]

    def close(self) -> None:
        """Let waiting handlers go and stop."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    """Run a fake upstream for one test."""
    upstream = FakeUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def waits() -> list[float]:
    """Seconds that the encoder would have slept."""
    return []


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """Share one client: loading certificates takes longer than a test."""
    with httpx2.Client() as shared:
        yield shared


Connect = Callable[..., UpstreamEncoder]


@pytest.fixture
def connect(fake: FakeUpstream, waits: list[float], client: httpx2.Client) -> Connect:
    """Return a maker of encoders that never really sleep."""
    defaults = {"dim": DIM, "timeout_s": 10.0, "sleep": waits.append, "client": client}
    return lambda **options: UpstreamEncoder(fake.url, **{**defaults, **options})


def openai_error(message: str, **fields: Any) -> dict[str, Any]:
    """Return an error body as OpenAI writes it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, **fields}}


# What is asked ----------------------------------------------------------------------------------


def test_the_probe_learns_width_and_name(fake: FakeUpstream, connect: Connect) -> None:
    """One request at construction tells the width, and the name when no model is given."""
    encoder = connect(dim=None)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, MeasuresUsage)
    assert isinstance(encoder, Remote)
    assert (encoder.dim, encoder.name) == (DIM, "fake-1")
    assert encoder.accepts == {"text", "tokens", "image"}
    assert fake.paths == ["/v1/embeddings"]
    assert "model" not in fake.requests[0]


def test_a_given_width_needs_no_request(fake: FakeUpstream, connect: Connect) -> None:
    """With `dim` nothing is asked at construction, nor for an empty batch."""
    encoder = connect(model="m")
    assert encoder.name == "m"
    assert encoder.embed([]).shape == (0, DIM)
    assert encoder.embed_measured([])[1].tolist() == []
    assert fake.requests == []


def test_model_key_and_base64_are_sent(fake: FakeUpstream, connect: Connect) -> None:
    """Every request names the model, carries the credential and asks for base64."""
    connect(model="m", api_key=KEY).embed(["a", "b"])
    assert fake.requests == [{"input": ["a", "b"], "encoding_format": "base64", "model": "m"}]
    assert fake.headers[0]["authorization"] == f"Bearer {KEY}"


def test_strings_and_token_lists_travel_as_they_came(fake: FakeUpstream, connect: Connect) -> None:
    """Strings (data URIs too) and ids are untouched, whatever container the ids came in."""
    encoder = connect()
    texts = ["Füße \n\u0000", "data:image/png;base64,AAAA"]
    np.testing.assert_array_equal(encoder.embed(texts), [vector(text) for text in texts])
    np.testing.assert_array_equal(
        encoder.embed([[1, 2], (3,), np.array([4, 5])]),
        [vector([1, 2]), vector([3]), vector([4, 5])],
    )
    assert [request["input"] for request in fake.requests] == [texts, [[1, 2], [3], [4, 5]]]


def test_images_travel_as_lossless_png(fake: FakeUpstream, connect: Connect) -> None:
    """An array arrives as a PNG data URI of exactly its pixels, and is not changed."""
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    before = image.copy()
    connect().embed([image])
    scheme, _, content = fake.requests[0]["input"][0].partition(",")
    assert scheme == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), before)
    np.testing.assert_array_equal(image, before)


def test_batches_are_split_and_reassembled(fake: FakeUpstream, connect: Connect) -> None:
    """More inputs than `max_batch` go in several requests; rows and usage come back whole."""
    texts = [f"text {i}" for i in range(70)]
    embeddings, tokens = connect().embed_measured(texts)
    assert fake.sizes() == [32, 32, 6]
    np.testing.assert_array_equal(embeddings, [vector(text) for text in texts])
    assert tokens.sum() == 700


# What is answered -------------------------------------------------------------------------------


def test_floats_are_taken_though_base64_was_asked(fake: FakeUpstream, connect: Connect) -> None:
    """An upstream that ignores `encoding_format` (LM Studio, SGLang) is understood."""
    fake.behavior = lambda request: good({**request, "encoding_format": "float"})
    np.testing.assert_allclose(connect().embed(["a"]), [vector("a")])


def test_refused_base64_falls_back_to_floats_once(fake: FakeUpstream, connect: Connect) -> None:
    """An upstream that refuses base64 (vLLM once) is asked for floats, and then only for floats."""

    def refuse(request: dict[str, Any]) -> Reply:
        if request["encoding_format"] == "base64":
            return Reply(400, openai_error("base64 encoding is not currently supported"))
        return good(request)

    fake.behavior = refuse
    encoder = connect(dim=None)
    np.testing.assert_allclose(encoder.embed(["b"]), [vector("b")])
    formats = [request["encoding_format"] for request in fake.requests]
    assert formats == ["base64", "float", "float"]


def test_after_a_first_answer_a_400_is_about_the_input(
    fake: FakeUpstream, connect: Connect
) -> None:
    """Once base64 has worked, a bad input does not change the format or cost a second request."""
    encoder = connect()
    encoder.embed(["a"])
    fake.queue = [Reply(400, openai_error("bad input"))]
    with pytest.raises(InputError):
        encoder.embed(["b"])
    encoder.embed(["c"])
    assert [request["encoding_format"] for request in fake.requests] == ["base64"] * 3


def test_reordered_data_is_put_in_order(fake: FakeUpstream, connect: Connect) -> None:
    """Rows follow `index`, not the order of `data`."""
    fake.behavior = changed(lambda body: body["data"].reverse())
    np.testing.assert_array_equal(
        connect().embed(["a", "b", "c"]), [vector(text) for text in ("a", "b", "c")]
    )


def test_without_any_index_the_order_is_taken(fake: FakeUpstream, connect: Connect) -> None:
    """Servers that leave `index` out answer in order."""
    fake.behavior = changed(lambda body: [item.pop("index") for item in body["data"]])
    np.testing.assert_array_equal(connect().embed(["a", "b"]), [vector("a"), vector("b")])


def set_item(position: int, name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Return a change of one field of one item of `data`."""
    return lambda body: body["data"][position].update({name: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_item(1, "index", 0), "index"),
        (set_item(1, "index", 2), "index"),
        (set_item(1, "index", True), "index"),
        (set_item(1, "index", None), "index"),
        (lambda body: body["data"].pop(), "1 embeddings for 2 inputs"),
        (lambda body: body["data"].append(body["data"][0]), "3 embeddings for 2 inputs"),
        (lambda body: body.pop("data"), "without a list of embeddings"),
        (lambda body: body.update(data=["x", "y"]), "without a list of embeddings"),
        (lambda body: body.update(data=None, error={"message": "no"}), "without a list"),
        (set_item(0, "embedding", [1.0]), "different widths"),
        (lambda body: [item.update(embedding=[1.0]) for item in body["data"]], "width 4, got 1"),
        (set_item(0, "embedding", encode(np.full(DIM, np.nan, np.float32), "base64")), "NaN"),
        (set_item(0, "embedding", [1e39, 0, 0, 0]), "infinity"),
        (set_item(0, "embedding", [float("nan"), 0, 0, 0]), "not JSON"),
        (set_item(0, "embedding", "!!!!"), "cannot be decoded"),
        (set_item(0, "embedding", "AAAA"), "cannot be decoded"),
        (set_item(0, "embedding", [10**400, 0, 0, 0]), "cannot be decoded|not JSON"),
        (set_item(0, "embedding", [[1.0], 2.0, 3.0, 4.0]), "neither base64 nor floats"),
        (set_item(0, "embedding", None), "neither base64 nor floats"),
        (set_item(0, "embedding", ["1", "2", "3", "4"]), "neither base64 nor floats"),
    ],
)
def test_a_corrupt_answer_fails_the_call(
    fake: FakeUpstream, connect: Connect, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    """Wrong count, order, width (a quarter of it, say) or numbers never pass silently."""
    fake.behavior = changed(change)
    with pytest.raises(EncoderError, match=words):
        connect().embed(["a", "b"])
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000 + b"]" * 100_000]
)
def test_an_empty_or_foreign_200_fails_the_call(
    fake: FakeUpstream, connect: Connect, body: bytes
) -> None:
    """A 200 without an answer in it (OpenRouter once) is an encoder error."""
    fake.queue = [Reply(body=body)]
    with pytest.raises(EncoderError, match="answered 200"):
        connect().embed(["a"])


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": 0, "total_tokens": 0},
        "many",
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**70},
        {"prompt_tokens": 1.5},
    ],
)
def test_missing_usage_is_estimated(fake: FakeUpstream, connect: Connect, usage: object) -> None:
    """Without a sensible count: a quarter of the UTF-8 bytes, list lengths, one per image."""
    fake.behavior = changed(lambda body: body.update(usage=usage))
    encoder = connect()
    assert encoder.embed_measured(["", "four", "fünf5"])[1].tolist() == [1, 1, 2]
    assert encoder.embed_measured([[1, 2, 3], [4]])[1].tolist() == [3, 1]
    assert encoder.embed_measured(["data:image/png;base64,AAAAAAAAAAAA"])[1].tolist() == [1]
    assert encoder.embed_measured([np.zeros((9, 9, 3), np.uint8)])[1].tolist() == [1]


def test_total_tokens_stand_in_for_prompt_tokens(fake: FakeUpstream, connect: Connect) -> None:
    """Either field of `usage` will do."""
    fake.behavior = changed(lambda body: body.update(usage={"total_tokens": 7}))
    assert connect().embed_measured(["a"])[1].tolist() == [7]


@given(st.integers(0, 2**31), st.lists(st.integers(1, 2**18), min_size=1, max_size=40))
def test_a_total_is_spread_exactly(total: int, weights: list[int]) -> None:
    """Shares sum to the total and are within one token of proportional."""
    shares = spread(total, np.array(weights))
    assert shares.sum() == total
    for share, weight in zip(shares.tolist(), weights, strict=True):
        assert abs(share - Fraction(total * weight, sum(weights))) < 1


def test_an_answer_too_large_is_cut_off(fake: FakeUpstream, connect: Connect) -> None:
    """A body beyond the bound is not read to its end, packed or not."""
    fake.queue = [Reply(body=b" " * 2**21)]
    encoder = connect()
    with pytest.raises(EncoderError, match="larger than"):
        encoder.embed(["a"])
    packed = gzip.compress(b" " * 2**24)
    fake.queue = [Reply(body=packed, headers={"content-encoding": "gzip"})]
    with pytest.raises(EncoderError, match="larger than"):
        encoder.embed(["a"])
    assert fake.headers[0]["accept-encoding"] == "identity"


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(400, openai_error("Bad thing.", code="bad")), InputError("Bad thing.", code="bad")),
        (Reply(400, openai_error("Bad thing.", code=400)), InputError("Bad thing.", code="400")),
        (
            Reply(
                422,
                {"message": "must be less than 512 tokens", "code": 422, "type": "validation"},
            ),
            InputError("must be less than 512 tokens", code="422"),
        ),
        (
            Reply(422, {"error": "Input validation error", "error_type": "Validation"}),
            InputError("Input validation error", code=None),
        ),
        (
            Reply(422, {"detail": [{"loc": ["x"], "msg": "field required"}, {"msg": "too short"}]}),
            InputError("field required; too short", code=None),
        ),
        (Reply(400, {"detail": "no such thing"}), InputError("no such thing", code=None)),
        (Reply(400, b""), InputError("it gave no reason", code=None)),
        (Reply(400, b"<html>Bad Gateway</html>"), InputError("it gave no reason", code=None)),
        (Reply(400, {"error": {"message": ["a", 1], "code": None}}), InputError("a", code=None)),
        (Reply(413, openai_error("payload")), TooLargeError("payload", code=None)),
        (
            Reply(404, openai_error("The model `x` does not exist", code="model_not_found")),
            ModelNotFoundError("The model `x` does not exist", code="model_not_found"),
        ),
    ],
)
def test_a_refused_input_is_the_clients_error(
    fake: FakeUpstream, connect: Connect, reply: Reply, expected: RequestError
) -> None:
    """Complaints of every known shape become our errors, with their words and a string code."""
    fake.behavior = lambda _: reply
    with pytest.raises(type(expected)) as caught:
        connect().embed(["a"])
    assert caught.value.message.endswith(f": {expected.message}")
    assert caught.value.code == expected.code


def test_refused_token_lists_say_what_to_set(fake: FakeUpstream, connect: Connect) -> None:
    """A 422 about token lists (TEI once) tells LangChain's users what to change."""
    words = "data did not match any variant of untagged enum Input"
    fake.behavior = lambda _: Reply(422, {"message": words, "code": 422, "type": "validation"})
    with pytest.raises(InputError, match="check_embedding_ctx_length=False"):
        connect().embed([[1, 2], [3]])


def test_complaints_are_cleaned(fake: FakeUpstream, connect: Connect) -> None:
    """No address, credential, control character or endless text of the upstream gets through."""
    words = (
        f"see http://10.0.0.7:80/x key {KEY} or sk-other-secret1 Bearer abc\nline\x1b[2J"
        + "x" * 900
    )
    fake.behavior = lambda _: Reply(400, openai_error(words))
    with pytest.raises(InputError) as caught:
        connect(api_key=KEY).embed(["a"])
    text = caught.value.message
    assert text.isprintable()
    assert len(text) < 400
    assert not any(secret in text for secret in ("10.0.0.7", KEY, "sk-", "abc"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"", openai_error(f"Incorrect API key provided: {KEY}")])
def test_a_refused_credential_is_the_operators_problem(
    fake: FakeUpstream, connect: Connect, status: int, body: Any
) -> None:
    """A 401 or 403, empty or not, is an encoder error that quotes nothing and is not retried."""
    fake.behavior = lambda _: Reply(status, body)
    with pytest.raises(EncoderError, match="the gateway's credential") as caught:
        connect(api_key=KEY).embed(["a"])
    assert KEY not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("body", [b"", {"detail": "Not Found"}, b"<html>nginx</html>"])
def test_a_missing_route_is_not_a_missing_model(
    fake: FakeUpstream, connect: Connect, body: Any
) -> None:
    """A 404 without words about a model means the address broke, not the client's request."""
    fake.behavior = lambda _: Reply(404, body)
    with pytest.raises(EncoderError, match="answered 404"):
        connect().embed(["a"])


@pytest.mark.parametrize("status", [204, 302, 402, 409])
def test_any_other_status_is_an_encoder_error(
    fake: FakeUpstream, connect: Connect, status: int
) -> None:
    """Redirects are not followed (they would carry the credential away), the rest is not guessed."""
    fake.behavior = lambda _: Reply(status, b"", {"location": f"{fake.url}/elsewhere"})
    with pytest.raises(EncoderError, match=f"answered {status}"):
        connect(api_key=KEY).embed(["a"])
    assert fake.paths == ["/v1/embeddings"]


def tei(limit: int, status: int = 422) -> Behavior:
    """Return a text-embeddings-inference that takes `limit` inputs per request."""

    def behavior(request: dict[str, Any]) -> Reply:
        n = len(request["input"])
        if n <= limit:
            return good(request)
        words = f"batch size {n} > maximum allowed batch size {limit}"
        return Reply(status, {"message": words, "code": status, "type": "validation"})

    return behavior


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_too_large_is_halved(fake: FakeUpstream, connect: Connect, status: int) -> None:
    """A complaint about the batch, not the input, is answered by smaller batches, in order."""
    fake.behavior = tei(3, status)
    encoder = connect(max_batch=100)
    encoder.embed(["first"])
    texts = [f"text {i}" for i in range(10)]
    np.testing.assert_array_equal(encoder.embed(texts), [vector(text) for text in texts])
    assert fake.sizes() == [1, 10, 5, 2, 3, 5, 2, 3]


def test_the_default_batch_suits_text_embeddings_inference(
    fake: FakeUpstream, connect: Connect
) -> None:
    """TEI's default of 32 inputs per request is never exceeded."""
    fake.behavior = tei(32)
    assert connect().embed([str(i) for i in range(100)]).shape == (100, DIM)
    assert max(fake.sizes()) == 32


def test_one_bad_part_fails_the_whole_call(fake: FakeUpstream, connect: Connect) -> None:
    """When a later batch is refused, no rows are returned at all."""
    fake.behavior = lambda request: (
        Reply(400, openai_error("bad")) if "bad" in request["input"] else good(request)
    )
    with pytest.raises(InputError):
        connect(max_batch=2).embed(["a", "b", "bad", "c", "d"])
    assert fake.sizes() == [2, 2]


# What is tried again ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 424, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(
    fake: FakeUpstream, connect: Connect, waits: list[float], status: int
) -> None:
    """Overload and failures are retried with doubled waits, and the answer is as ever."""
    fake.queue = [Reply(status), Reply(status, openai_error("busy"))]
    np.testing.assert_array_equal(connect().embed(["a"]), [vector("a")])
    assert waits == [0.5, 1.0]


def test_a_dropped_connection_is_tried_again(
    fake: FakeUpstream, connect: Connect, waits: list[float]
) -> None:
    """A connection closed without an answer is a passing trouble."""
    fake.queue = [Reply(drop=True)]
    np.testing.assert_array_equal(connect().embed(["a"]), [vector("a")])
    assert waits == [0.5]


def test_a_body_cut_short_is_tried_again(
    fake: FakeUpstream, connect: Connect, waits: list[float]
) -> None:
    """An answer shorter than it promised is not taken for one."""
    fake.queue = [Reply(body=b'{"data"', headers={"content-length": "100", "connection": "close"})]
    np.testing.assert_array_equal(connect().embed(["a"]), [vector("a")])
    assert waits == [0.5]


def test_lasting_trouble_ends_in_an_encoder_error(
    fake: FakeUpstream, connect: Connect, waits: list[float]
) -> None:
    """After the last try the error tells the status and nothing of the upstream's words."""
    fake.behavior = lambda _: Reply(503, openai_error("node gpu-7.internal is down"))
    with pytest.raises(EncoderError, match="answered 503") as caught:
        connect(retries=1).embed(["a"])
    assert "gpu-7" not in str(caught.value)
    assert (len(fake.requests), waits) == (2, [0.5])


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3"}, [3.0]),
        ({"retry-after": "0"}, [0.0]),
        ({"retry-after-ms": "250", "retry-after": "3"}, [0.25]),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, [0.5]),
        ({"retry-after": "-1"}, [0.5]),
        ({"retry-after": "nan"}, [0.5]),
    ],
)
def test_retry_after_is_honored(
    fake: FakeUpstream,
    connect: Connect,
    waits: list[float],
    headers: dict[str, str],
    expected: list[float],
) -> None:
    """The wait the upstream asks for replaces ours when it is a number."""
    fake.queue = [Reply(429, b"", headers)]
    connect().embed(["a"])
    assert waits == expected


@pytest.mark.parametrize("headers", [{"retry-after": "300"}, {"x-should-retry": "false"}])
def test_an_upstream_that_wants_no_retry_gets_none(
    fake: FakeUpstream, connect: Connect, waits: list[float], headers: dict[str, str]
) -> None:
    """A long wait or a plain no fails the call at once instead of blocking the client."""
    fake.behavior = lambda _: Reply(429, b"", headers)
    with pytest.raises(EncoderError, match="answered 429"):
        connect().embed(["a"])
    assert (len(fake.requests), waits) == (1, [])


def test_a_silent_upstream_times_out(fake: FakeUpstream, connect: Connect) -> None:
    """A request without an answer ends after `timeout_s` as an encoder error."""

    def silent(request: dict[str, Any]) -> Reply:
        fake.released.wait(30)
        return good(request)

    fake.behavior = silent
    with pytest.raises(EncoderError, match="ReadTimeout"):
        connect(timeout_s=0.2, retries=0).embed(["a"])


def test_a_dripping_body_times_out(connect: Connect) -> None:
    """A body that keeps coming but not in time is cut off: the clock bounds the whole request."""
    seconds = iter([0.0, 11.0])
    with pytest.raises(EncoderError, match="ReadTimeout"):
        connect(timeout_s=10.0, retries=0, clock=lambda: next(seconds)).embed(["a"])


def test_an_unreachable_upstream_is_an_encoder_error(
    fake: FakeUpstream, connect: Connect, waits: list[float]
) -> None:
    """Nobody listening: retried, then told without the address."""
    fake.server.server_close()
    with pytest.raises(EncoderError, match="ConnectError") as caught:
        connect(dim=None)
    assert "127.0.0.1" not in str(caught.value)
    assert waits == [0.5, 1.0]


# How it is set up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host/v1",
        "http:///v1",
        "http://user:secret@host/v1",
        "http://host/v1?key=secret",
        "http://host/v1#model",
        "http://host:port/v1",
    ],
)
def test_an_unusable_address_is_a_configuration_error(url: str) -> None:
    """An address that is none, or that holds a credential, is refused without quoting it."""
    with pytest.raises(ConfigurationError) as caught:
        UpstreamEncoder(url, dim=DIM)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_an_unusable_credential_is_a_configuration_error(key: str) -> None:
    """A key that no header can carry is refused at the start, without quoting it."""
    with pytest.raises(ConfigurationError, match="printable ASCII") as caught:
        UpstreamEncoder("http://localhost/v1", api_key=key, dim=DIM)
    assert key not in str(caught.value)


def test_a_refused_probe_is_a_configuration_error(fake: FakeUpstream, connect: Connect) -> None:
    """When the first request is refused, the operator hears why and what to check."""
    fake.behavior = lambda _: Reply(404, openai_error("The model `m` does not exist"))
    with pytest.raises(ConfigurationError, match=r"does not exist.*#model"):
        connect(dim=None, model="m")


def test_a_client_handed_in_stays_open(fake: FakeUpstream) -> None:
    """The encoder closes only what it opened."""
    with httpx2.Client() as client:
        with UpstreamEncoder(fake.url, dim=DIM, client=client) as encoder:
            encoder.embed(["a"])
        assert not client.is_closed
    with UpstreamEncoder(fake.url, dim=DIM) as encoder:
        encoder.embed(["a"])
    with pytest.raises(RuntimeError):
        encoder.embed(["a"])


def test_many_threads_share_one_encoder(fake: FakeUpstream, connect: Connect) -> None:
    """Calls from several threads at once each get their own rows."""
    encoder = connect(max_batch=3)
    results: dict[int, NDArray[np.float32]] = {}

    def ask(worker: int) -> None:
        results[worker] = encoder.embed([f"{worker}-{i}" for i in range(7)])

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker, rows in results.items():
        np.testing.assert_array_equal(rows, [vector(f"{worker}-{i}") for i in range(7)])
    assert len(results) == 8
