"""A gateway in front of another OpenAI-compatible server, through the stock client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tollkeeper.guard.calibration import Calibration
from tollkeeper.testing.encoders import hash_encoder

MODEL = "hash-384"


@pytest.fixture
def guarded(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The upstream is a Tollkeeper server of its own that takes texts and token lists."""
    upstream = serve(
        "--encoder",
        "python:tollkeeper.testing.encoders:hash_encoder_384",
        "--profile",
        "none",
        data_dir=tmp_path / "upstream",
    )
    monkeypatch.setenv("TOLLKEEPER_UPSTREAM_API_KEY", upstream.key("gateway"))
    encoder = hash_encoder(384)
    sample = encoder.embed([f"sample {i}" for i in range(256)])
    path = tmp_path / "calibration.tk"
    path.write_bytes(Calibration.fit(sample, rng=np.random.default_rng(0)).to_bytes())
    served = serve("--encoder", f"{upstream.url}#{MODEL}", "--calibration", str(path))
    return served, upstream


def vectors(response: Any) -> Any:
    """Return (n, d) of a client's response."""
    return np.array([row.embedding for row in response.data], np.float32)


def test_token_lists_and_texts_reach_the_upstream_as_they_came(guarded: Any) -> None:
    """Token lists work where the upstream takes them: charged, guarded, in order."""
    served, _ = guarded
    clean = hash_encoder(384)
    for inputs in ([[1, 2, 3], [4, 5], [1, 2, 3]], ["a", "b", "a"], [7, 8, 9]):
        with openai.OpenAI(base_url=served.url, api_key=served.key("acme")) as client:
            got = vectors(client.embeddings.create(model=MODEL, input=inputs))
        items = inputs if not isinstance(inputs[0], int) else [inputs]
        expected = clean.embed(items)
        np.testing.assert_allclose(got @ got.T, expected @ expected.T, rtol=1e-4, atol=0.02)
    with openai.OpenAI(base_url=served.url, api_key=served.key("acme")) as client:
        assert len(client.embeddings.create(model=MODEL, input=["x"] * 100).data) == 100


def test_a_dead_upstream_is_a_503_and_costs_nothing(guarded: Any) -> None:
    """When the upstream dies the client gets a retryable 503, and nothing is charged."""
    served, upstream = guarded
    upstream.stop(9)
    key = served.key("acme")
    with (
        openai.OpenAI(base_url=served.url, api_key=key, max_retries=0, timeout=60) as client,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        client.embeddings.create(model=MODEL, input="a")
    assert failed.value.status_code == 503
    assert failed.value.code == "guard_unavailable"
    assert upstream.url.split("/")[2] not in str(failed.value)
