"""Image data sets: small RGB photographs, and gray digits, letters and clothes."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.data.dataset import Dataset
from tollkeeper.data.folders import Folder
from tollkeeper.errors import DataError

_Images = NDArray[np.uint8]

_SIDE = 32  # Pixels per side of a tile in a sheet.
_TILES_PER_ROW = 32
_DAMAGE = (ValueError, LookupError, OSError, EOFError, zlib.error, zipfile.BadZipFile)
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, slots=True)
class _Set:
    """How one data set is stored.

    Attributes:
        read: reader of (folder, file prefix) to images and labels.
        splits: split name to file prefix.
        classes: reader of the class names.
    """

    read: Callable[[Folder, str], tuple[_Images, NDArray[Any]]]
    splits: Mapping[str, str]
    classes: Callable[[Folder], tuple[str, ...]]


def load_images(name: str, split: str, *, environ: Mapping[str, str] = os.environ) -> Dataset:
    """Load one split of an image data set as (n, h, w, 3) uint8 RGB.

    ==============  ===========  ====================================================
    name            splits       inputs
    ==============  ===========  ====================================================
    cifar10         train, test  32x32; train is the first 2,000 of each class
    cifar100        train, test  32x32; the first 100 and 20 of each class
    gtsrb32         train, test  traffic signs resized to 32x32; subsets
    tiny_imagenet   train        64x64; the first 50 of each of 200 classes
    mnist           train, test  28x28 gray
    fashion_mnist   train, test  28x28 gray
    kmnist          test         28x28 gray
    emnist_letters  train, test  28x28 gray, upright; train is 1,000 of each letter
    ==============  ===========  ====================================================

    Gray images come as a read-only view with three equal channels, without a copy.

    Args:
        name: the data set.
        split: one of its splits.
        environ: environment variables, see `locate`.

    Returns:
        The split in file order.

    Raises:
        DataError: unknown name or split, not found, or damaged.
    """
    if name not in _SETS:
        raise DataError(f"unknown image data set {name!r}; expected one of {', '.join(_SETS)}")
    stored = _SETS[name]
    if split not in stored.splits:
        raise DataError(
            f"{name} has no split {split!r}; expected one of {', '.join(stored.splits)}"
        )
    folder = Folder.find(name, environ=environ)
    try:
        images, labels = stored.read(folder, stored.splits[split])
        classes = stored.classes(folder)
    except _DAMAGE as error:
        raise DataError(f"{folder.path}: {name} {split} is damaged ({error!r})") from error
    return Dataset(name, split, images, labels.astype(np.int64), classes)


def _sheets(folder: Folder, prefix: str) -> tuple[_Images, NDArray[Any]]:
    """Cut lossless WebP sheets into 32x32 tiles, row by row; the last sheet is padded."""
    from PIL import Image

    with np.load(io.BytesIO(folder.read(f"{prefix}_labels.npz"))) as arrays:
        labels: NDArray[Any] = arrays["labels"]
    images = np.empty((len(labels), _SIDE, _SIDE, 3), dtype=np.uint8)
    done = number = 0
    while done < len(labels):
        content = folder.read(f"{prefix}_sheet_{number:03d}.webp")
        with Image.open(io.BytesIO(content)) as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        tiles = pixels.reshape(-1, _SIDE, _TILES_PER_ROW, _SIDE, 3).swapaxes(1, 2)
        tiles = tiles.reshape(-1, _SIDE, _SIDE, 3)[: len(labels) - done]
        images[done : done + len(tiles)] = tiles
        done, number = done + len(tiles), number + 1
    return images, labels


def _idx_pair(folder: Folder, prefix: str) -> tuple[_Images, NDArray[Any]]:
    """Read gray images and labels in MNIST's idx format."""
    gray = _idx(folder.read(f"{prefix}-images-idx3-ubyte.gz"))
    return _rgb(gray), _idx(folder.read(f"{prefix}-labels-idx1-ubyte.gz"))


def _emnist_pair(folder: Folder, prefix: str) -> tuple[_Images, NDArray[Any]]:
    """Read EMNIST letters: stored transposed, labels from 1."""
    gray = _idx(folder.read(f"{prefix}-images-idx3-ubyte.gz"))
    labels = _idx(folder.read(f"{prefix}-labels-idx1-ubyte.gz"))
    return _rgb(gray.swapaxes(1, 2)), labels.astype(np.int64) - 1


def _idx(packed: bytes) -> _Images:
    """Decode a gzipped idx file of unsigned bytes: magic 0 0 8 rank, big-endian sizes, data."""
    content = gzip.decompress(packed)
    if content[:3] != b"\x00\x00\x08":
        raise ValueError("not an idx file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
    if len(content) - start != math.prod(shape):
        raise ValueError(f"idx file cut short: {len(content) - start} bytes for shape {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _rgb(gray: _Images) -> _Images:
    """View (n, h, w) gray as (n, h, w, 3), every channel the same memory."""
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))


def _tiny_imagenet(folder: Folder, prefix: str) -> tuple[_Images, NDArray[Any]]:
    """Decode the JPEGs of the training archive; the class is in each member's name."""
    from PIL import Image

    position = {wnid: index for index, wnid in enumerate(folder.read_text("wnids.txt").split())}
    images: list[NDArray[Any]] = []
    labels: list[int] = []
    with zipfile.ZipFile(io.BytesIO(folder.read(f"{prefix}.zip"))) as archive:
        for member in archive.namelist():
            with Image.open(io.BytesIO(archive.read(member))) as picture:
                images.append(np.asarray(picture.convert("RGB")))
            labels.append(position[member.split("/")[1]])
    return np.stack(images), np.asarray(labels)


def _names(file: str) -> Callable[[Folder], tuple[str, ...]]:
    """Return a reader of class names, one a line."""
    return lambda folder: tuple(folder.read_text(file).split())


def _fixed(*names: str) -> Callable[[Folder], tuple[str, ...]]:
    """Return a reader that knows the names."""
    return lambda _folder: names


def _kana(folder: Folder) -> tuple[str, ...]:
    """Read KMNIST's characters."""
    rows = csv.DictReader(io.StringIO(folder.read_text("kmnist_classmap.csv")))
    return tuple(row["char"] for row in rows)


def _words(folder: Folder) -> tuple[str, ...]:
    """Read Tiny ImageNet's names in the order of the class ids."""
    lines = folder.read_text("words200.txt").splitlines()
    words = {wnid: word for wnid, _, word in (line.partition("\t") for line in lines)}
    return tuple(words[wnid] for wnid in folder.read_text("wnids.txt").split())


_OFFICIAL_IDX = {"train": "train", "test": "t10k"}
_DIGITS = tuple("0123456789")
_SETS: Mapping[str, _Set] = {
    "cifar10": _Set(_sheets, {"train": "train20k", "test": "test10k"}, _names("class_names.txt")),
    "cifar100": _Set(_sheets, {"train": "train10k", "test": "test2k"}, _names("class_names.txt")),
    "gtsrb32": _Set(
        _sheets, {"train": "train3920", "test": "test5k"}, _fixed(*map(str, range(43)))
    ),
    "tiny_imagenet": _Set(_tiny_imagenet, {"train": "tiny-imagenet-200-train-first50"}, _words),
    "mnist": _Set(_idx_pair, _OFFICIAL_IDX, _fixed(*_DIGITS)),
    "fashion_mnist": _Set(_idx_pair, _OFFICIAL_IDX, _fixed(*_CLOTHES)),
    "kmnist": _Set(_idx_pair, {"test": "t10k"}, _kana),
    "emnist_letters": _Set(
        _emnist_pair,
        {"train": "emnist-letters-train26k", "test": "emnist-letters-test"},
        _fixed(*"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ),
}
