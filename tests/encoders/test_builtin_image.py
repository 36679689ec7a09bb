"""The built-in image encoder: stable rows, useful features, resizing and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, MeasuresUsage
from tollkeeper.encoders.builtin_image import WEIGHTS, ImageEncoder
from tollkeeper.errors import ConfigurationError, InputError

FLOOR = 0.65
"""Least accuracy of the small probe below (68.5% when shipped); the card's uses more images."""


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    """Return the shipped encoder with one thread."""
    return ImageEncoder()


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    """Return 300 random images (300, 32, 32, 3) of mixed smoothness."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def _data_root() -> Path:
    """Return the dataset folder, or skip."""
    named = os.environ.get("TOLLKEEPER_DATA")
    root = Path(named) if named else Path(__file__).parents[3] / "shared" / "datasets"
    if not (root / "cifar10").is_dir():
        pytest.skip("the dataset folder is absent (set TOLLKEEPER_DATA)")
    return root


def _cifar10(prefix: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the first images (count, 32, 32, 3) of a split and their labels."""
    from PIL import Image

    base = _data_root() / "cifar10"
    with np.load(base / f"{prefix}_labels.npz") as arrays:
        labels = arrays["labels"][:count].astype(np.int64)
    sheets: list[Any] = []
    for number in range(-(-count // 1024)):
        with Image.open(base / f"{prefix}_sheet_{number:03d}.webp") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        tiles = pixels.reshape(-1, 32, 32, 32, 3).transpose(0, 2, 1, 3, 4)
        sheets.append(tiles.reshape(-1, 32, 32, 3))
    return np.ascontiguousarray(np.concatenate(sheets)[:count]), labels


def _ridge_accuracy(
    train: NDArray[Any], labels: NDArray[np.int64], test: NDArray[Any], truth: NDArray[np.int64]
) -> float:
    """Fit a ridge classifier on standardized features and return its accuracy."""
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    fitted = ((train - mean) / deviation).astype(np.float64)
    gram = fitted.T @ fitted + 0.05 * len(fitted) * np.eye(fitted.shape[1])
    weights = np.linalg.solve(gram, fitted.T @ (np.eye(10)[labels] - 0.1))
    return float(((((test - mean) / deviation) @ weights).argmax(axis=1) == truth).mean())


def test_meets_the_encoder_protocol(encoder: ImageEncoder) -> None:
    """The encoder has the interface that the gateway asks for."""
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, MeasuresUsage)
    assert encoder.name == "tollkeeper-image"
    assert encoder.accepts == frozenset({"image"})
    assert encoder.dim >= 256


def test_output_is_finite_nonnegative_float32(
    encoder: ImageEncoder, noise: NDArray[np.uint8]
) -> None:
    """Embeddings are pooled ReLU outputs: float32, finite and never below zero."""
    rows = encoder.embed(noise[:40])
    assert rows.shape == (40, encoder.dim)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert rows.std(axis=0).max() > 0


@pytest.mark.parametrize("batch", [1, 2, 7, 32, 256])
def test_row_bytes_do_not_depend_on_the_batch(
    encoder: ImageEncoder, noise: NDArray[np.uint8], batch: int
) -> None:
    """A row has the same bytes in every batch size and at every place."""
    whole = encoder.embed(noise)
    parts = [encoder.embed(noise[i : i + batch]) for i in range(0, len(noise), batch)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert encoder.embed(noise[::-1].copy())[::-1].tobytes() == whole.tobytes()


def test_row_bytes_do_not_depend_on_threads(
    encoder: ImageEncoder, noise: NDArray[np.uint8]
) -> None:
    """Two threads answer with the same bytes as one."""
    other = ImageEncoder(intra_op_num_threads=2)
    assert other.embed(noise[:33]).tobytes() == encoder.embed(noise[:33]).tobytes()


def test_no_inputs_give_no_rows(encoder: ImageEncoder) -> None:
    """An empty batch is answered with an empty array of the right width."""
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_usage_is_one_token_an_image(encoder: ImageEncoder, noise: NDArray[np.uint8]) -> None:
    """Usage counts images, whatever their size."""
    big = noise[0].repeat(3, axis=0)
    rows, tokens = encoder.embed_measured([noise[0], big, noise[1]])
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [1, 1, 1]
    assert rows.tobytes() == encoder.embed([noise[0], big, noise[1]]).tobytes()


def test_images_of_the_network_s_size_pass_unchanged(
    encoder: ImageEncoder, noise: NDArray[np.uint8]
) -> None:
    """A 32x32 image reaches the network bit for bit, also as a strided view."""
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, ::2] = noise[0]
    assert encoder.embed([wide[:, ::2]]).tobytes() == encoder.embed(noise[:1]).tobytes()


def test_larger_images_are_resized(encoder: ImageEncoder) -> None:
    """A scene drawn large lands nearer to the same scene drawn at 32x32 than to any other."""
    from PIL import Image

    scenes = np.random.default_rng(3).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)

    def drawn(width: int, height: int) -> list[NDArray[np.uint8]]:
        size, smooth = (width, height), Image.Resampling.BICUBIC
        return [np.asarray(Image.fromarray(scene).resize(size, smooth)) for scene in scenes]

    rows, small = encoder.embed(drawn(160, 128)), encoder.embed(drawn(32, 32))
    distances = np.linalg.norm(rows[:, None] - small[None], axis=2)
    assert (distances.argmin(axis=1) == np.arange(20)).all()


def test_resizing_is_antialiased(encoder: ImageEncoder) -> None:
    """A fine checkerboard becomes even gray instead of an alias pattern."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    gray = np.full((32, 32, 3), 128, np.uint8)
    rows = encoder.embed([np.repeat(board[:, :, None], 3, axis=2), gray])
    assert np.abs(rows[0] - rows[1]).max() < 0.2


def test_tiny_and_uneven_images_are_answered(encoder: ImageEncoder) -> None:
    """One pixel and a thin strip are valid images."""
    rows = encoder.embed([np.full((1, 1, 3), 90, np.uint8), np.full((3, 500, 3), 90, np.uint8)])
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((32, 32, 3), np.float32), "uint8"),
        (np.zeros((32, 32), np.uint8), "shape"),
        (np.zeros((32, 32, 4), np.uint8), "shape"),
        (np.zeros((0, 32, 3), np.uint8), "shape"),
        (np.zeros((3, 32, 32), np.uint8), "shape"),
        ("a cat", "str"),
        ([[1, 2], [3, 4]], "list"),
    ],
)
def test_unusable_inputs_are_refused(encoder: ImageEncoder, bad: object, words: str) -> None:
    """The error names the position, the expectation and what came."""
    good = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(InputError, match=f"input 1: expected.*{words}") as caught:
        encoder.embed([good, bad])
    assert caught.value.param == "input"


def test_missing_and_broken_weights_are_named(tmp_path: Path) -> None:
    """A lost or damaged file is a configuration error, not a crash."""
    with pytest.raises(ConfigurationError, match="found nothing"):
        ImageEncoder(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match="not a usable ONNX file"):
        ImageEncoder(broken)


def test_weights_fit_the_package() -> None:
    """The network stays under 8 MB."""
    assert WEIGHTS.stat().st_size < 8_000_000


def test_importing_the_module_is_cheap() -> None:
    """Importing loads neither onnxruntime nor Pillow."""
    program = (
        "import sys, tollkeeper.encoders.builtin_image as module\n"
        "assert module.ImageEncoder.name\n"
        "print([name for name in ('onnxruntime', 'PIL') if name in sys.modules])"
    )
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_calibration_fits_the_encoder(encoder: ImageEncoder) -> None:
    """The calibration sample has the encoder's width and agrees with its own mean."""
    with np.load(WEIGHTS.with_name("image-calibration.npz")) as arrays:
        mean, sample = arrays["mean"], arrays["sample"].astype(np.float32)
        assert mean.shape == (encoder.dim,)
        assert mean.dtype == np.float32
        assert arrays["sample"].dtype == np.float16
        assert sample.shape == (512, encoder.dim)
        assert int(arrays["count"]) == 30_000
        spread = float(arrays["feature_std"])
    assert np.abs(sample.mean(axis=0) - mean).max() < 0.5 * spread
    assert float(np.sqrt(sample.var(axis=0).mean())) == pytest.approx(spread, rel=0.1)


def test_features_beat_raw_pixels(encoder: ImageEncoder) -> None:
    """A linear probe on 4,000 real images is far above the same probe on pixels."""
    train, labels = _cifar10("train20k", 4000)
    test, truth = _cifar10("test10k", 2000)
    accuracy = _ridge_accuracy(encoder.embed(train), labels, encoder.embed(test), truth)
    pixels = _ridge_accuracy(
        train.reshape(4000, -1) / 255.0, labels, test.reshape(2000, -1) / 255.0, truth
    )
    assert accuracy > FLOOR
    assert accuracy > pixels + 0.15
