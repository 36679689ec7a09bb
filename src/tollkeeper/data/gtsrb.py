"""GTSRB, German traffic signs: zip archives of PPM pictures of many sizes, and csv lists."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollkeeper.data import sheets
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits

_TRAIN = "GTSRB_Final_Training_Images.zip"
_TEST = "GTSRB_Final_Test_Images.zip"
_TRUTH = "GTSRB_Final_Test_GT.zip"
_CLASSES = tuple(map(str, range(43)))  # The benchmark gives the signs no names.
_SIDE = 32


def _read_train(folder: Folder) -> Content:
    """Read the training split, class by class in file order; each class has a list."""
    with zipfile.ZipFile(folder.archive(_TRAIN)) as archive:
        lists = sorted(name for name in archive.namelist() if name.endswith(".csv"))
        found = [
            (f"{name.rpartition('/')[0]}/{file}", label)
            for name in lists
            for file, label in _rows(archive.read(name))
        ]
        images = _pictures(archive, [member for member, _ in found])
    return images, [label for _, label in found], _CLASSES


def _read_test(folder: Folder) -> Content:
    """Read the test split in the order of its ground truth."""
    with zipfile.ZipFile(folder.archive(_TRUTH)) as archive:
        rows = _rows(archive.read("GT-final_test.csv"))
    with zipfile.ZipFile(folder.archive(_TEST)) as archive:
        images = _pictures(archive, [f"GTSRB/Final_Test/Images/{file}" for file, _ in rows])
    return images, [label for _, label in rows], _CLASSES


def _rows(content: bytes) -> list[tuple[str, int]]:
    """Return the file names and classes of a list."""
    rows = csv.DictReader(io.StringIO(content.decode()), delimiter=";")
    return [(row["Filename"], int(row["ClassId"])) for row in rows]


def _pictures(archive: zipfile.ZipFile, members: Sequence[str]) -> NDArray[np.uint8]:
    """Decode members and resize each, whole, to (32, 32, 3).

    Plain bilinear interpolation, without smoothing first: so were the pictures of the
    32x32 subset made, and the two shall not differ in sharpness.
    """
    from PIL import Image

    images = np.empty((len(members), _SIDE, _SIDE, 3), dtype=np.uint8)
    for index, member in enumerate(members):
        with Image.open(io.BytesIO(archive.read(member))) as picture:
            scale = (picture.width / _SIDE, 0, 0, 0, picture.height / _SIDE, 0)
            small = picture.convert("RGB").transform(
                (_SIDE, _SIDE), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR
            )
        images[index] = np.asarray(small)
    return images


GTSRB32: Splits = {
    "train": (
        Form("gtsrb32", (_TRAIN,), _read_train),
        sheets.form("gtsrb32", "train3920", "frames 9, 19 and 29 of each track", classes=_CLASSES),
    ),
    "test": (
        Form("gtsrb32", (_TEST, _TRUTH), _read_test),
        sheets.form("gtsrb32", "test5k", "first 5,000", classes=_CLASSES),
    ),
}
