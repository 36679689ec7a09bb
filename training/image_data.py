"""Reading of the CIFAR image sheets that the image encoder is trained and measured on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

TILE = 32
TILES_A_ROW = 32

# sha256 of the decoded pixels (n, 32, 32, 3) in C order, so that a figure names its data exactly.
PIXEL_SHA256 = {
    ("cifar10", "train20k"): "b895a6ae7ad1c76b7167a64462e57819200e8cd6e3186f621a42ee371d90e124",
    ("cifar10", "test10k"): "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ("cifar100", "train10k"): "1c0fcd3cdd4aa5db2200a60c779daec315cd93923464b84a22db463719069421",
}

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def default_data_root() -> Path:
    """Return the dataset folder: `TOLLKEEPER_DATA`, or `../shared/datasets` beside the checkout."""
    named = os.environ.get("TOLLKEEPER_DATA")
    if named:
        return Path(named)
    return Path(__file__).resolve().parents[2] / "shared" / "datasets"


def read_sheets(root: Path, folder: str, prefix: str) -> tuple[Images, Labels]:
    """Read images that are stored as lossless WebP sheets of 32x32 tiles.

    Args:
        root: Dataset folder.
        folder: Data set inside it, such as `cifar10`.
        prefix: Split, such as `train20k`.

    Returns:
        uint8 images (n, 32, 32, 3) and int64 labels (n,).

    Raises:
        ValueError: The decoded pixels differ from the recorded checksum.
    """
    from PIL import Image

    base = root / folder
    with np.load(base / f"{prefix}_labels.npz") as arrays:
        labels: Labels = arrays["labels"].astype(np.int64)
    parts: list[Images] = []
    while sum(map(len, parts)) < len(labels):
        with Image.open(base / f"{prefix}_sheet_{len(parts):03d}.webp") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        rows = pixels.shape[0] // TILE
        tiles = pixels.reshape(rows, TILE, TILES_A_ROW, TILE, 3).transpose(0, 2, 1, 3, 4)
        parts.append(tiles.reshape(-1, TILE, TILE, 3))
    images = np.ascontiguousarray(np.concatenate(parts)[: len(labels)])
    expected = PIXEL_SHA256.get((folder, prefix))
    if expected is not None and hashlib.sha256(images.tobytes()).hexdigest() != expected:
        raise ValueError(f"{folder}/{prefix}: the pixels differ from the recorded checksum")
    return images, labels


def training_images(root: Path) -> Images:
    """Return the unlabeled training images (30000, 32, 32, 3): CIFAR-10 then CIFAR-100."""
    cifar10, _ = read_sheets(root, "cifar10", "train20k")
    cifar100, _ = read_sheets(root, "cifar100", "train10k")
    return np.concatenate([cifar10, cifar100])
