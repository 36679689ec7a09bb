"""EMNIST's letters and digits: idx files, single or in NIST's archive of all of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tollkeeper.data import idx
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits

_ARCHIVE = "gzip.zip"


@dataclass(frozen=True, slots=True)
class _Part:
    """One split of letters or digits.

    Attributes:
        prefix: start of the file names.
        classes: names of the classes.
        first: number of the first class.
    """

    prefix: str
    classes: tuple[str, ...]
    first: int

    def read(self, folder: Folder) -> Content:
        """Read single files."""
        return self._decode(folder.read)

    def read_archive(self, folder: Folder) -> Content:
        """Read the same files out of the archive."""
        with zipfile.ZipFile(folder.archive(_ARCHIVE)) as archive:
            return self._decode(lambda name: archive.read(f"gzip/{name}"))

    def forms(self, place: str) -> tuple[Form, Form]:
        """Return the single files and the archive, which is what can be downloaded."""
        return self.files(place), Form("emnist", (_ARCHIVE,), self.read_archive)

    def files(self, place: str, subset: str = "") -> Form:
        """Return the single files."""
        return Form(place, idx.files(self.prefix), self.read, subset)

    def _decode(self, get: Callable[[str], bytes]) -> Content:
        """Decode the files that `get` reads; pictures are stored transposed."""
        images, labels = (idx.decode(get(name)) for name in idx.files(self.prefix))
        upright = idx.rgb(images.swapaxes(1, 2))
        return upright, labels.astype(np.int64) - self.first, self.classes


_CAPITALS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # Each class mixes upper and lower case.
_DIGITS = tuple("0123456789")

EMNIST_LETTERS: Splits = {
    "train": (
        *_Part("emnist-letters-train", _CAPITALS, 1).forms("emnist_letters"),
        _Part("emnist-letters-train26k", _CAPITALS, 1).files(
            "emnist_letters", "first 1,000 of each letter"
        ),
    ),
    "test": _Part("emnist-letters-test", _CAPITALS, 1).forms("emnist_letters"),
}
EMNIST_DIGITS: Splits = {
    split: _Part(f"emnist-digits-{split}", _DIGITS, 0).forms("emnist_digits")
    for split in ("train", "test")
}
