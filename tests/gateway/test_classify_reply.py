"""Writing predictions: every number parses back, and the best classes come first."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tollkeeper.gateway.classify_reply import encode_classify

ROWS = np.array([[0.25, 0.5, 0.25], [0.5, 0, 0.5]], dtype=np.float32)
CLASSES = ("a", 'say "b"', "ç")


def written(rows: NDArray[np.float32] = ROWS, **options: Any) -> Any:
    """Return the body as a client reads it."""
    return json.loads(encode_classify(rows, CLASSES, model="m", tokens=2, **options))


def test_the_whole_body() -> None:
    """The body has the documented keys in the documented order."""
    assert list(written().items()) == [
        ("object", "list"),
        ("model", "m"),
        ("classes", list(CLASSES)),
        (
            "data",
            [
                {
                    "object": "classification",
                    "index": 0,
                    "label": 'say "b"',
                    "score": 0.5,
                    "probabilities": [0.25, 0.5, 0.25],
                },
                {
                    "object": "classification",
                    "index": 1,
                    "label": "a",
                    "score": 0.5,
                    "probabilities": [0.5, 0, 0.5],
                },
            ],
        ),
        ("usage", {"prompt_tokens": 2, "total_tokens": 2}),
    ]


def test_the_best_classes_come_first() -> None:
    """`top_k` lists so many classes in falling order, equals as they come, and no vector."""
    first, second = written(top_k=2)["data"]
    assert first["top"] == [{"label": 'say "b"', "score": 0.5}, {"label": "a", "score": 0.25}]
    assert [one["label"] for one in second["top"]] == ["a", "ç"]
    assert "probabilities" not in first
    assert len(written(top_k=7)["data"][0]["top"]) == 3


def test_no_input_has_no_answer() -> None:
    """An empty batch is an empty list."""
    assert written(np.empty((0, 3), np.float32))["data"] == []


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)))
def test_numbers_parse_back_to_the_same_float32(rows: NDArray[np.float32]) -> None:
    """Either format brings every float32 over unchanged."""
    floats = [item["probabilities"] for item in written(rows)["data"]]
    np.testing.assert_array_equal(np.array(floats, np.float32), rows)
    packed = [item["probabilities"] for item in written(rows, encoding_format="base64")["data"]]
    found = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in packed])
    np.testing.assert_array_equal(found, rows)
    scores = [item["score"] for item in written(rows)["data"]]
    np.testing.assert_array_equal(np.array(scores, np.float32), rows.max(axis=1))
