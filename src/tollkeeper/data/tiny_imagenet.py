"""Tiny ImageNet 200: a zip archive of 64x64 JPEG files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits

_ARCHIVE = "tiny-imagenet-200.zip"
_SUBSET = "tiny-imagenet-200-train-first50.zip"
_INSIDE = "tiny-imagenet-200"
_SIDE = 64


def _read_train(folder: Folder) -> Content:
    """Read the training split, class by class in the order of `wnids.txt`, then by number."""
    with zipfile.ZipFile(folder.archive(_ARCHIVE)) as archive:
        wnids, classes = _classes(archive)
        position = {wnid: index for index, wnid in enumerate(wnids)}
        found = [
            (position[wnid], int(number.removesuffix(".JPEG")), member)
            for member in archive.namelist()
            if member.startswith(f"{_INSIDE}/train/") and member.endswith(".JPEG")
            for wnid, _, number in [member.rpartition("/")[2].partition("_")]
        ]
        found.sort()
        images = _pictures(archive, [member for _, _, member in found])
    return images, [label for label, _, _ in found], classes


def _read_val(folder: Folder) -> Content:
    """Read the validation split in the order of its annotations; the test split has no labels."""
    with zipfile.ZipFile(folder.archive(_ARCHIVE)) as archive:
        wnids, classes = _classes(archive)
        lines = archive.read(f"{_INSIDE}/val/val_annotations.txt").decode().splitlines()
        rows = [line.split("\t") for line in lines]
        images = _pictures(archive, [f"{_INSIDE}/val/images/{row[0]}" for row in rows])
    return images, [wnids.index(row[1]) for row in rows], classes


def _read_subset(folder: Folder) -> Content:
    """Read the first 50 of each class, in archive order; the class lists lie beside the archive."""
    wnids = folder.read_text("wnids.txt").split()
    classes = _words(folder.read_text("words200.txt"), wnids)
    position = {wnid: index for index, wnid in enumerate(wnids)}
    with zipfile.ZipFile(folder.archive(_SUBSET)) as archive:
        members = archive.namelist()
        labels = [position[member.split("/")[1]] for member in members]
        return _pictures(archive, members), labels, classes


def _classes(archive: zipfile.ZipFile) -> tuple[list[str], tuple[str, ...]]:
    """Return the class ids and the names of the classes."""
    wnids = archive.read(f"{_INSIDE}/wnids.txt").decode().split()
    return wnids, _words(archive.read(f"{_INSIDE}/words.txt").decode(), wnids)


def _words(text: str, wnids: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order of the class ids; a line is an id, a tab and a name."""
    words = {wnid: word for wnid, _, word in (line.partition("\t") for line in text.splitlines())}
    return tuple(words[wnid] for wnid in wnids)


def _pictures(archive: zipfile.ZipFile, members: Sequence[str]) -> NDArray[np.uint8]:
    """Decode members into (n, 64, 64, 3); gray ones become RGB."""
    from PIL import Image

    images = np.empty((len(members), _SIDE, _SIDE, 3), dtype=np.uint8)
    for index, member in enumerate(members):
        with Image.open(io.BytesIO(archive.read(member))) as picture:
            images[index] = np.asarray(picture.convert("RGB"))
    return images


TINY_IMAGENET: Splits = {
    "train": (
        Form("tiny_imagenet", (_ARCHIVE,), _read_train),
        Form("tiny_imagenet", (_SUBSET,), _read_subset, "first 50 of each class"),
    ),
    "val": (Form("tiny_imagenet", (_ARCHIVE,), _read_val),),
}
