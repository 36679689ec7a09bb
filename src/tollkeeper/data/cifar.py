"""CIFAR-10 and CIFAR-100 in their official Python format: a tar archive of pickles."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tollkeeper.data import sheets
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits
from tollkeeper.data.tar import members


def _read(
    folder: Folder, *, archive: str, inside: str, batches: Sequence[str], about: str, fine: str
) -> Content:
    """Read batches and the class names; a row of `data` is (3, 32, 32) red, green, blue.

    Python 2 wrote the pickles: its strings are bytes, which `latin1` keeps as they are.
    """
    wanted = [f"{inside}/{name}" for name in (*batches, about)]
    contents = members(folder.archive(archive), wanted)
    *parts, meta = (_Plain(io.BytesIO(content), encoding="latin1").load() for content in contents)
    rows = np.concatenate([part["data"] for part in parts])
    labels = np.concatenate([part[f"{fine}labels"] for part in parts])
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels, tuple(meta[f"{fine}label_names"])


class _Plain(pickle.Unpickler):
    """Unpickles numbers, strings, lists, dicts and arrays, and refuses everything else.

    A pickle can run any code; a data set has no reason to.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what an array is made from; raises UnpicklingError for anything else."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a data set")


def _dtype(code: str, align: int, copy: int) -> np.dtype[Any]:
    """Make a dtype as pickles ask for it; numpy now wants the flags to be booleans."""
    return np.dtype(code, align=bool(align), copy=bool(copy))


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
}


def _ten(*batches: str) -> Form:
    """Return the official form of a split of CIFAR-10."""
    archive = "cifar-10-python.tar.gz"
    inside = "cifar-10-batches-py"
    reader = partial(
        _read, archive=archive, inside=inside, batches=batches, about="batches.meta", fine=""
    )
    return Form("cifar10", (archive,), reader)


def _hundred(batch: str) -> Form:
    """Return the official form of a split of CIFAR-100, with its hundred fine classes."""
    archive = "cifar-100-python.tar.gz"
    inside = "cifar-100-python"
    reader = partial(
        _read, archive=archive, inside=inside, batches=(batch,), about="meta", fine="fine_"
    )
    return Form("cifar100", (archive,), reader)


CIFAR10: Splits = {
    "train": (
        _ten(*(f"data_batch_{number}" for number in range(1, 6))),
        sheets.form("cifar10", "train20k", "first 2,000 of each class"),
    ),
    "test": (_ten("test_batch"), sheets.form("cifar10", "test10k")),
}
CIFAR100: Splits = {
    "train": (
        _hundred("train"),
        sheets.form("cifar100", "train10k", "first 100 of each class"),
    ),
    "test": (_hundred("test"), sheets.form("cifar100", "test2k", "first 20 of each class")),
}
