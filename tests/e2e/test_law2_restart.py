"""Same question, same answer: from any process, after any restart (law 2)."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image


def data_uri(seed: int) -> str:
    """A random 40 x 40 PNG as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


INPUTS: dict[str, list[str]] = {
    "text": [f"question {i} about a lost card" for i in range(40)],
    "image": [data_uri(i) for i in range(12)],
}


def ask(served: Any, key: str, modality: str, inputs: list[str]) -> list[str]:
    """Return the base64 embeddings of one request."""
    body = {"model": f"tollkeeper-{modality}", "input": inputs, "encoding_format": "base64"}
    reply = httpx2.post(
        f"{served.url}/embeddings",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    return [row["embedding"] for row in reply.json()["data"]]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_same_bytes_after_a_restart(serve: Any, modality: str) -> None:
    """After a restart, and in batches of another size, answers are the same bytes."""
    inputs = INPUTS[modality]
    arguments = ("--encoder", f"builtin:{modality}", "--profile", "recommended")
    served = serve(*arguments)
    key = served.key("acme")
    before = ask(served, key, modality, inputs)
    assert served.stop() == 0

    again = serve(*arguments, data_dir=served.data_dir)
    singles = [ask(again, key, modality, [item])[0] for item in inputs]
    other_tenant = ask(again, again.key("rival"), modality, inputs)

    assert singles == before
    assert all(mine != theirs for mine, theirs in zip(before, other_tenant, strict=True))


def test_two_replicas_agree(serve: Any) -> None:
    """Two servers on one data directory answer alike and charge one pool, losing nothing."""
    first = serve()
    second = serve(data_dir=first.data_dir)
    key = first.key("acme")
    inputs = INPUTS["text"]
    for start in range(0, 40, 4):
        part = inputs[start : start + 4]
        assert ask(first, key, "text", part) == ask(second, key, "text", part)
