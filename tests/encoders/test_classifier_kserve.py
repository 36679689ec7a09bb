"""Promises of the KServe adapter, over real HTTP against a fake KServe v2 server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.encoders.base import Remote
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.encoders.classifiers.kserve import KServeClassifier
from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.errors import ConfigurationError, EncoderError, InputError

KEY = "secret-operator-key"
PICTURES = {"name": "x", "datatype": "FP32", "shape": [-1, 1, 2, 2]}
TEXTS = {"name": "t", "datatype": "BYTES", "shape": [-1, 1]}
ROWS = {"name": "y", "datatype": "FP32", "shape": [-1, 3]}


@dataclass
class Reply:
    """What the fake answers: a status and a body, as bytes or JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Behavior = Callable[[dict[str, Any]], Reply]


def answer(rows: np.ndarray[Any, Any], **changed: Any) -> Reply:
    """Return rows as Triton does: flat, with a name and a shape."""
    output = {"name": "y", "shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}
    return Reply({"model_name": "m", "model_version": "1", "outputs": [output | changed]})


def sent(request: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the pictures of a request as (n, 4)."""
    (tensor,) = request["inputs"]
    assert (tensor["name"], tensor["datatype"]) == ("x", "FP32")
    return np.array(tensor["data"]).reshape(tensor["shape"]).reshape(tensor["shape"][0], 4)


def softmax(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the probabilities of logits."""
    raised = np.exp(rows)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def good(request: dict[str, Any]) -> Reply:
    """Answer pictures by the softmax of their first three pixels."""
    return answer(softmax(sent(request)[:, :3]))


class FakeKServe:
    """A server of one model `m` on 127.0.0.1 with the protocol's two routes that we use."""

    def __init__(self) -> None:
        """Start serving."""
        self.metadata: Any = {"name": "m", "platform": "onnx", "inputs": [PICTURES]}
        self.metadata |= {"outputs": [ROWS]}
        self.behavior: Behavior = good
        self.queue: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.keys.append(self.headers["authorization"])
                known = self.path == "/v2/models/m"
                unknown = Reply({"error": f"Request for unknown model: {KEY}"}, 404)
                self.reply(Reply(fake.metadata) if known else unknown)

            def do_POST(self) -> None:
                assert self.path == "/v2/models/m/infer"
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.requests.append(request)
                self.reply(fake.queue.pop(0) if fake.queue else fake.behavior(request))

            def reply(self, reply: Reply) -> None:
                is_raw = isinstance(reply.body, bytes)
                body = reply.body if is_raw else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def fake() -> Iterator[FakeKServe]:
    """Run a fake server."""
    server = FakeKServe()
    yield server
    server.close()


def opened(fake: FakeKServe, **options: Any) -> KServeClassifier:
    """Return a classifier of the fake's model that waits for nothing."""
    return KServeClassifier(fake.url, model="m", **{"sleep": lambda _: None} | options)


def pictures(n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return n random tensors."""
    return np.random.default_rng(n).random((n, 1, 2, 2), dtype=np.float32)


def test_pictures_are_classified_over_http(fake: FakeKServe) -> None:
    """Tensors arrive exact to the bit, in batches, and the answers come back in order."""
    with opened(fake, max_batch=2, api_key=KEY) as classifier:
        capable: object = classifier
        assert isinstance(capable, Classifier)
        assert isinstance(capable, Remote)
        assert (classifier.name, classifier.dim) == ("m", 3)
        assert (classifier.classes, classifier.input_shape) == (("0", "1", "2"), (1, 2, 2))
        inputs = pictures(5)
        found = classifier.embed(inputs)
    np.testing.assert_allclose(found, softmax(inputs.reshape(5, 4)[:, :3]), rtol=1e-6)
    batches = [sent(request) for request in fake.requests[1:]]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert np.concatenate(batches).astype("f4").tobytes() == inputs.tobytes()
    assert fake.keys == [f"Bearer {KEY}"]


def test_an_image_is_answered_like_its_tensor(fake: FakeKServe) -> None:
    """A picture gets the same answer as pixels and as numbers from 0 to 1."""
    gray = np.array([[0, 80], [160, 255]], dtype=np.uint8)
    with opened(fake) as classifier:
        one = classifier.embed([np.repeat(gray[:, :, None], 3, axis=2)])
        np.testing.assert_array_equal(one, classifier.embed([(gray / np.float32(255))[None]]))


def test_texts_are_classified(fake: FakeKServe) -> None:
    """A model of BYTES [n, 1] gets strings in its own shape."""
    fake.metadata["inputs"] = [TEXTS]
    fake.behavior = lambda request: answer(
        np.array([[len(text) % 2, 1 - len(text) % 2] for text in request["inputs"][0]["data"]])
    )
    with opened(fake) as classifier:
        assert classifier.accepts == {"text"}
        assert classifier.input_shape is None
        assert classifier.embed(["é", "ab"]).tolist() == [[1, 0], [0, 1]]
        assert fake.requests[-1]["inputs"] == [
            {"name": "t", "shape": [2, 1], "datatype": "BYTES", "data": ["é", "ab"]}
        ]
        fake.queue.append(Reply({"error": "text is too long"}, 400))
        with pytest.raises(InputError, match="text is too long"):
            classifier.embed(["a"])


def test_nested_numbers_are_read(fake: FakeKServe) -> None:
    """Rows may come as a list of lists, as the protocol allows."""
    fake.behavior = lambda request: answer(
        rows := softmax(sent(request)[:, :3]), data=rows.tolist()
    )
    with opened(fake) as classifier:
        assert classifier.embed(pictures(2)).shape == (2, 3)


def test_logits_become_probabilities(fake: FakeKServe) -> None:
    """Of a model that answers logits the softmax is taken, and only if told so."""
    fake.behavior = lambda request: answer(sent(request)[:, :3] - 1)
    with pytest.raises(EncoderError, match="logits"):
        opened(fake)
    inputs = pictures(3)
    with opened(fake, outputs="logits") as classifier:
        found = classifier.embed(inputs)
    np.testing.assert_allclose(found, softmax(inputs.reshape(3, 4)[:, :3]), rtol=1e-6)


@pytest.mark.parametrize("given", [["a", "b", "c"], '["a", "b", "c"]'])
def test_classes_come_from_the_metadata(fake: FakeKServe, given: object) -> None:
    """Names in `parameters.classes` are used, as a list or as JSON in a string."""
    fake.metadata["parameters"] = {"classes": given}
    with opened(fake) as classifier:
        assert classifier.classes == ("a", "b", "c")


def test_a_spec_names_server_model_and_options(fake: FakeKServe, tmp_path: Path) -> None:
    """`kserve:` takes the model behind `#`, and names, logits and batch size behind `?`."""
    names = tmp_path / "labels.txt"
    names.write_text("zero\none\ntwo\n")
    fake.behavior = lambda request: answer(sent(request)[:, :3])
    spec = f"kserve:{fake.url}?classes={names}&outputs=logits&batch=2#m"
    classifier = load_classifier(spec)
    assert isinstance(classifier, KServeClassifier)
    with classifier:
        assert classifier.classes == ("zero", "one", "two")
        classifier.embed(pictures(3))
    assert [len(sent(request)) for request in fake.requests] == [1, 2, 1]


def test_a_fixed_batch_is_filled_up(fake: FakeKServe) -> None:
    """A model of batch size 2 gets two pictures in every request."""
    fake.metadata["inputs"] = [{**PICTURES, "shape": [2, 1, 2, 2]}]
    inputs = pictures(3)
    with opened(fake) as classifier:
        found = classifier.embed(inputs)
    np.testing.assert_allclose(found, softmax(inputs.reshape(3, 4)[:, :3]), rtol=1e-6)
    assert {len(sent(request)) for request in fake.requests} == {2}


def test_too_large_a_batch_goes_in_halves(fake: FakeKServe) -> None:
    """Triton's refusal of a batch over its `max_batch_size` is answered with smaller ones."""

    def small(request: dict[str, Any]) -> Reply:
        words = "inference request batch-size must be <= 2 for 'm'"
        return good(request) if len(sent(request)) <= 2 else Reply({"error": words}, 400)

    fake.behavior = small
    inputs = pictures(5)
    with opened(fake) as classifier:
        found = classifier.embed(inputs)
    np.testing.assert_allclose(found, softmax(inputs.reshape(5, 4)[:, :3]), rtol=1e-6)


def test_passing_trouble_is_tried_again(fake: FakeKServe) -> None:
    """503 and 429 are tried again after the wait that the server asks for."""
    waits: list[float] = []
    with opened(fake, sleep=waits.append) as classifier:
        fake.queue += [Reply({}, 503), Reply({}, 429, {"retry-after": "3"})]
        assert classifier.embed(pictures(1)).shape == (1, 3)
        assert waits == [0.5, 3.0]
        fake.queue += [Reply({}, 503)] * 3
        with pytest.raises(EncoderError, match="answered 503"):
            classifier.embed(pictures(1))


def test_a_slow_server_is_not_waited_for(fake: FakeKServe) -> None:
    """A request ends after its timeout, with an error that says so."""
    with opened(fake, timeout_s=0.2, retries=0) as classifier:

        def slow(request: dict[str, Any]) -> Reply:
            fake.released.wait(10)
            return good(request)

        fake.behavior = slow
        with pytest.raises(EncoderError, match="ReadTimeout"):
            classifier.embed(pictures(1))


HALF = np.full((1, 3), 0.5)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"not json"), "without tensors"),
        (Reply({"outputs": 3}), "without tensors"),
        (Reply({"outputs": []}), "without the output 'y'"),
        (answer(HALF, name="z"), "without the output 'y'"),
        (answer(HALF, shape=[3]), "shape"),
        (answer(HALF, shape=[2, 3]), "shape"),
        (answer(HALF, shape=[1, -3]), "shape"),
        (answer(HALF, data=[1, 0]), "other numbers"),
        (answer(HALF, data=["1", "0", "0"]), "other numbers"),
        (answer(HALF, data=None), "other numbers"),
        (answer(HALF, data=[1e308, 0, 0]), "NaN or infinity"),
        (Reply(b'{"outputs":[{"name":"y","shape":[1,3],"data":[NaN,0,1]}]}'), "without tensors"),
        (answer(HALF), "sum to 1"),
        (answer(np.array([[-0.5, 0.5, 1]])), "logits"),
        (answer(np.array([[0.5, 0.5]])), "width 3, got 2"),
        (Reply({"error": "model m is\nbroken"}, 400), "400: model m is broken"),
        (Reply(b"", 404), "404: no reason"),
        (Reply({"error": f"the key {KEY} at http://10.0.0.1/"}, 400), r"key \[removed\] at \[rem"),
        (Reply({"error": KEY}, 401), "TOLLKEEPER_UPSTREAM_API_KEY"),
    ],
)
def test_garbage_is_an_encoder_error(fake: FakeKServe, reply: Reply, message: str) -> None:
    """Whatever the server answers but probabilities fails the call, and quotes no secret."""
    with opened(fake, api_key=KEY) as classifier:
        fake.queue.append(reply)
        with pytest.raises(EncoderError, match=message) as caught:
            classifier.embed(pictures(1))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"inputs": [PICTURES, PICTURES], "outputs": [ROWS]}, "one input"),
        ({"inputs": [PICTURES], "outputs": [{**ROWS, "datatype": "INT64"}]}, "floats"),
        ({"inputs": [{**PICTURES, "datatype": "UINT8"}], "outputs": [ROWS]}, "FP32"),
        ({"inputs": [{**PICTURES, "shape": [-1, 1, -1, -1]}], "outputs": [ROWS]}, "fixed"),
        ({"inputs": [{**PICTURES, "shape": [-1, 4]}], "outputs": [ROWS]}, "FP32"),
        ({"inputs": [{**PICTURES, "shape": []}], "outputs": [ROWS]}, "FP32"),
        ({"inputs": [{**PICTURES, "shape": [-1, 10**5, 10**5, 10**3]}], "outputs": [ROWS]}, "most"),
        ({"inputs": [{**PICTURES, "shape": [-1, 1, 1, 10**30]}], "outputs": [ROWS]}, "most"),
        ({"inputs": [{**PICTURES, "shape": [10**8, 1, 2, 2]}], "outputs": [ROWS]}, "most"),
        ({"inputs": [PICTURES], "outputs": [ROWS, ROWS]}, "different names"),
        (
            {"inputs": [PICTURES], "outputs": [ROWS], "parameters": {"classes": ["a", "b"]}},
            "2 names",
        ),
        ({"inputs": [PICTURES], "outputs": [ROWS], "parameters": {"classes": 3}}, "list of names"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    fake: FakeKServe, metadata: dict[str, Any], message: str
) -> None:
    """A model that is no classifier of pictures or text is refused by what its server says."""
    fake.metadata = metadata
    with pytest.raises(ConfigurationError, match=message):
        opened(fake)


def test_metadata_must_be_metadata(fake: FakeKServe) -> None:
    """A server of another protocol is told from a wrong name of a model."""
    fake.metadata = {"name": "m"}
    with pytest.raises(EncoderError, match="KServe v2 metadata"):
        opened(fake)
    with pytest.raises(ConfigurationError, match=r"404.*\(#model\)") as caught:
        KServeClassifier(fake.url, model="other", api_key=KEY)
    assert KEY not in str(caught.value)


def test_an_unreachable_server_is_an_encoder_error() -> None:
    """Nobody there is no mistake of the settings: it may pass."""
    with pytest.raises(EncoderError, match="ConnectError"):
        KServeClassifier("http://127.0.0.1:9", model="m", sleep=lambda _: None)


def test_unfit_inputs_are_refused_before_they_are_sent(fake: FakeKServe) -> None:
    """A picture of another size and text never reach the server."""
    with opened(fake) as classifier:
        asked = len(fake.requests)
        for item in (np.zeros((1, 3, 2), np.float32), "text"):
            with pytest.raises(InputError):
                classifier.embed([item])
        assert classifier.embed([]).shape == (0, 3)
        assert len(fake.requests) == asked
