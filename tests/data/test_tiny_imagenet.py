"""Promises of Tiny ImageNet in its official format; the subset is tested with the images."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tollkeeper.data import load_images
from tollkeeper.errors import DataError


def jpeg(gray: int, mode: str = "RGB", side: int = 64) -> bytes:
    """Return a JPEG of one shade."""
    buffer = io.BytesIO()
    Image.new(mode, (side, side), gray if mode == "L" else (gray, gray, gray)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(**changes: bytes | None) -> dict[str, bytes]:
    """Return the official archive of five images; a change of None removes a member."""
    members: dict[str, bytes | None] = {
        "wnids.txt": b"n2\nn1\n",
        "words.txt": b"n0\tnothing\nn1\tone\nn2\ttwo, second\n",
        "train/n1/n1_boxes.txt": b"n1_0.JPEG\t0\t0\t9\t9\n",
        "train/n1/images/n1_10.JPEG": jpeg(110),
        "train/n1/images/n1_9.JPEG": jpeg(109, "L"),
        "train/n2/images/n2_0.JPEG": jpeg(200),
        "val/val_annotations.txt": b"val_1.JPEG\tn1\t0\t0\t9\t9\nval_0.JPEG\tn2\t0\t0\t9\t9\n",
        "val/images/val_0.JPEG": jpeg(50),
        "val/images/val_1.JPEG": jpeg(51),
        "test/images/test_0.JPEG": jpeg(0),
        **changes,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, member in members.items():
            if member is not None:
                content.writestr(f"tiny-imagenet-200/{name}", member)
    return {"tiny-imagenet-200.zip": buffer.getvalue()}


@pytest.mark.parametrize(
    ("split", "shades", "labels"),
    [("train", [200, 109, 110], [0, 1, 1]), ("val", [51, 50], [1, 0])],
)
def test_order_labels_and_names(put: Any, split: str, shades: list[int], labels: list[int]) -> None:
    """Classes go by wnids.txt, numbers count as numbers, validation follows its list."""
    data = load_images("tiny_imagenet", split, environ=put("tiny_imagenet", archive()))
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.shape == (len(shades), 64, 64, 3)
    for picture, shade in zip(data.inputs, shades, strict=True):
        assert np.abs(picture.astype(int) - shade).max() <= 2
    assert data.labels is not None
    assert data.labels.tolist() == labels
    assert (data.classes, data.subset) == (("two, second", "one"), "")


@pytest.mark.parametrize(
    ("split", "changes"),
    [
        ("train", {"wnids.txt": None}),
        ("train", {"words.txt": b"n1\tone\n"}),
        ("train", {"train/n3/images/n3_0.JPEG": jpeg(1)}),
        ("train", {"train/n1/images/n1_x.JPEG": jpeg(1)}),
        ("train", {"train/n1/images/n1_9.JPEG": b"no picture"}),
        ("train", {"train/n1/images/n1_9.JPEG": jpeg(1, side=32)}),
        ("val", {"val/val_annotations.txt": None}),
        ("val", {"val/images/val_1.JPEG": None}),
        ("val", {"val/val_annotations.txt": b"val_0.JPEG\tn3\n"}),
        ("val", {"val/val_annotations.txt": b"val_0.JPEG\n"}),
    ],
)
def test_damaged_archives_are_data_errors(
    put: Any, split: str, changes: dict[str, bytes | None]
) -> None:
    """Missing lists and images, foreign classes, broken names and pictures, another size."""
    environ = put("tiny_imagenet", archive(**changes))
    with pytest.raises(DataError, match=f"tiny_imagenet {split} is damaged"):
        load_images("tiny_imagenet", split, environ=environ)
