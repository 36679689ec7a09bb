"""Promises of STL-10 in its official format."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import numpy as np
import pytest

from tollkeeper.data import load_images
from tollkeeper.errors import DataError

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)


def stored() -> bytes:
    """Write the pictures as the set does: channel by channel, each column by column."""
    return bytes(
        PICTURES[i, y, x, channel]
        for i in range(2)
        for channel in range(3)
        for x in range(96)
        for y in range(96)
    )


CONTENT = stored()


def archive(**members: bytes) -> dict[str, bytes]:
    """Return the official archive with some members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"stl10_binary/{name}.bin")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {"stl10_binary.tar.gz": buffer.getvalue()}


@pytest.mark.parametrize("split", ["train", "test"])
def test_labeled_splits(put: Any, split: str) -> None:
    """Images are upright, labels are counted from 1 in the file."""
    files = archive(**{f"{split}_X": CONTENT, f"{split}_y": bytes([1, 10])})
    data = load_images("stl10", split, environ=put("stl10", files))
    np.testing.assert_array_equal(data.inputs, PICTURES)
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["airplane", "truck"]


def test_the_unlabeled_split(put: Any) -> None:
    """It has neither labels nor classes."""
    data = load_images("stl10", "unlabeled", environ=put("stl10", archive(unlabeled_X=CONTENT)))
    np.testing.assert_array_equal(data.inputs, PICTURES)
    assert (data.labels, data.classes) == (None, ())


@pytest.mark.parametrize(
    "members",
    [
        {"test_X": CONTENT},
        {"test_X": CONTENT[:-1], "test_y": bytes([1, 2])},
        {"test_X": CONTENT, "test_y": bytes([1])},
        {"test_X": CONTENT, "test_y": bytes([1, 11])},
        {"test_X": CONTENT, "test_y": bytes([0, 1])},
    ],
)
def test_damaged_members_are_data_errors(put: Any, members: dict[str, bytes]) -> None:
    """A missing member, half an image, other counts, a label of no class."""
    with pytest.raises(DataError, match="stl10"):
        load_images("stl10", "test", environ=put("stl10", archive(**members)))
