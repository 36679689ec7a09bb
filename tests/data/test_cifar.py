"""Promises of CIFAR in its official format, on archives as Python 2 pickled them."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.data import load_images
from tollkeeper.errors import DataError

NAMES = [f"class{i}" for i in range(10)]


def text(content: str) -> bytes:
    """Return the opcodes of a Python 2 string."""
    return b"U" + bytes([len(content)]) + content.encode()


def number(value: int) -> bytes:
    """Return the opcodes of a small integer."""
    return b"J" + value.to_bytes(4, "little", signed=True)


def array(rows: NDArray[np.uint8]) -> bytes:
    """Return the opcodes of an (n, m) array of bytes, as numpy's `__reduce__` made them."""
    kind = b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR"
    kind += b"(K\x03" + text("|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
    raw = rows.tobytes()
    state = b"(K\x01" + number(rows.shape[0]) + number(rows.shape[1]) + b"\x86" + kind
    state += b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"t"
    empty = b"(cnumpy\nndarray\nK\x00\x85" + text("b") + b"t"
    return b"cnumpy.core.multiarray\n_reconstruct\n" + empty + b"R" + state + b"b"


def pickled(**fields: Any) -> bytes:
    """Return a dict of strings to lists of integers or strings, or arrays, as protocol 2."""
    pairs = b""
    for key, value in fields.items():
        if isinstance(value, list):
            items = b"".join(
                text(item) if isinstance(item, str) else number(item) for item in value
            )
            pairs += text(key) + b"](" + items + b"e"
        else:
            pairs += text(key) + array(value)
    return b"\x80\x02}(" + pairs + b"u."


def archive(**members: bytes) -> bytes:
    """Return a gzipped tar archive; `__` in a name is a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def rows(seed: int, n: int = 2) -> NDArray[np.uint8]:
    """Return n rows of noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def image(row: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rebuild an image pixel by pixel: a thousand reds, then greens, then blues, row by row."""
    picture = np.zeros((32, 32, 3), np.uint8)
    for channel in range(3):
        for y in range(32):
            for x in range(32):
                picture[y, x, channel] = row[channel * 1024 + y * 32 + x]
    return picture


def cifar10(**changes: bytes) -> dict[str, bytes]:
    """Return the archive of CIFAR-10 with two images a batch, some members replaced."""
    members = {f"data_batch_{i}": pickled(data=rows(i), labels=[i, i + 1]) for i in (2, 1, 3, 4, 5)}
    members["test_batch"] = pickled(data=rows(9), labels=[9, 0])
    members["batches.meta"] = pickled(label_names=NAMES)
    inside = {f"cifar-10-batches-py__{k}": v for k, v in {**members, **changes}.items()}
    return {"cifar-10-python.tar.gz": archive(**inside)}


def test_batches_come_in_order_whatever_the_archive_does(put: Any) -> None:
    """The training split is batch 1 to 5, each image as its bytes say."""
    data = load_images("cifar10", "train", environ=put("cifar10", cifar10()))
    expected = [image(row) for i in range(1, 6) for row in rows(i)]
    np.testing.assert_array_equal(data.inputs, expected)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert (data.classes, data.subset) == (tuple(NAMES), "")


def test_the_test_split_is_its_batch(put: Any) -> None:
    """It is read alone, as bytes with a contiguous layout."""
    data = load_images("cifar10", "test", environ=put("cifar10", cifar10()))
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.flags.c_contiguous
    np.testing.assert_array_equal(data.inputs, [image(row) for row in rows(9)])
    assert data.labels is not None
    assert data.labels.tolist() == [9, 0]


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar100_has_its_fine_classes(put: Any, split: str) -> None:
    """Coarse labels beside the fine ones are left alone."""
    batch = pickled(data=rows(1), coarse_labels=[0, 0], fine_labels=[1, 0])
    meta = pickled(coarse_label_names=["both"], fine_label_names=["apple", "bear"])
    members = {f"cifar-100-python__{k}": v for k, v in ((split, batch), ("meta", meta))}
    environ = put("cifar100", {"cifar-100-python.tar.gz": archive(**members)})
    data = load_images("cifar100", split, environ=environ)
    np.testing.assert_array_equal(data.inputs, [image(row) for row in rows(1)])
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["bear", "apple"]


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_a_pickle_runs_no_code(put: Any, tmp_path: Any) -> None:
    """Anything but plain data and arrays is refused before it acts."""
    evil = pickle.dumps({"data": Evil(str(tmp_path / "hacked"))}, protocol=2)
    environ = put("cifar10", cifar10(test_batch=evil))
    with pytest.raises(DataError, match=r"open does not belong into a data set"):
        load_images("cifar10", "test", environ=environ)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"no pickle",
        pickled(labels=[1, 2]),
        pickled(data=rows(1), labels=["a", "b"]),
        pickled(data=rows(1), labels=[1]),
        pickled(data=rows(1), labels=[1, 10]),
        pickled(data=rows(1)[:, :99], labels=[1, 2]),
        pickled(data=[1, 2], labels=[1, 2]),
        pickle.dumps([1, 2], protocol=2),
        pickle.dumps(None, protocol=2),
        b"\x80\x02K\x01}" + text("x") + b"K\x01sb.",
    ],
)
def test_damaged_batches_are_data_errors(put: Any, batch: bytes) -> None:
    """No pickle, a missing or odd field, other counts, a foreign label."""
    with pytest.raises(DataError, match="cifar10"):
        load_images("cifar10", "test", environ=put("cifar10", cifar10(test_batch=batch)))


@pytest.mark.parametrize(
    "content", [b"", b"no tar", archive(), cifar10()["cifar-10-python.tar.gz"][:5000]]
)
def test_damaged_archives_are_data_errors(put: Any, content: bytes) -> None:
    """Empty, no tar, without the members, cut short."""
    environ = put("cifar10", {"cifar-10-python.tar.gz": content})
    with pytest.raises(DataError, match="cifar10 test is damaged"):
        load_images("cifar10", "test", environ=environ)


def test_a_listed_archive_must_match_its_checksum(put: Any, tmp_path: Any) -> None:
    """SHA256SUMS covers archives too."""
    environ = put("cifar10", cifar10())
    name = "cifar10/cifar-10-python.tar.gz"
    good = hashlib.sha256((tmp_path / "named" / name).read_bytes()).hexdigest()
    sums = tmp_path / "named" / "SHA256SUMS"
    sums.write_text(f"{good}  {name}\n")
    assert len(load_images("cifar10", "test", environ=environ)) == 2
    sums.write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(DataError, match="does not match its SHA-256"):
        load_images("cifar10", "test", environ=environ)
