"""Predictions over real HTTP: answered and charged, repeats free, every refusal its status."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.testing.predictions import (
    BrightnessCounter,
    BrightnessDetector,
    ToyClassifier,
    pictures,
)
from tollkeeper.types import Images

TOY = ToyClassifier()
HONEST = np.linspace(0.2, 0.4, 400)


def evidence() -> Evidence:
    """The toy detectors, and what honest pictures score."""
    return Evidence("p-toy", BrightnessDetector(), HONEST, BrightnessCounter())


def body_of(inputs: Images) -> dict[str, Any]:
    """The body of a request for predictions of tensors."""
    items = [{"shape": list(one.shape), "data": one.ravel().tolist()} for one in inputs]
    return {"model": TOY.name, "input": items}


@pytest.fixture
def live(start_gateway: Any) -> Any:
    """A gateway that serves predictions only."""
    return start_gateway(classifier=TOY, evidence=evidence())


def test_an_honest_client_is_answered_and_charged(live: Any) -> None:
    """An answer holds the classifier's probabilities; the record says what was charged."""
    asked = pictures(3)
    reply = live.classify(body_of(asked))
    assert reply.status_code == 200, reply.text
    rows = [row["probabilities"] for row in reply.json()["data"]]
    np.testing.assert_array_equal(np.array(rows, np.float32), TOY.embed(asked))
    (record,) = live.gateway.store.records()
    assert (record.inputs, record.charge, record.model) == (3, 3.0, TOY.name)
