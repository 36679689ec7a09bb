"""Promises of the image data sets: real ones where they lie, tiny ones for what can go wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tollkeeper.data import Dataset, load_images
from tollkeeper.errors import DataError

SHAPES = {
    ("cifar10", "train"): (20_000, 32, 10),
    ("cifar10", "test"): (10_000, 32, 10),
    ("cifar100", "train"): (10_000, 32, 100),
    ("cifar100", "test"): (2_000, 32, 100),
    ("gtsrb32", "train"): (3_920, 32, 43),
    ("gtsrb32", "test"): (5_000, 32, 43),
    ("tiny_imagenet", "train"): (10_000, 64, 200),
    ("mnist", "train"): (60_000, 28, 10),
    ("mnist", "test"): (10_000, 28, 10),
    ("fashion_mnist", "train"): (60_000, 28, 10),
    ("fashion_mnist", "test"): (10_000, 28, 10),
    ("kmnist", "test"): (10_000, 28, 10),
    ("emnist_letters", "train"): (26_000, 28, 26),
    ("emnist_letters", "test"): (20_800, 28, 26),
}
PARTS = {
    ("cifar10", "train"): "first 2,000 of each class",
    ("cifar100", "train"): "first 100 of each class",
    ("cifar100", "test"): "first 20 of each class",
    ("gtsrb32", "train"): "frames 9, 19 and 29 of each track",
    ("gtsrb32", "test"): "first 5,000",
    ("tiny_imagenet", "train"): "first 50 of each class",
    ("emnist_letters", "train"): "first 1,000 of each letter",
}
# SHA-256 of the decoded pixels, as published with the folder of data sets.
PIXELS = {
    ("cifar10", "test"): "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ("cifar100", "test"): "7e5992edc38f1c88bc0034b84cb1da4d31805c9f5f5b07ec51c0fa8fee2bb586",
    ("gtsrb32", "test"): "1a96c1cb1aa6f4e8b4d57c5a98f0bb54b7d3bd95785e03067e3ba8ef79c8fb17",
}


def real(name: str, split: str) -> Dataset:
    """Load a real data set, or skip where it does not lie, or lies in full."""
    try:
        data = load_images(name, split)
    except DataError as error:
        if "not found" in str(error):
            pytest.skip(str(error))
        raise
    if (name, split) in PARTS and not data.subset:
        pytest.skip(f"all of {name} {split} lies here, not the part that is known")
    assert data.subset == PARTS.get((name, split), "")
    return data


@pytest.mark.parametrize(("name", "split"), SHAPES)
def test_real_shapes_and_classes(name: str, split: str) -> None:
    """Each split has its size, is RGB, and every class occurs."""
    data = real(name, split)
    size, side, classes = SHAPES[name, split]
    assert isinstance(data.inputs, np.ndarray)
    assert data.inputs.shape == (size, side, side, 3)
    assert data.inputs.dtype == np.uint8
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert len(data.classes) == len(set(data.classes)) == classes
    assert set(data.labels.tolist()) == set(range(classes))
    if (name, split) in PIXELS:
        assert hashlib.sha256(data.inputs.tobytes()).hexdigest() == PIXELS[name, split]


def test_real_letters_are_upright() -> None:
    """Upright, the mean letter L has its ink below and the mean T has it above."""
    data = real("emnist_letters", "test")
    assert isinstance(data.inputs, np.ndarray)
    assert data.labels is not None
    for letter, is_below in (("L", True), ("T", False)):
        mean = data.inputs[data.labels == data.classes.index(letter)][..., 0].mean(axis=0)
        assert (mean[18:].sum() > mean[:10].sum()) == is_below


def idx(array: NDArray[np.uint8], *, magic: bytes = b"\x00\x00\x08") -> bytes:
    """Return an array as a gzipped idx file."""
    header = magic + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes())


def place(tmp_path: Path, folder: str, files: dict[str, bytes]) -> dict[str, str]:
    """Write files of one set and return the environment that points there."""
    (tmp_path / folder).mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / folder / name).write_bytes(content)
    return {"TOLLKEEPER_DATA": str(tmp_path)}


GRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def mnist(
    images: bytes = idx(GRAY), labels: bytes = idx(np.array([7, 0], np.uint8))
) -> dict[str, bytes]:
    """Return the files of a two-image MNIST test split."""
    return {"t10k-images-idx3-ubyte.gz": images, "t10k-labels-idx1-ubyte.gz": labels}


def test_handmade_idx_becomes_rgb(tmp_path: Path) -> None:
    """Gray images come in row order with three equal channels."""
    data = load_images("mnist", "test", environ=place(tmp_path, "mnist", mnist()))
    for channel in range(3):
        np.testing.assert_array_equal(np.asarray(data.inputs)[..., channel], GRAY)
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["7", "0"]


def test_handmade_letters_are_transposed_and_counted_from_zero(tmp_path: Path) -> None:
    """EMNIST's own order of pixels and labels is undone."""
    files = {
        "emnist-letters-test-images-idx3-ubyte.gz": idx(GRAY),
        "emnist-letters-test-labels-idx1-ubyte.gz": idx(np.array([1, 26], np.uint8)),
    }
    data = load_images("emnist_letters", "test", environ=place(tmp_path, "emnist-letters", files))
    np.testing.assert_array_equal(np.asarray(data.inputs)[..., 0], GRAY.transpose(0, 2, 1))
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["A", "Z"]


@pytest.mark.parametrize(
    "files",
    [
        mnist(images=b"no gzip"),
        mnist(images=idx(GRAY)[:-9]),
        mnist(images=gzip.compress(b"\x00\x00\x08\x03\x00\x00")),
        mnist(images=idx(GRAY, magic=b"\x00\x00\x0d")),
        mnist(images=gzip.compress(gzip.decompress(idx(GRAY))[:-1])),
        mnist(labels=idx(np.array([7], np.uint8))),
        mnist(labels=idx(np.array([7, 10], np.uint8))),
        {"t10k-images-idx3-ubyte.gz": idx(GRAY)},
    ],
)
def test_damaged_idx_files_are_data_errors(tmp_path: Path, files: dict[str, bytes]) -> None:
    """No gzip, cut short, another type, other counts, a foreign label, a missing file."""
    with pytest.raises(DataError, match="mnist"):
        load_images("mnist", "test", environ=place(tmp_path, "mnist", files))


def sheet(tiles: NDArray[np.uint8]) -> bytes:
    """Lay (m, 32, 32, 3) tiles into rows of 32 with plain loops; return lossless WebP."""
    rows = -(-len(tiles) // 32)
    canvas = np.zeros((rows * 32, 1024, 3), np.uint8)
    for i, tile in enumerate(tiles):
        top, left = 32 * (i // 32), 32 * (i % 32)
        canvas[top : top + 32, left : left + 32] = tile
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def labels_file(labels: list[int]) -> bytes:
    """Return labels as an npz."""
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.array(labels))
    return buffer.getvalue()


TILES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def cifar10() -> dict[str, bytes]:
    """Return the files of a 40-image CIFAR-10 test split: a full sheet row, then a padded one."""
    return {
        "test10k_labels.npz": labels_file([i % 10 for i in range(40)]),
        "test10k_sheet_000.webp": sheet(TILES[:32]),
        "test10k_sheet_001.webp": sheet(TILES[32:]),
        "class_names.txt": "\n".join(map(str, range(10))).encode(),
    }


def test_handmade_sheets_are_cut_in_order(tmp_path: Path) -> None:
    """Tiles come row by row from sheet after sheet, without the padding."""
    data = load_images("cifar10", "test", environ=place(tmp_path, "cifar10", cifar10()))
    np.testing.assert_array_equal(data.inputs, TILES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test10k_sheet_001.webp", None),
        ("test10k_sheet_001.webp", b"RIFF"),
        ("test10k_labels.npz", b"PK"),
        ("test10k_labels.npz", labels_file([0] * 100)),
        ("class_names.txt", b"one\ntwo\n"),
    ],
)
def test_damaged_sheets_are_data_errors(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A missing or broken sheet, broken labels, too few images or classes are told."""
    files = cifar10()
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(DataError, match="cifar10"):
        load_images("cifar10", "test", environ=place(tmp_path, "cifar10", files))


def tiny_imagenet(
    member: str = "train/n2/images/n2_0.JPEG", picture: bytes | None = None
) -> dict[str, bytes]:
    """Return the files of a one-image Tiny ImageNet."""
    if picture is None:
        buffer = io.BytesIO()
        Image.new("L", (64, 64), 200).save(buffer, "JPEG")
        picture = buffer.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr(member, picture)
    return {
        "tiny-imagenet-200-train-first50.zip": archive.getvalue(),
        "wnids.txt": b"n1\nn2\n",
        "words200.txt": b"n2\ttwo, second\nn1\tone\n",
    }


def test_handmade_tiny_imagenet(tmp_path: Path) -> None:
    """Gray JPEGs become RGB; the label follows wnids.txt and the name words200.txt."""
    environ = place(tmp_path, "tiny-imagenet", tiny_imagenet())
    data = load_images("tiny_imagenet", "train", environ=environ)
    assert np.asarray(data.inputs).shape == (1, 64, 64, 3)
    assert np.abs(np.asarray(data.inputs).astype(int) - 200).max() <= 2
    assert data.labels is not None
    assert (data.labels.tolist(), data.classes) == ([1], ("one", "two, second"))


@pytest.mark.parametrize(
    "files",
    [
        tiny_imagenet(member="train/n3/x.JPEG"),
        tiny_imagenet(member="x.JPEG"),
        tiny_imagenet(picture=b"no picture"),
        {**tiny_imagenet(), "tiny-imagenet-200-train-first50.zip": b"PK"},
        {**tiny_imagenet(), "words200.txt": b"n1\tone\n"},
    ],
)
def test_damaged_archives_are_data_errors(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A foreign class, a misplaced member, a broken picture or archive, a missing name."""
    with pytest.raises(DataError, match="tiny-imagenet"):
        load_images("tiny_imagenet", "train", environ=place(tmp_path, "tiny-imagenet", files))


@pytest.mark.parametrize(
    ("name", "split", "words"),
    [
        ("imagenet", "train", "unknown image data set 'imagenet'.*cifar10"),
        ("kmnist", "val", "no split 'val'; expected one of train, test"),
    ],
)
def test_unknown_names_list_the_known_ones(name: str, split: str, words: str) -> None:
    """A wrong name or split is told with what there is."""
    with pytest.raises(DataError, match=words):
        load_images(name, split, environ={})
