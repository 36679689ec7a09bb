"""Promises of canonical bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.audit.evidence.canonical import (
    file_digest,
    folder_digest,
    from_bytes,
    item_bytes,
    to_bytes,
    utc,
)
from tollkeeper.errors import AuditRefused, EvidenceError


def test_only_one_spelling_is_accepted() -> None:
    """Blanks, another order, another number form, a doubled key or an escape are changes."""
    value = {"b": [1, 2.5, "é", None], "a": True}
    data = to_bytes(value)
    assert data == b'{"a":true,"b":[1,2.5,"\\u00e9",null]}'
    assert from_bytes(data, what="it") == value
    for changed in (
        b'{"a": true,"b":[1,2.5,"\\u00e9",null]}',
        b'{"b":[1,2.5,"\\u00e9",null],"a":true}',
        b'{"a":true,"b":[1,2.50,"\\u00e9",null]}',
        b'{"a":false,"a":true,"b":[1,2.5,"\\u00e9",null]}',
        '{"a":true,"b":[1,2.5,"é",null]}'.encode(),
        b'{"a":true,"b":[1,2.5,"\\u00E9",null]}',
        data + b" ",
        b"",
        b"\xff",
        b"NaN",
        b"[" * 100_000,
    ):
        with pytest.raises(EvidenceError, match=r"it (is not JSON|was changed)"):
            from_bytes(changed, what="it")


def test_items_of_different_kind_type_or_shape_differ() -> None:
    """Nothing passes for something else with the same content."""
    items: list[Any] = [
        "12",
        b"12",
        [1, 2],
        [12],
        np.array([1, 2], dtype=np.uint8),
        np.array([[1, 2]], dtype=np.uint8),
        np.array([[1], [2]], dtype=np.uint8),
        np.array([1, 2], dtype=np.int32),
        np.array([1, 2], dtype=np.float32),
    ]
    assert len({item_bytes(item) for item in items}) == len(items)


def test_how_an_array_lies_in_memory_does_not_count() -> None:
    """Order of axes and of bytes are the machine's affair."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for same in (np.asfortranarray(array), array.astype(">f4"), np.tile(array, 2)[:, :4]):
        assert item_bytes(same) == item_bytes(array)


@pytest.mark.parametrize(
    "item",
    [
        None,
        {"a": 1},
        np.array([np.nan]),
        np.array([np.inf], dtype=np.float32),
        np.zeros((0, 3)),
        [[1, 2], [3]],
        ["a", "b"],
        "\ud800",
    ],
)
def test_what_is_no_item_is_refused(item: Any) -> None:
    """NaN, emptiness and unknown types are clear errors."""
    with pytest.raises(AuditRefused, match="item"):
        item_bytes(item)


def test_digests_of_files_and_folders(tmp_path: Path) -> None:
    """A folder's digest follows names and contents, not its own place."""
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a.py").write_text("x = 1\n")
        (tmp_path / name / "note.txt").write_text(name)
    first = folder_digest(tmp_path / "one")
    assert first == folder_digest(tmp_path / "two")

    (tmp_path / "two" / "sub" / "a.py").write_text("x = 2\n")
    (tmp_path / "one" / "sub" / "a.py").rename(tmp_path / "one" / "sub" / "b.py")
    assert len({first, folder_digest(tmp_path / "one"), folder_digest(tmp_path / "two")}) == 3
    assert file_digest(tmp_path / "two" / "sub" / "a.py") != file_digest(tmp_path / "one/note.txt")
    with pytest.raises(AuditRefused, match="there is no"):
        folder_digest(tmp_path, pattern="*.rs")
    with pytest.raises(AuditRefused, match="cannot read"):
        file_digest(tmp_path / "absent")


def test_times_are_utc() -> None:
    """Seconds since the epoch become one spelling."""
    assert utc(0.5) == "1970-01-01T00:00:00.500000+00:00"
