"""MNIST and the two sets that come in its files: Fashion-MNIST and Kuzushiji-MNIST."""

from __future__ import annotations

from functools import partial

from tollkeeper.data import idx
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits


def _read(folder: Folder, *, prefix: str, classes: tuple[str, ...]) -> Content:
    """Read gray images as a read-only (n, 28, 28, 3) view with three equal channels."""
    images, labels = (idx.decode(folder.read(name)) for name in idx.files(prefix))
    return idx.rgb(images), labels, classes


def _splits(place: str, *classes: str) -> Splits:
    """Return both splits of a set in MNIST's files."""
    prefixes = {"train": "train", "test": "t10k"}
    return {
        split: (Form(place, idx.files(prefix), partial(_read, prefix=prefix, classes=classes)),)
        for split, prefix in prefixes.items()
    }


MNIST = _splits("mnist", *"0123456789")
FASHION_MNIST = _splits(
    "fashion_mnist",
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
KMNIST = _splits("kmnist", *"おきすつなはまやれを")
