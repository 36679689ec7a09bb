"""Pictures on the command line, as the tensors that a classifier sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.classifiers.base import canonical
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Images


def read_pictures(
    named: str, shape: tuple[int, int, int], *, model: str, scaled: bool = False
) -> tuple[Images, NDArray[np.int64] | None]:
    """Read what a name on the command line stands for.

    Args:
        named: a `.npy` file of (n, c, h, w) float32 tensors in [0, 1] or (n, h, w, 3) uint8
            pictures, a folder of images or one image, or a data set as `mnist` or `mnist:train`,
            whose split is `test` unless told.
        shape: (c, h, w) of the classifier.
        model: its name, for messages.
        scaled: bring pictures that are not tensors to the classifier's size.

    Returns:
        (n, c, h, w) float32 in [0, 1], and (n,) labels where it is a data set that has them.

    Raises:
        ConfigurationError: it cannot be read, holds nothing, or pictures of another size.
        DataError: no such data set, or it is not at hand.
    """
    path, labels = Path(named), None
    try:
        if path.suffix == ".npy":
            items = np.load(path, allow_pickle=False)
        elif path.exists():
            items = _files(path)
        else:
            items, labels = _data_set(named)
        if scaled and items[0].dtype == np.uint8:
            from tollkeeper.bench.predict.theft import tensors

            pictures = tensors(items, shape)
        else:
            pictures = canonical(items, shape, name=model)
    except InputError as error:
        raise ConfigurationError(f"{named}: {error.message}") from error
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"cannot read {named}: {error}") from error
    if not len(pictures):
        raise ConfigurationError(f"there are no pictures in {named}")
    return pictures, labels


def read_labels(path: Path, *, count: int, classes: int) -> NDArray[np.int64]:
    """Read (n,) true classes from a `.npy` file.

    Raises:
        ConfigurationError: it cannot be read, or holds no such labels.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    whole = labels.dtype.kind in "iu" and labels.shape == (count,)
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise ConfigurationError(
            f"expected {count} whole numbers from 0 to {classes - 1} in {path}, got {labels.dtype} "
            f"of shape {labels.shape}"
        )
    found: NDArray[np.int64] = labels.astype(np.int64)
    return found


def _files(path: Path) -> list[NDArray[np.uint8]]:
    from tollkeeper.cli import inputs as files

    found = files.read([path])
    if any(isinstance(item, str) for item in found.items):
        raise ConfigurationError(f"expected images in {path}, got text")
    return [files.pixels(item) for item in found.items if isinstance(item, Path)]


def _data_set(named: str) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    from tollkeeper.data import load_images

    name, _, split = named.partition(":")
    found = load_images(name, split or "test")
    return np.asarray(found.inputs), found.labels
