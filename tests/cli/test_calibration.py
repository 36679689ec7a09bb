"""Promises of `calibrate --traffic`: a knee, what each account pays at it, and warnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tollkeeper.guard.calibration import Calibration

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((50, 64))


def rows(which: int, count: int) -> Any:
    """Return embeddings around the first `which` centers."""
    chosen = CENTERS[RNG.integers(0, which, count)]
    return (chosen + 0.3 * RNG.standard_normal((count, 64))).astype(np.float32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A broad sample, two narrow accounts and one as broad as the sample."""
    for name, which, count in (
        ("sample", 50, 1200),
        ("shop", 2, 600),
        ("bank", 5, 600),
        ("news", 50, 600),
        ("few", 50, 100),
    ):
        np.save(tmp_path / f"{name}.npy", rows(which, count))
    return tmp_path


def test_the_knee_is_above_every_honest_account(cli: Callable[..., Any], files: Path) -> None:
    """Nobody pays at a rate of 0; the file holds the knee, the picture every account."""
    out, plot = files / "made.cal", files / "made.svg"
    traffic = ("--traffic", files / "shop.npy", "--traffic", files / "bank.npy")
    done = cli("calibrate", files / "sample.npy", "-o", out, *traffic, "--plot", plot, "--json")
    assert done.status == 0, done.err
    made = json.loads(done.out)
    assert [one["free"] for one in made["accounts"]] == [600, 600]
    assert not any(one["noise"] or one["refused"] for one in made["accounts"])
    assert Calibration.from_bytes(out.read_bytes()).knee == made["knee"]
    assert max(one["signal"] for one in made["accounts"]) < made["knee"] < 0.6
    assert "cannot show a false-penalty rate below 0.5" in done.err
    words = " ".join(ET.fromstring(plot.read_text()).itertext())  # noqa: S314 - our own file
    assert all(name in words for name in ("shop", "bank", "knee"))


def test_a_rate_lets_the_widest_pay(cli: Callable[..., Any], files: Path) -> None:
    """The account as wide as the sample pays, and the operator is told what it looks like."""
    traffic = [
        word for name in ("shop", "bank", "news") for word in ("--traffic", files / f"{name}.npy")
    ]
    words = (files / "sample.npy", "-o", files / "made.cal", *traffic, "--false-penalty", "0.34")
    done = cli("calibrate", *words)
    assert done.status == 0, done.err
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert "no noise" in lines["bank"]
    assert "no noise" not in lines["news"]
    assert "news is nearly as wide as the sample" in done.err
    assert "shop" not in done.err


def test_small_samples_are_warned_of(cli: Callable[..., Any], files: Path) -> None:
    """Too few for the profile, or too few to be steady: the file is written, and the user told."""
    done = cli("calibrate", files / "few.npy", "-o", files / "made.cal")
    assert done.status == 0
    assert "needs a sample of at least 256 different inputs" in done.err
    done = cli("calibrate", files / "shop.npy", "-o", files / "made.cal")
    assert "a sample of 600 is small" in done.err
    traffic = ("--traffic", files / "news.npy")
    np.save(files / "half.npy", rows(50, 500))
    done = cli("calibrate", files / "half.npy", "-o", files / "made.cal", *traffic)
    assert "cannot be told whether an account is as wide" in done.err
    failed = cli(
        "calibrate", files / "few.npy", "-o", files / "x.cal", "--traffic", files / "shop.npy"
    )
    assert failed.status == 2
    assert "at least 256 different embeddings" in failed.err
    assert not (files / "x.cal").exists()


def test_bad_words_are_one_line(cli: Callable[..., Any], files: Path) -> None:
    """An impossible rate, a plot of nothing, another width."""
    np.save(files / "narrow.npy", RNG.standard_normal((300, 8)).astype(np.float32))
    sample = (files / "sample.npy", "-o", files / "x.cal")
    for words, named in (
        (("--plot", files / "p.svg"), "--traffic"),
        (("--traffic", files / "shop.npy", "--false-penalty", "1"), "false-penalty rate"),
        (("--traffic", files / "narrow.npy"), "shape"),
        (("--traffic", files / "shop.npy", "--profile", "none"), "measures nothing"),
    ):
        failed = cli("calibrate", *sample, *words)
        assert (failed.status, failed.out) == (2, ""), words
        assert named in failed.err
        assert len(failed.err.splitlines()) == 1
