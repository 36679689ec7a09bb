"""Files on the command line into inputs of an encoder: text lines, images, or embeddings."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.gateway.images import decode_data_uri
from tollkeeper.gateway.wire import Limits
from tollkeeper.types import Embeddings

BATCH = 64
_IMAGE_TYPES = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".gif": "gif",
    ".bmp": "bmp",
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the named files hold.

    Attributes:
        items: texts, or paths of images that are decoded batch by batch.
        embeddings: ready (n, d) arrays from `.npy` files.
    """

    items: Sequence[str | Path]
    embeddings: Sequence[Embeddings]


def read(paths: Iterable[Path]) -> Inputs:
    """Find the inputs that files and folders name.

    A `.npy` file holds embeddings, an image file is one input, a folder stands for all
    images in it, and any other file holds one text per line; blank lines are skipped.

    Raises:
        ConfigurationError: a path cannot be read or holds nothing.
    """
    items: list[str | Path] = []
    embeddings: list[Embeddings] = []
    for path in paths:
        try:
            if path.suffix == ".npy":
                embeddings.append(cast("Embeddings", np.load(path, allow_pickle=False)))
            else:
                found = _items(path)
                if not found:
                    raise ConfigurationError(f"there are no inputs in {path}")
                items.extend(found)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
    return Inputs(items, embeddings)


def batches(items: Sequence[str | Path], encoder: Encoder) -> Iterator[list[Any]]:
    """Yield the inputs of one encoder call after another, images decoded.

    An image becomes the pixels that the gateway makes of the same file in a data URI.

    Raises:
        ConfigurationError: an image cannot be decoded, or the encoder does not take them.
    """
    kinds = {"text" if isinstance(item, str) else "image" for item in items}
    if not kinds <= encoder.accepts:
        raise ConfigurationError(
            f"{encoder.name} takes {' or '.join(sorted(encoder.accepts))}, "
            f"got {' and '.join(sorted(kinds))} inputs"
        )
    if len(kinds) > 1:
        raise ConfigurationError("expected texts or images, got both; use two commands")
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        yield [item if isinstance(item, str) else pixels(item) for item in batch]


def _items(path: Path) -> list[str | Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGE_TYPES)
    if path.suffix.lower() in _IMAGE_TYPES:
        return [path]
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def pixels(path: Path) -> NDArray[np.uint8]:
    """Decode an image file as the gateway decodes the same file in a data URI: (h, w, 3).

    Raises:
        ConfigurationError: it cannot be read or is no image.
    """
    kind = _IMAGE_TYPES[path.suffix.lower()]
    try:
        data = base64.b64encode(path.read_bytes()).decode()
        return decode_data_uri(f"data:image/{kind};base64,{data}", limits=Limits())
    except (OSError, InputError) as error:
        raise ConfigurationError(f"cannot use the image {path}: {error}") from error
