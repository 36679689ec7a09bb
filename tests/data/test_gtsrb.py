"""Promises of GTSRB in its official format; the subset is tested with the images."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tollkeeper.data import load_images
from tollkeeper.errors import DataError

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"
SIGNS = {
    name: np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for i, (name, shape) in enumerate({"a": (41, 53), "b": (15, 20), "c": (32, 32)}.items())
}


def ppm(sign: str) -> bytes:
    """Return a sign as PPM."""
    buffer = io.BytesIO()
    Image.fromarray(SIGNS[sign]).save(buffer, "PPM")
    return buffer.getvalue()


def rows(*pairs: tuple[str, int]) -> bytes:
    """Return a list of files and classes."""
    return (HEAD + "".join(f"{name};9;9;1;1;8;8;{label}\r\n" for name, label in pairs)).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, member in members.items():
            content.writestr(name, member)
    return buffer.getvalue()


def training(**changes: bytes) -> dict[str, bytes]:
    """Return the training archive of three signs; some members replaced."""
    members = {
        "00012/00000_00000.ppm": ppm("c"),
        "00012/GT-00012.csv": rows(("00000_00000.ppm", 12)),
        "00003/00000_00001.ppm": ppm("b"),
        "00003/00000_00000.ppm": ppm("a"),
        "00003/GT-00003.csv": rows(("00000_00000.ppm", 3), ("00000_00001.ppm", 3)),
    }
    found = {**members, **changes}
    inside = {f"GTSRB/Final_Training/Images/{name}": member for name, member in found.items()}
    return {"GTSRB_Final_Training_Images.zip": zipped({"GTSRB/Readme.txt": b"", **inside})}


def evaluation(truth: bytes = rows(("00000.ppm", 42), ("00001.ppm", 0))) -> dict[str, bytes]:
    """Return the archives of the test split of two signs."""
    images = {"00000.ppm": ppm("b"), "00001.ppm": ppm("a"), "GT-final_test.test.csv": b"no classes"}
    inside = {f"GTSRB/Final_Test/Images/{name}": member for name, member in images.items()}
    return {
        "GTSRB_Final_Test_Images.zip": zipped(inside),
        "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": truth}),
    }


def shrunk(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sample a picture at the centers of 32x32 cells, linearly between its pixels' centers."""
    height, width, _ = picture.shape
    small = np.zeros((32, 32, 3))
    for row in range(32):
        for column in range(32):
            y, x = (row + 0.5) * height / 32 - 0.5, (column + 0.5) * width / 32 - 0.5
            for j in (math.floor(y), math.floor(y) + 1):
                for i in (math.floor(x), math.floor(x) + 1):
                    weight = (1 - abs(y - j)) * (1 - abs(x - i))
                    pixel = picture[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
                    small[row, column] += weight * pixel
    return small


@pytest.mark.parametrize(
    ("split", "files", "signs", "labels"),
    [("train", training(), "abc", [3, 3, 12]), ("test", evaluation(), "ba", [42, 0])],
)
def test_signs_are_resized_and_ordered(
    put: Any, split: str, files: dict[str, bytes], signs: str, labels: list[int]
) -> None:
    """Training goes class by class, testing by the ground truth; every sign is 32x32."""
    data = load_images("gtsrb32", split, environ=put("gtsrb32", files))
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.shape == (len(signs), 32, 32, 3)
    assert data.inputs.dtype == np.uint8
    for picture, sign in zip(data.inputs, signs, strict=True):
        assert np.abs(picture - shrunk(SIGNS[sign])).max() <= 1  # rounding
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == [str(label) for label in labels]
    assert data.subset == ""


@pytest.mark.parametrize(
    ("split", "files"),
    [
        ("train", training(**{"00003/00000_00000.ppm": b"P6"})),
        ("train", training(**{"00003/GT-00003.csv": rows(("00009.ppm", 3))})),
        ("train", training(**{"00003/GT-00003.csv": rows(("00000_00000.ppm", 43))})),
        ("train", training(**{"00003/GT-00003.csv": b"Filename\r\nx\r\n"})),
        ("train", {"GTSRB_Final_Training_Images.zip": b"PK"}),
        ("test", evaluation(b"Filename;ClassId\r\n00000.ppm;\r\n")),
        ("test", {**evaluation(), "GTSRB_Final_Test_GT.zip": zipped({})}),
        ("test", {"GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": rows()})}),
    ],
)
def test_damaged_archives_are_data_errors(put: Any, split: str, files: dict[str, bytes]) -> None:
    """Broken pictures and lists, missing members, a foreign class, a missing archive."""
    with pytest.raises(DataError, match="gtsrb32"):
        load_images("gtsrb32", split, environ=put("gtsrb32", files))
