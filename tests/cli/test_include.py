"""Promises of `tollkeeper audit include`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tollkeeper.audit.evidence.pool import open_pool

Cli = Callable[..., Any]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of ten different lines, one blank line and one copy."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*(f"text {at}" for at in range(5)), "", "text 1"]) + "\n")
    with path.open("a") as file:
        file.writelines(f"text {at}\n" for at in range(5, 10))
    return path


def test_from_texts_to_a_list_to_train_on(cli: Cli, texts: Path, tmp_path: Path) -> None:
    """The first step commits and the second names a line of each pair by its number."""
    pool = tmp_path / "pool"
    first = cli("audit", "include", texts, "-o", pool, "--json")
    assert first.status == 0, first.err
    told = json.loads(first.out)
    assert (told["pairs"], told["left_out"]) == (5, 1)
    assert "usually takes" in first.err
    assert not (pool / "train.txt").exists()

    second = cli("audit", "include", "-o", pool, "--beacon", "round 7", "--json")
    assert second.status == 0, second.err
    made = json.loads(second.out)
    lines = texts.read_text().splitlines()
    kept = open_pool(pool)
    for name, item in zip(kept.names, kept.items, strict=True):
        assert lines[int(name.rpartition(":")[2]) - 1] == item
    train = Path(made["train"]).read_text().splitlines()
    assert len(train) == 5
    assert Path(made["left_out"]).read_text() == f"{texts}:7\n"
    assert made["pairs"] == 5


def test_pictures_from_a_folder_and_from_an_array(cli: Cli, tmp_path: Path) -> None:
    """Images are pixels named by path, rows of an array are named by number."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, size=(8, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "array.npy", pictures[:4])
    (tmp_path / "folder").mkdir()
    for at in range(4, 8):
        Image.fromarray(pictures[at]).save(tmp_path / "folder" / f"{at}.png")
    words = (tmp_path / "array.npy", tmp_path / "folder", "-o", tmp_path / "pool")
    done = cli("audit", "include", *words)
    assert done.status == 0, done.err
    assert "4 pairs are committed" in done.out

    pool = open_pool(tmp_path / "pool")
    for name, item in zip(pool.names, pool.items, strict=True):
        at = int(name.rpartition(":")[2]) if ":" in name else int(Path(name).stem)
        assert np.array_equal(item, pictures[at])


def test_an_encoder_finds_near_copies_and_what_is_trained_on_anyway(
    cli: Cli, tmp_path: Path
) -> None:
    """They are left out: to hold them back would hold nothing back."""
    (tmp_path / "pool.txt").write_text(
        "how do I open an account\nwhat is the weather today\nhow do I open an account?\n"
        "where is the nearest station\nwhich train goes to the sea\n"
    )
    (tmp_path / "others.txt").write_text("which train goes to the sea\n")
    done = cli(
        "audit",
        "include",
        tmp_path / "pool.txt",
        "-o",
        tmp_path / "pool",
        "--encoder",
        "builtin:text",
        "--others",
        tmp_path / "others.txt",
        "--near",
        "0.95",
        "--json",
    )
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["pairs"] == 1
    left = (tmp_path / "pool" / "left-out.txt").read_text()
    assert f"{tmp_path / 'pool.txt'}:3\n" in left
    assert f"{tmp_path / 'pool.txt'}:5\n" in left


def test_mistakes_are_one_clear_line(cli: Cli, texts: Path, tmp_path: Path) -> None:
    """What was expected and what to do is told, and the exit status is 2."""
    pool = tmp_path / "pool"
    np.save(tmp_path / "floats.npy", np.zeros((4, 6)))
    assert cli("audit", "include", texts, "-o", pool).status == 0
    assert cli("audit", "include", "-o", pool, "--beacon", "7").status == 0
    for words, told in (
        (("-o", pool), "expected inputs to make a pool, or --beacon"),
        ((texts, "-o", pool, "--beacon", "7"), "not both"),
        ((texts, "-o", pool), "a pool is never replaced"),
        (("-o", pool, "--beacon", "8"), "they are tossed once"),
        (("-o", tmp_path / "absent", "--beacon", "8"), "cannot use the key"),
        ((texts, "-o", tmp_path / "new", "--others", texts), "give --encoder"),
        ((tmp_path / "floats.npy", "-o", tmp_path / "new"), "uint8 pictures"),
        ((tmp_path / "absent.txt", "-o", tmp_path / "new"), "cannot read"),
    ):
        done = cli("audit", "include", *words)
        assert done.status == 2
        assert told in done.err
        assert done.err.count("\n") == 1
