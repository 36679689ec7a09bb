"""STL-10 in its official binary format: a tar archive of raw bytes."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits
from tollkeeper.data.tar import members

_ARCHIVE = "stl10_binary.tar.gz"
_SIDE = 96
# In label order; `class_names.txt` lies behind the 2.7 GB of unlabeled images.
_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def _read(folder: Folder, split: str) -> Content:
    """Read a labeled split; labels are counted from 1."""
    names = [f"stl10_binary/{split}_X.bin", f"stl10_binary/{split}_y.bin"]
    images, labels = members(folder.archive(_ARCHIVE), names)
    return _images(images), np.frombuffer(labels, np.uint8).astype(np.int64) - 1, _CLASSES


def _read_unlabeled(folder: Folder) -> Content:
    """Read the 100,000 images without labels."""
    (images,) = members(folder.archive(_ARCHIVE), ["stl10_binary/unlabeled_X.bin"])
    return _images(images), None, ()


def _images(content: bytes) -> NDArray[np.uint8]:
    """View bytes as (n, 96, 96, 3); they are stored as (n, 3, 96, 96), column by column."""
    stored = np.frombuffer(content, np.uint8).reshape(-1, 3, _SIDE, _SIDE)
    return stored.transpose(0, 3, 2, 1)


STL10: Splits = {
    "train": (Form("stl10", (_ARCHIVE,), partial(_read, split="train")),),
    "test": (Form("stl10", (_ARCHIVE,), partial(_read, split="test")),),
    "unlabeled": (Form("stl10", (_ARCHIVE,), _read_unlabeled),),
}
