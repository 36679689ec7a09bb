"""What a plan may say of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.plans import BUILT_IN, Ladder, Plan, Plans, Scale
from tollkeeper.gateway.predict_outputs import response_of
from tollkeeper.gateway.predict_plan import Output, Predictions

SCALE = Scale(0.05, 0.2, refuses=True)


@pytest.mark.parametrize(
    "given",
    [
        {"refuse_rank": 1.0},
        {"challenge_rank": 0.99, "refuse_rank": 0.9},
        {"floor_bits": 9, "ceiling_bits": 8},
        {"ceiling_bits": 40},
        {"alarm": 0},
        {"outputs": [{}]},
        {"outputs": [{"top_k": 1, "decimals": 2}]},
        {"outputs": [{"noise": 1e308}]},
        {"outputs": [{"mad": {"distance": 3}}]},
        {"speed": 1},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    """Ranks out of order, bits out of range and unknown words end the start."""
    with pytest.raises(ValidationError):
        Predictions(**given)


def test_a_built_in_plan_keeps_what_is_not_written() -> None:
    """Writing one field of `toll`'s predictions leaves the others as they are."""
    written = Plan.model_validate({"predictions": {"alarm": 0.2}})
    (found,) = [one for one in Plans({"toll": written}, "toll", SCALE).all if one.meter == 0.5]
    assert (found.predictions.challenge_rank, found.predictions.alarm) == (0.95, 0.2)
    assert found.throttle == BUILT_IN["toll"].throttle


def test_prices_of_embeddings_do_not_change_with_predictions() -> None:
    """A challenge for embeddings outlives a change of what predictions meet."""
    one, other = Plan(), Plan(predictions=Predictions(refuse_rank=0.9))
    assert Ladder.of(one, SCALE).version == Ladder.of(other, SCALE).version


@pytest.mark.parametrize(
    "given",
    [{"top_k": 2}, {"decimals": 1}, {"noise": 0.1}, {"reverse_sigmoid": {"beta": 0.5}}],
)
def test_every_output_that_needs_no_network_answers_probabilities(given: dict[str, Any]) -> None:
    """Each named output is a response, and gives rows that sum to one."""
    response = response_of(Output.model_validate(given), {})
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    found = response(np.zeros((2, 1, 2, 2), np.float32), rows, key=bytes(32))
    assert found.shape == rows.shape
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "name"), [("mad", "surrogate"), ("adaptive_misinformation", "mi")]
)
def test_an_output_without_its_network_is_refused(given: str, name: str) -> None:
    """The message names the network that the detector file lacks."""
    with pytest.raises(ConfigurationError, match=name):
        response_of(Output.model_validate({given: {}}), {})
