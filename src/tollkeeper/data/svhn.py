"""SVHN's cropped digits: one MATLAB file a split."""

from __future__ import annotations

from functools import partial

import numpy as np

from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits
from tollkeeper.errors import DataError


def _read(folder: Folder, name: str) -> Content:
    """Read X (32, 32, 3, n) and y (n, 1), where a zero is labeled 10.

    Raises:
        DataError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError("SVHN needs SciPy: install tollkeeper[lab]") from error
    try:
        arrays = loadmat(folder.archive(name), variable_names=["X", "y"])
    except (MatReadError, TypeError) as error:
        raise ValueError(str(error)) from error
    labels = arrays["y"].ravel().astype(np.int64) % 10
    return arrays["X"].transpose(3, 0, 1, 2), labels, tuple("0123456789")


def _form(name: str) -> Form:
    """Return the official form of a split."""
    return Form("svhn", (name,), partial(_read, name=name))


SVHN: Splits = {split: (_form(f"{split}_32x32.mat"),) for split in ("train", "test", "extra")}
