"""Sheets: 32x32 photographs as tiles of lossless WebP pictures, with labels in an npz."""

from __future__ import annotations

import io
from functools import partial

import numpy as np

from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form

_SIDE = 32  # Pixels per side of a tile.
_TILES_PER_ROW = 32


def form(place: str, prefix: str, subset: str = "", *, classes: tuple[str, ...] = ()) -> Form:
    """Return the form of sheets; arguments as for `Form` and `read`."""
    reader = partial(read, prefix=prefix, classes=classes)
    return Form(place, (f"{prefix}_labels.npz",), reader, subset)


def read(folder: Folder, prefix: str, classes: tuple[str, ...] = ()) -> Content:
    """Cut sheets into (n, 32, 32, 3) tiles, row by row; the last sheet is padded.

    Args:
        folder: where `<prefix>_labels.npz` and `<prefix>_sheet_000.webp` and on lie.
        prefix: start of the file names.
        classes: names of the classes; empty reads them from `class_names.txt`.

    Returns:
        Images, labels and classes.
    """
    from PIL import Image

    with np.load(io.BytesIO(folder.read(f"{prefix}_labels.npz"))) as arrays:
        labels = arrays["labels"]
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
    return images, labels, classes or tuple(folder.read_text("class_names.txt").split())
