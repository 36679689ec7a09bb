"""Promises of a live classifier: tensors arrive exact to the bit, and it is a target like any."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.client import (
    Allowance,
    Caps,
    ClassifierTarget,
    Pace,
    open_classifier_target,
    open_target,
)
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.errors import BudgetExhausted, ConfigurationError, EncoderError, InputError
from tollkeeper.testing import FakeClock

Open = Callable[..., ClassifierTarget]
NAMES = ["zero", "one"]


def pictures(n: int) -> NDArray[np.float32]:
    """Return n tensors of shape (1, 2, 3)."""
    return np.random.default_rng(n).random((n, 1, 2, 3), dtype=np.float32)


def decoded(item: dict[str, Any]) -> NDArray[np.float32]:
    """Return the tensor of an item as it arrived."""
    numbers = np.frombuffer(base64.b64decode(item["base64"]), "<f4")
    return numbers.astype(np.float32).reshape(item["shape"])


def probabilities(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the fake answers for a tensor."""
    white = tensor.mean(dtype=np.float64)
    return np.array([1 - white, white], dtype=np.float32)


def classify(server: Any, request: dict[str, Any], **changed: Any) -> Any:
    """Answer as `/v1/classify` does."""
    rows = [probabilities(decoded(item)) for item in request["input"]]
    data = [
        {"index": i, "label": "x", "probabilities": base64.b64encode(row.tobytes()).decode()}
        for i, row in enumerate(rows)
    ]
    return server.reply(body={"classes": NAMES, "data": data, **changed})


@pytest.fixture
def connect(server: Any, http: httpx2.Client, clock: FakeClock, tmp_path: Path) -> Iterator[Open]:
    """Open live classifiers that ask one call after the other; all close with the test."""
    server.behavior = lambda request: classify(server, request)
    with ExitStack() as stack:

        def make(**options: Any) -> ClassifierTarget:
            given = {
                "transcript": tmp_path / "transcript.sqlite",
                "probe": pictures(1)[0],
                "client": http,
                "clock": clock,
                "pace": Pace(concurrency=1, clock=clock, sleep=clock.advance),
            }
            target = open_classifier_target(server.url, **{**given, **options})
            stack.callback(target.close)
            return target

        yield make


def test_a_live_classifier_is_a_classifier(connect: Open) -> None:
    """Classes come from the first answer, and the shape from the probe."""
    target = connect()
    capable: object = target
    assert isinstance(capable, Classifier)
    assert (target.classes, target.dim) == (("zero", "one"), 2)
    assert target.input_shape == (1, 2, 3)
    assert target.accepts == {"text", "image", "tensor"}


def test_tensors_arrive_exact_to_the_bit(server: Any, connect: Open) -> None:
    """What the target sees is what the attack holds, the smallest number and all."""
    inputs = pictures(5)
    inputs[0, 0, 0, 0] = np.float32(1e-45)
    found = connect().embed(inputs)
    np.testing.assert_array_equal(found, np.stack([probabilities(one) for one in inputs]))
    arrived = np.stack([decoded(item) for item in server.asked()[1:]])
    assert arrived.tobytes() == inputs.tobytes()
    assert server.requests[0]["encoding_format"] == "base64"


def test_an_answer_is_paid_for_once(server: Any, connect: Open) -> None:
    """The probe's answer is the run's first one, and a new run asks nothing again."""
    inputs = np.concatenate([pictures(1), pictures(4)])
    first = connect()
    answers = first.embed(inputs)
    assert first.spend().distinct == 5
    first.close()
    again = connect()
    asked = len(server.requests)
    np.testing.assert_array_equal(again.embed(inputs), answers)
    assert (again.classes, len(server.requests)) == (("zero", "one"), asked)


def test_caps_hold(connect: Open) -> None:
    """A cap on inputs counts the probe and stops before it is passed."""
    target = connect(allowance=Allowance(Caps(distinct=3)))
    target.embed(pictures(2))
    with pytest.raises(BudgetExhausted):
        target.embed(pictures(3))


def test_a_target_may_name_no_classes(server: Any, connect: Open) -> None:
    """Without names the classes are numbers."""
    server.behavior = lambda request: classify(server, request, classes=None)
    assert connect().classes == ("0", "1")


def test_other_classes_are_another_target(server: Any, connect: Open) -> None:
    """A target that renames its classes in the middle of a run is not asked on."""
    target = connect()
    server.behavior = lambda request: classify(server, request, classes=["cat", "dog"])
    with pytest.raises(ConfigurationError, match="classes"):
        target.embed(pictures(2))


def test_images_and_texts_are_sent_as_to_encoders(server: Any, connect: Open) -> None:
    """An image travels as PNG, and its shape is told channels first."""
    server.behavior = lambda request: server.reply(
        body={"classes": NAMES, "data": [{"probabilities": [0.5, 0.5]} for _ in request["input"]]}
    )
    target = connect(probe=np.zeros((4, 5, 3), np.uint8))
    assert target.input_shape == (3, 4, 5)
    assert server.asked()[0].startswith("data:image/png;base64,")
    assert target.embed(["a"]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    "item", [np.full((1, 2, 3), np.nan, np.float32), np.full((1, 2, 3), 2, np.float32), [1, 2]]
)
def test_what_no_classifier_takes_is_not_sent(server: Any, connect: Open, item: Any) -> None:
    """NaN, values out of range and tokens are refused here."""
    target = connect()
    with pytest.raises(InputError):
        target.embed([item])
    assert len(server.requests) == 1


def test_a_batch_too_large_goes_in_halves(server: Any, connect: Open) -> None:
    """The gateway's limit on numbers in a request is met with smaller ones."""

    def small(request: dict[str, Any]) -> Any:
        if len(request["input"]) > 2:
            words = "expected at most 12 numbers in one request, got 30; split the request"
            return server.reply(400, words)
        return classify(server, request)

    target = connect()
    server.behavior = small
    inputs = pictures(5)
    np.testing.assert_array_equal(
        target.embed(inputs), np.stack([probabilities(one) for one in inputs])
    )


def test_vectors_cut_short_are_no_answer(server: Any, connect: Open) -> None:
    """Answers without vectors are garbage, not zeros."""
    target = connect()
    server.behavior = lambda request: server.reply(
        body={"data": [{"index": i, "top": []} for i in range(len(request["input"]))]}
    )
    with pytest.raises(EncoderError, match="of no use"):
        target.embed(pictures(2))


def test_a_transcript_of_embeddings_is_another_file(
    server: Any, connect: Open, http: httpx2.Client, tmp_path: Path
) -> None:
    """Answers of the two routes never mix."""
    path = tmp_path / "transcript.sqlite"
    connect(transcript=path).close()
    with pytest.raises(ConfigurationError, match=r"/v1/classify"):
        open_target(server.url, transcript=path, client=http, dim=2)


def test_a_refused_probe_is_followed_by_the_next(server: Any, connect: Open) -> None:
    """One picture that a detector refuses says nothing about the account."""
    probes = pictures(3)

    def picky(request: dict[str, Any]) -> Any:
        if np.array_equal(decoded(request["input"][0]), probes[0]):
            refused = {"message": "input[0] is not answered", "code": "input_refused"}
            return server.reply(403, body={"error": refused})
        return classify(server, request)

    server.behavior = picky
    target = connect(probe=probes[0], spares=probes[1:])
    assert (target.dim, len(server.requests)) == (2, 2)


def test_a_barred_account_is_not_probed_on(server: Any, connect: Open) -> None:
    """A refusal of the account is told at once."""
    server.behavior = lambda _: server.reply(429, "quota", x_should_retry="false")
    with pytest.raises(BudgetExhausted, match="takes no more"):
        connect(spares=pictures(3))
    assert len(server.requests) == 1
