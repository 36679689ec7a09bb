"""Promises of EMNIST: the same splits from single files and from NIST's archive."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.data import load_images
from tollkeeper.errors import DataError

GRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
KINDS = {"letters": ([1, 26], ["A", "Z"]), "digits": ([0, 9], ["0", "9"])}


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array as a gzipped idx file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.tobytes())


def files(kind: str, split: str) -> dict[str, bytes]:
    """Return the two files of a split of two pictures."""
    return {
        f"emnist-{kind}-{split}-images-idx3-ubyte.gz": idx(GRAY),
        f"emnist-{kind}-{split}-labels-idx1-ubyte.gz": idx(np.array(KINDS[kind][0], np.uint8)),
    }


def archive(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return NIST's archive with some members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, member in members.items():
            content.writestr(f"gzip/{name}", member)
    return {"gzip.zip": buffer.getvalue()}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_archived", [False, True])
def test_upright_and_counted_from_zero(
    put: Any, kind: str, split: str, *, is_archived: bool
) -> None:
    """Stored transposed, letters counted from 1; both come as any other set."""
    found = files(kind, split)
    environ = put("emnist", archive(found)) if is_archived else put(f"emnist_{kind}", found)
    data = load_images(f"emnist_{kind}", split, environ=environ)
    for channel in range(3):
        np.testing.assert_array_equal(
            np.asarray(data.inputs)[..., channel], GRAY.transpose(0, 2, 1)
        )
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == KINDS[kind][1]
    assert data.subset == ""


def test_the_subset_of_letters_says_so(put: Any) -> None:
    """A folder with the shorter training files gives them, and tells."""
    found = {
        name.replace("train", "train26k"): content
        for name, content in files("letters", "train").items()
    }
    data = load_images("emnist_letters", "train", environ=put("emnist_letters", found))
    assert data.subset == "first 1,000 of each letter"


@pytest.mark.parametrize("content", [b"PK", archive({})["gzip.zip"]])
def test_damaged_archives_are_data_errors(put: Any, content: bytes) -> None:
    """No zip, or one without the members."""
    with pytest.raises(DataError, match="emnist_digits test is damaged"):
        load_images("emnist_digits", "test", environ=put("emnist", {"gzip.zip": content}))
