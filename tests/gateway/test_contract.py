"""The published OpenAPI document against the live data plane, by schemathesis."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from hypothesis.extra.numpy import arrays
from schemathesis.core.result import Ok

from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.gateway.openapi import NUMBERS_FORMAT
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.testing.predictions import SHAPE, ToyClassifier

_SIZE = int(np.prod(SHAPE))
schemathesis.openapi.format(
    f"{NUMBERS_FORMAT}-{_SIZE}",
    arrays(np.float32, _SIZE, elements=st.floats(0, 1, width=32)).map(
        lambda numbers: base64.b64encode(numbers.astype("<f4").tobytes()).decode()
    ),
)


def holds_float(body: Any) -> bool:
    """Tell whether a body holds 1.0, an integer to JSON Schema but not to OpenAI's API."""
    if isinstance(body, dict):
        return any(holds_float(value) for value in body.values())
    if isinstance(body, list):
        return any(holds_float(value) for value in body)
    return isinstance(body, float)


def call(live: Any, statuses: set[int], case: Any, *, valid: bool) -> None:
    """Send one generated request and hold the reply against the document."""
    if valid and holds_float(case.body):
        return
    headers = {"Authorization": f"Bearer {live.key}"}
    response = case.call(base_url=live.root, headers=headers)
    statuses.add(response.status_code)
    case.validate_response(response, headers=headers)


def generated(cases: Any, check: Callable[[Any], None]) -> Callable[[], None]:
    """Return a property test that runs `check` on 50 generated cases."""

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def run(case: Any) -> None:
        check(case)

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_document_and_server_agree(start_gateway: Any) -> None:
    """Generated requests, valid and invalid, get documented statuses and bodies, never a 5xx."""
    # Whether a data URI holds an image is beyond a schema; images have tests of their own.
    encoder = CallableEncoder(
        hash_encoder(12).embed, dim=12, name="toy", accepts=frozenset({"text", "tokens"})
    )
    live = start_gateway(encoder, max_inputs=64)
    agree(live, "POST /v1/embeddings")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_document_and_server_of_predictions_agree(start_gateway: Any) -> None:
    """The same holds for a server that predicts, and serves no embeddings."""
    toy = ToyClassifier()
    toy.accepts = frozenset({"tensor"})  # images have tests of their own
    live = start_gateway(classifier=toy, evidence=Evidence("toy"), max_inputs=64)
    agree(live, "POST /v1/classify")


def agree(live: Any, operation: str) -> None:
    """Send generated requests to every route of the document."""
    document = live.admin("GET", "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    statuses: set[int] = set()
    seen: set[str] = set()
    modes = schemathesis.GenerationMode
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        found = result.ok()
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            check = partial(call, live, statuses, valid=mode is modes.POSITIVE)
            run = generated(found.as_strategy(generation_mode=mode), check)
            try:
                run()
            except Unsatisfiable:
                # A route without input has no invalid requests.
                assert mode is modes.NEGATIVE
        seen.add(found.label)
    assert operation in seen
    assert {200, 400} <= statuses
    assert all(status < 500 for status in statuses)
