"""Promises of `calibrate` and `embed`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tollkeeper.encoders.cached import answer_to_probe
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.calibrations import read_calibration
from tollkeeper.guard.calibration import Calibration

TEXTS = [f"question {number} about {number * 7} things" for number in range(40)]

TOY = """
import numpy as np

def toy(inputs):
    rows = [[len(text), sum(map(ord, text)), {extra}] for text in inputs]
    return np.array(rows, np.float32)

toy.dim = 3
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A text file, one text per line, with a blank line in it."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([*TEXTS[:20], "", *TEXTS[20:]]) + "\n")
    return file


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Take no permission away from new files."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images of several types and sizes, one of them in a folder below."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for name, side in (("a.png", 32), ("below/c.bmp", 40), ("b.PNG", 20)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_calibrating_on_texts(tmp_path: Path, texts: Path, cli: Callable[..., Any]) -> None:
    """`calibrate` writes what `Calibration.fit` makes of the embedded lines, and says what it is.

    With it goes the encoder's answer to a probe.
    """
    out = tmp_path / "text.cal"
    words = ("--encoder", "builtin:text", "--profile", "cheapest", "--seed", "3", "--json")
    done = cli("calibrate", texts, "-o", out, *words)
    encoder = load_encoder("builtin:text")
    fitted = Calibration.fit(encoder.embed(TEXTS), rng=np.random.default_rng(3))
    fitted = replace(fitted, probe=answer_to_probe(encoder))
    assert out.read_bytes() == fitted.to_bytes()
    assert read_calibration(out).dim == 384
    assert json.loads(done.out) == {
        "file": str(out),
        "width": 384,
        "count": 40,
        "feature_std": fitted.feature_std,
        "free_if_as_wide": None,
    }


def test_calibrating_on_embeddings_loads_no_encoder(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """`.npy` files are the sample as they are; the encoder behind the SPEC need not run."""
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 5)).astype(np.float32) for n in (30, 20)]
    for name, part in zip("ab", parts, strict=True):
        np.save(tmp_path / f"{name}.npy", part)
    files = (tmp_path / "a.npy", tmp_path / "b.npy")
    out = tmp_path / "x.cal"
    words = ("--encoder", "http://127.0.0.1:9/v1#down", "--profile", "cheapest")
    done = cli("calibrate", *files, "-o", out, *words)
    assert done.status == 0
    assert "made from embeddings alone" in done.err
    expected = Calibration.fit(np.concatenate(parts), rng=np.random.default_rng(0))
    assert out.read_bytes() == expected.to_bytes()


def test_embedding_a_folder_of_images(
    tmp_path: Path, images: Path, cli: Callable[..., Any]
) -> None:
    """A folder stands for all images in it, by path, with the pixels that are in the files."""
    out = tmp_path / "x.npy"
    options = ("--encoder", "builtin:image", "-o", out, "--cache-dir", tmp_path / "cache")
    assert cli("embed", images, *options).status == 0
    pixels = [np.asarray(Image.open(images / name)) for name in ("a.png", "b.PNG", "below/c.bmp")]
    clean = load_encoder("builtin:image").embed(pixels)
    np.testing.assert_allclose(np.load(out), clean, atol=1e-6)


def test_the_second_run_comes_from_the_cache(
    tmp_path: Path, texts: Path, cli: Callable[..., Any]
) -> None:
    """What was embedded before is read from the cache, bit for bit; only new texts are embedded."""
    options = ("--encoder", "builtin:text", "--cache-dir", tmp_path / "cache", "--json")
    first = json.loads(cli("embed", texts, "-o", tmp_path / "1.npy", *options).out)
    second = json.loads(cli("embed", texts, "-o", tmp_path / "2.npy", *options).out)
    assert (first["cached"], second["cached"]) == (0, 40)
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    more = tmp_path / "more.txt"
    more.write_text(f"something new\n{TEXTS[3]}\nsomething new\n")
    third = json.loads(cli("embed", more, "-o", tmp_path / "3.npy", *options).out)
    assert (third["count"], third["cached"]) == (3, 1)
    rows = np.load(tmp_path / "3.npy")
    clean = load_encoder("builtin:text").embed(["something new", TEXTS[3], "something new"])
    np.testing.assert_allclose(rows, clean, atol=1e-6)


def test_the_cache_notices_another_encoder(
    tmp_path: Path, texts: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that changed under its name gets none of its former self's embeddings."""
    monkeypatch.syspath_prepend(tmp_path)
    cached = []
    for module, extra in (("toy_one", 1), ("toy_two", 2)):
        (tmp_path / f"{module}.py").write_text(TOY.format(extra=extra))
    for module in ("toy_one", "toy_one", "toy_two"):
        options = ("--encoder", f"python:{module}:toy", "--cache-dir", tmp_path, "--json")
        done = cli("embed", texts, "-o", tmp_path / "x.npy", *options)
        cached.append(json.loads(done.out)["cached"])
    assert cached == [0, 40, 0]
    assert (np.load(tmp_path / "x.npy")[:, 2] == 2).all()


def test_the_cache_holds_no_input(tmp_path: Path, texts: Path, cli: Callable[..., Any]) -> None:
    """The cache file does not contain the texts."""
    options = ("--encoder", "builtin:text", "--cache-dir", tmp_path / "cache")
    cli("embed", texts, "-o", tmp_path / "x.npy", *options)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_size > 40 * 384 * 4
    assert b"question" not in file.read_bytes()


def test_clean_embeddings_are_private(
    tmp_path: Path, texts: Path, cli: Callable[..., Any], open_umask: None
) -> None:
    """Embeddings, calibrations and the cache are for their owner's eyes, whatever the umask."""
    cache = tmp_path / "above" / "cache"
    encoder = ("--encoder", "builtin:text")
    made = [tmp_path / "x.npy", tmp_path / "x.cal", cache / "embeddings.sqlite3"]
    assert cli("embed", texts, "-o", made[0], *encoder, "--cache-dir", cache).status == 0
    words = ("--profile", "cheapest", *encoder)
    assert cli("calibrate", texts, "-o", made[1], *words).status == 0
    assert [file.stat().st_mode & 0o777 for file in made] == [0o600] * 3
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_there_keeps_its_mode(
    tmp_path: Path, texts: Path, cli: Callable[..., Any]
) -> None:
    """Writing over a file replaces all of its content and leaves its permissions to its owner."""
    out = tmp_path / "x.cal"
    out.write_bytes(bytes(10**6))
    out.chmod(0o640)
    words = ("--profile", "cheapest", "--encoder", "builtin:text")
    assert cli("calibrate", texts, "-o", out, *words).status == 0
    assert out.stat().st_mode & 0o777 == 0o640
    assert read_calibration(out).dim == 384


def test_bad_input_is_one_line(tmp_path: Path, texts: Path, cli: Callable[..., Any]) -> None:
    """Whatever cannot be read, embedded or written ends with status 2 and one line that names it."""
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way of a folder")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(64, np.float32))
    np.save(tmp_path / "wide.npy", np.ones((64, 7), np.float32))
    out = ("-o", tmp_path / "out")
    text = ("--encoder", "builtin:text", "--cache-dir", tmp_path / "cache")
    for words, named in (
        (("calibrate", tmp_path / "few.txt", *out), "32"),
        (("calibrate", tmp_path / "flat.npy", *out), "shape"),
        (("calibrate", tmp_path / "wide.npy", *out), "constant"),
        (("calibrate", tmp_path / "wide.npy", texts, *out), "inputs of one width"),
        (("calibrate", tmp_path / "objects.npy", *out), "objects.npy"),
        (("calibrate", tmp_path / "broken.npy", *out), "broken.npy"),
        (("embed", tmp_path / "wide.npy", *out, *text), ".npy"),
        (("embed", tmp_path / "missing.txt", *out, *text), "missing.txt"),
        (("embed", tmp_path / "empty.txt", *out, *text), "empty.txt"),
        (("embed", tmp_path / "binary.txt", *out, *text), "binary.txt"),
        (("embed", tmp_path / "folder", *out, *text), "folder"),
        (("embed", tmp_path / "broken.png", *out, *text), "takes text"),
        (("embed", tmp_path / "broken.png", *out, "--encoder", "builtin:image"), "broken.png"),
        (("embed", texts, "-o", tmp_path / "no" / "folder", *text), "cannot write"),
        (("embed", texts, *out, *text[:2], "--cache-dir", tmp_path / "file"), "cache"),
    ):
        failed = cli(*words)
        assert (failed.status, failed.out) == (2, ""), words
        assert len(failed.err.splitlines()) == 1, failed.err
        assert named in failed.err
    assert not (tmp_path / "out").exists()


def test_a_damaged_cache_is_one_line(tmp_path: Path, texts: Path, cli: Callable[..., Any]) -> None:
    """A cache file that is no database ends with status 2 and says what to do."""
    (tmp_path / "embeddings.sqlite3").write_bytes(b"no database" * 500)
    failed = cli("embed", texts, "-o", tmp_path / "x.npy", "--cache-dir", tmp_path)
    assert failed.status == 2
    assert "delete it" in failed.err
