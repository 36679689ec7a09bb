"""Answers of `POST /v1/classify`, in the manner of OpenAI's embeddings."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.gateway.body import EncodingFormat
from tollkeeper.types import Probabilities


def encode_classify(
    probabilities: Probabilities,
    classes: Sequence[str],
    *,
    model: str,
    tokens: int,
    top_k: int | None = None,
    encoding_format: EncodingFormat = "float",
) -> bytes:
    """Write the 200 body.

    Each item names its likeliest class, the first of equals. Without `top_k` it holds the whole
    vector in the order of `classes`; with it, the `top_k` likeliest classes in falling order and
    no vector. Numbers parse back to the same float32.

    Args:
        probabilities: (n, k) float32, as they may leave.
        classes: names of the k columns.
        model: the name to report.
        tokens: usage to report.
        top_k: how many classes to list; more than there are lists all.
        encoding_format: how to write each vector: numbers, or base64 of little-endian float32.
    """
    rows = np.ascontiguousarray(probabilities, dtype="<f4")
    names = [msgspec.json.encode(name) for name in classes]
    if top_k is not None:
        parts = [b'"top":[%b]' % _ranked(row, names, top_k) for row in rows]
    elif encoding_format == "base64":
        parts = [b'"probabilities":"%b"' % binascii.b2a_base64(row, newline=False) for row in rows]
    else:
        parts = [b'"probabilities":%b' % msgspec.json.encode(row) for row in rows.tolist()]
    best = rows.argmax(axis=1) if len(rows) else ()
    data = b",".join(
        b'{"object":"classification","index":%d,"label":%b,"score":%b,%b}'
        % (index, names[column], _number(rows[index, column]), part)
        for index, (column, part) in enumerate(zip(best, parts, strict=True))
    )
    return (
        b'{"object":"list","model":%b,"classes":[%b],"data":[%b],'
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        % (msgspec.json.encode(model), b",".join(names), data, tokens, tokens)
    )


def _ranked(row: NDArray[np.float32], names: Sequence[bytes], top_k: int) -> bytes:
    """Return the likeliest classes of one row; equals stay in the order of the classes."""
    order = np.argsort(-row, kind="stable")[:top_k]
    return b",".join(
        b'{"label":%b,"score":%b}' % (names[column], _number(row[column])) for column in order
    )


def _number(value: np.float32) -> bytes:
    return msgspec.json.encode(float(value))
