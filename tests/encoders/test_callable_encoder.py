"""Promises of the callable adapter."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

import tollkeeper.encoders.callable_encoder as module
from tollkeeper.encoders.base import Encoder, RowsIndependent
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.errors import ConfigurationError, EncoderError, InputError


def lengths(texts: object) -> list[list[float]]:
    """Embed a text as its length and the length's square."""
    assert isinstance(texts, list)
    return [[len(text), len(text) ** 2] for text in texts]


def test_wraps_a_function_returning_lists() -> None:
    """Nested lists become (n, d) float32 in input order."""
    encoder = CallableEncoder(lengths, dim=2, name="lengths")
    embeddings = encoder.embed(["abc", "", "de"])
    assert isinstance(encoder, Encoder)
    assert encoder.name == "lengths"
    assert embeddings.dtype == np.float32
    assert embeddings.tolist() == [[3, 9], [0, 0], [2, 4]]


@pytest.mark.parametrize("declared", [False, True])
def test_independence_is_what_the_author_declares(declared: bool) -> None:
    """Only whoever knows the function can promise that company changes no byte."""
    encoder = CallableEncoder(lengths, dim=2, rows_independent=declared)
    assert isinstance(encoder, RowsIndependent)
    assert encoder.rows_independent == declared
    assert not CallableEncoder(lengths, dim=2).rows_independent


def test_no_inputs_do_not_reach_the_function() -> None:
    """An empty batch gives (0, d) without a call."""
    encoder = CallableEncoder(lambda _: pytest.fail("called"), dim=5)
    assert encoder.embed([]).shape == (0, 5)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([[1.0, 2.0, 3.0]], "width 2, got 3"),
        ([[1.0, 2.0], [3.0, 4.0]], r"\(1, d\)"),
        ([1.0, 2.0], r"\(1, d\)"),
        ([[np.nan, 0.0]], "NaN"),
        ([[np.inf, 0.0]], "infinity"),
        ([["one", "two"]], "not numbers"),
        (None, r"\(1, d\)"),
    ],
)
def test_garbage_is_an_encoder_error(returned: object, words: str) -> None:
    """Whatever is not (n, d) finite numbers is refused with what was expected."""
    with pytest.raises(EncoderError, match=words):
        CallableEncoder(lambda _: returned, dim=2).embed(["a"])


def test_a_failing_function_does_not_leak_its_words() -> None:
    """A foreign exception may quote inputs, so only its type is told and the cause is kept."""

    def fail(inputs: object) -> object:
        raise RuntimeError(f"cannot embed {inputs}")

    with pytest.raises(EncoderError, match="RuntimeError") as caught:
        CallableEncoder(fail, dim=2).embed(["my secret"])
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_the_function_may_refuse_an_input() -> None:
    """An InputError of the function reaches the caller as it is."""

    def refuse(_inputs: object) -> object:
        raise InputError("expected German", param="input")

    with pytest.raises(InputError, match="expected German"):
        CallableEncoder(refuse, dim=2).embed(["a"])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([[1, 2]], "accepts text input, got tokens.*check_embedding_ctx_length"),
        ([np.zeros((2, 2, 3), np.uint8)], "accepts text input, got image"),
        (["a", [1]], "one kind"),
        ([3], "input 0: .*got int"),
        (["a", None], "input 1: .*got NoneType"),
        ([[]], "non-empty list of token ids"),
        ([[1, -1]], "token ids"),
        ([[1, True]], "token ids"),
        ([[1.5]], "token ids"),
        ([[2**31]], "token ids"),
        ([np.zeros((2, 2), np.uint8)], r"\(h, w, 3\)"),
        (["\ud800"], "surrogate"),
    ],
)
def test_unaccepted_input_never_reaches_the_function(inputs: list[object], words: str) -> None:
    """Wrong or mixed kinds are an InputError that names the field and what was expected."""
    encoder = CallableEncoder(lambda _: pytest.fail("called"), dim=2)
    with pytest.raises(InputError, match=words) as caught:
        encoder.embed(inputs)
    assert caught.value.param == "input"


def test_other_modalities_can_be_declared() -> None:
    """Token lists, as lists or arrays, and images pass when the callable accepts them."""
    encoder = CallableEncoder(
        lambda batch: [[np.sum(item)] for item in batch],
        dim=1,
        accepts=frozenset({"tokens", "image"}),
    )
    assert encoder.embed([[1, 2], (4,), np.array([5, 6])]).ravel().tolist() == [3, 4, 11]
    assert encoder.embed(np.ones((2, 2, 2, 3), np.uint8)).ravel().tolist() == [12, 12]


def test_a_width_below_one_is_a_configuration_error() -> None:
    """Nothing can be embedded into no dimensions."""
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        CallableEncoder(lengths, dim=0)


def test_the_docstring_example_runs() -> None:
    """The example in the class's docstring gives what it shows."""
    assert doctest.testmod(module).failed == 0
