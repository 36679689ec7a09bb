"""The published OpenAPI document against the live data plane, by schemathesis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok

from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.testing.encoders import hash_encoder


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
    document = live.admin("GET", "/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    statuses: set[int] = set()
    seen: set[str] = set()
    modes = schemathesis.GenerationMode
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            check = partial(call, live, statuses, valid=mode is modes.POSITIVE)
            run = generated(operation.as_strategy(generation_mode=mode), check)
            try:
                run()
            except Unsatisfiable:
                # A route without input has no invalid requests.
                assert mode is modes.NEGATIVE
        seen.add(operation.label)
    assert "POST /v1/embeddings" in seen
    assert {200, 400} <= statuses
    assert all(status < 500 for status in statuses)
