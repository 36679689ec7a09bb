"""Data sets as experiments use them: loaded, and named in the manifest by checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from tollkeeper.data import Dataset
from tollkeeper.types import Batch


def noted(
    load: Callable[[str, str], Dataset], data: dict[str, str], name: str, *splits: str
) -> Iterator[Dataset]:
    """Yield splits of a data set; notes the checksum of what each holds.

    Args:
        load: `load_images` or `load_text`.
        data: gets `<name>/<split>` to checksum, for the manifest.
        name: the data set.
        *splits: which of its splits.

    Raises:
        DataError: unknown, missing or damaged.
    """
    for split in splits:
        found = load(name, split)
        data[f"{name}/{split}"] = checksum(found.inputs)
        yield found


def checksum(inputs: Batch) -> str:
    """Return the SHA-256 of texts, each ended by a zero byte, or of an array's bytes."""
    if isinstance(inputs, np.ndarray):
        return hashlib.sha256(inputs.tobytes()).hexdigest()
    return hashlib.sha256("".join(f"{text}\0" for text in inputs).encode()).hexdigest()
