"""Image data sets: photographs of things and places, and gray digits, letters and clothes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tollkeeper.data.cifar import CIFAR10, CIFAR100
from tollkeeper.data.dataset import Dataset
from tollkeeper.data.download import Progress
from tollkeeper.data.emnist import EMNIST_DIGITS, EMNIST_LETTERS
from tollkeeper.data.forms import Splits, load
from tollkeeper.data.gtsrb import GTSRB32
from tollkeeper.data.mnist import FASHION_MNIST, KMNIST, MNIST
from tollkeeper.data.stl10 import STL10
from tollkeeper.data.svhn import SVHN
from tollkeeper.data.tiny_imagenet import TINY_IMAGENET


def load_images(
    name: str,
    split: str,
    *,
    environ: Mapping[str, str] = os.environ,
    progress: Progress | None = None,
) -> Dataset:
    """Load one split of an image data set as (n, h, w, 3) uint8 RGB.

    ==============  =======================  =======================================
    name            splits                   inputs
    ==============  =======================  =======================================
    cifar10         train, test              32x32
    cifar100        train, test              32x32, fine classes
    gtsrb32         train, test              traffic signs resized to 32x32
    svhn            train, test, extra       32x32 house numbers; needs SciPy
    stl10           train, test, unlabeled   96x96
    tiny_imagenet   train, val               64x64, 200 classes of ImageNet
    mnist           train, test              28x28 gray
    fashion_mnist   train, test              28x28 gray
    kmnist          train, test              28x28 gray
    emnist_letters  train, test              28x28 gray, upright
    emnist_digits   train, test              28x28 gray, upright
    ==============  =======================  =======================================

    The first place of `locate` that holds the split counts, even if it holds a part of
    it: then `Dataset.subset` says which. Held nowhere, the split is downloaded.
    Gray images come as a read-only view with three equal channels, without a copy.

    Args:
        name: the data set.
        split: one of its splits.
        environ: environment variables, see `locate`; `TOLLKEEPER_OFFLINE=1` forbids
            downloads.
        progress: told of a download's progress.

    Returns:
        The split in file order.

    Raises:
        DataError: unknown name or split, not found and not to be had, or damaged.
    """
    return load("image", _SETS, name, split, environ=environ, progress=progress)


_SETS: Mapping[str, Splits] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "gtsrb32": GTSRB32,
    "svhn": SVHN,
    "stl10": STL10,
    "tiny_imagenet": TINY_IMAGENET,
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "kmnist": KMNIST,
    "emnist_letters": EMNIST_LETTERS,
    "emnist_digits": EMNIST_DIGITS,
}
