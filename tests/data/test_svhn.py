"""Promises of SVHN in its official format."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np
import pytest

from tollkeeper.data import load_images
from tollkeeper.errors import DataError

X = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3), dtype=np.uint8)


def matlab(**arrays: Any) -> bytes:
    """Return a compressed MATLAB file, as the official ones are."""
    scipy_io = pytest.importorskip("scipy.io")
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


@pytest.mark.parametrize("split", ["train", "test", "extra"])
def test_images_and_digits(put: Any, split: str) -> None:
    """The last axis counts the images, and a label of 10 is the digit 0."""
    content = matlab(X=X, y=np.array([[1], [10], [9]], np.uint8))
    data = load_images("svhn", split, environ=put("svhn", {f"{split}_32x32.mat": content}))
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.shape == (3, 32, 32, 3)
    assert data.inputs.dtype == np.uint8
    for i in range(3):
        np.testing.assert_array_equal(data.inputs[i], X[:, :, :, i])
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["1", "0", "9"]


def test_damaged_files_are_data_errors(put: Any) -> None:
    """Empty, no MATLAB file, cut short, without labels, other counts."""
    good = matlab(X=X, y=np.array([[1], [10], [9]], np.uint8))
    for content in (
        b"",
        b"no matlab file at all",
        good[:3000],
        matlab(X=X),
        matlab(X=X, y=np.array([[1]], np.uint8)),
        matlab(X=X[..., 0], y=np.array([[1]], np.uint8)),
    ):
        with pytest.raises(DataError, match="svhn"):
            load_images("svhn", "test", environ=put("svhn", {"test_32x32.mat": content}))


def test_without_scipy_the_need_is_told(put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one package that is needed is named."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"SVHN needs SciPy: install tollkeeper\[lab\]"):
        load_images("svhn", "test", environ=put("svhn", {"test_32x32.mat": b""}))


def test_absent_it_fails_fast_with_one_line(
    put: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Held nowhere and offline, the set is told in a line within seconds."""
    monkeypatch.setattr("tollkeeper.data.folders._REPOSITORY", tmp_path / "a" / "b")
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"'svhn' not found.*train_32x32\.mat") as caught:
        load_images("svhn", "train", environ=put("mnist", {}))
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
