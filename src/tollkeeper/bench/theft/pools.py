"""Query pools: what an attacker can gather in public and ask the victim about.

No pool holds a test input of a task, or the copy would have been shown the answers. The
training parts of the tasks are public, and may be in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.inputs import noted
from tollkeeper.bench.theft.tasks import SIDE, select
from tollkeeper.data import load_images, load_text
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch

_Parts = tuple[Batch, NDArray[np.int64] | None]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Inputs in the order in which a plain attacker asks them.

    Attributes:
        name: of `POOLS`.
        inputs: n distinct strings, or one (n, 32, 32, 3) uint8 array.
        labels: (n,) int64 true classes, for attacks that need them; None where there are none.
    """

    name: str
    inputs: Batch
    labels: NDArray[np.int64] | None


def load_pool(
    name: str, *, size: int | None, rng: np.random.Generator, data: dict[str, str]
) -> Pool:
    """Load a pool and keep `size` of its inputs at random, or shuffle all of them.

    With the same state of `rng`, a smaller pool is the beginning of a larger one.

    =============  =======================================================================
    name           inputs
    =============  =======================================================================
    tiny_imagenet  10,000 photographs of 200 classes, 64 pixels averaged to 32; stands in
                   for ImageNet
    cifar100       the 10,000 training images of 100 classes
    broad_text     27,019 distinct texts without labels: AG News descriptions, WikiText-2
                   paragraphs, MR and SST-2 sentences
    =============  =======================================================================

    Args:
        name: the pool.
        size: inputs to keep, at least 1; None for all.
        rng: chooses and orders them.
        data: gets the checksum of each data set used, for the manifest.

    Raises:
        ConfigurationError: unknown name, or a size that is not in the pool.
        DataError: a data set is missing or damaged.
    """
    if name not in _POOLS:
        raise ConfigurationError(f"no query pool {name!r}; choose {', '.join(_POOLS)}")
    inputs, labels = _POOLS[name](data)
    if size is not None and not 1 <= size <= len(inputs):
        raise ConfigurationError(
            f"expected 1 to {len(inputs)} inputs of query pool {name!r}, got {size}"
        )
    chosen = rng.permutation(len(inputs))[:size]
    return Pool(name, select(inputs, chosen), None if labels is None else labels[chosen])


def halved(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2 x 2 pixels: (n, 2 h, 2 w, 3) to (n, h, w, 3), halves rounded up."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, channels)
    sums = blocks.sum(axis=(2, 4), dtype=np.uint16)
    small: NDArray[np.uint8] = ((sums + 2) // 4).astype(np.uint8)
    return small


def without(texts: Iterable[str], barred: Iterable[str]) -> list[str]:
    """Return distinct texts in order, less those that are `barred` but for case and spelling.

    Letters and digits alone are compared: MR and SST-2 hold the same reviews, tokenized
    differently.
    """
    closed = {_letters(text) for text in barred}
    return [text for text in dict.fromkeys(texts) if _letters(text) not in closed]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _tiny_imagenet(data: dict[str, str]) -> _Parts:
    (found,) = noted(load_images, data, "tiny_imagenet", "train")
    images = halved(np.asarray(found.inputs))
    assert images.shape[1:] == (SIDE, SIDE, 3)
    return images, found.labels


def _cifar100(data: dict[str, str]) -> _Parts:
    (found,) = noted(load_images, data, "cifar100", "train")
    return found.inputs, found.labels


def _broad_text(data: dict[str, str]) -> _Parts:
    named = {
        "ag_news": ("train",),
        "wikitext2": ("validation", "test"),
        "mr": ("all",),
        "sst2": ("train",),
    }
    parts = [
        part for name, splits in named.items() for part in noted(load_text, data, name, *splits)
    ]
    tests = [*noted(load_text, data, "sst2", "test"), *noted(load_text, data, "ag_news", "test")]
    found = (text for part in parts for text in part.inputs)
    return without(found, (text for part in tests for text in part.inputs)), None


_POOLS: Mapping[str, Callable[[dict[str, str]], _Parts]] = {
    "tiny_imagenet": _tiny_imagenet,
    "cifar100": _cifar100,
    "broad_text": _broad_text,
}
POOLS = tuple(_POOLS)
"""Names of all pools."""
