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
    assert made["usual_knee"] == 0.84
    assert "this knee is below the usual 0.84" in done.err
    assert "to show a false-penalty rate" not in done.err
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


def test_a_rate_takes_as_many_accounts_as_it_says(cli: Callable[..., Any], files: Path) -> None:
    """Two accounts say nothing of a twentieth; without accounts there is no rate at all."""
    sample = (files / "sample.npy", "-o", files / "made.cal", "--false-penalty", "0.05")
    traffic = ("--traffic", files / "shop.npy", "--traffic", files / "bank.npy")
    done = cli("calibrate", *sample, *traffic)
    assert "a false-penalty rate of 0.05 takes 20 accounts, got 2" in done.err
    failed = cli("calibrate", *sample)
    assert (failed.status, "--false-penalty is a share of accounts" in failed.err) == (2, True)


def test_an_account_that_goes_everywhere_chooses_no_knee(
    cli: Callable[..., Any], files: Path
) -> None:
    """A knee that nobody passes would switch the guard off: the account is named instead."""
    np.save(files / "crawl.npy", rows(50, 4000))
    traffic = ("--traffic", files / "shop.npy", "--traffic", files / "crawl.npy")
    sample = (files / "sample.npy", "-o", files / "x.cal")
    failed = cli("calibrate", *sample, *traffic)
    assert (failed.status, failed.out) == (2, "")
    assert "account 'crawl' goes everywhere in the sample" in failed.err
    assert not (files / "x.cal").exists()
    assert cli("calibrate", *sample, *traffic, "--false-penalty", "0.5").status == 0


def test_inputs_of_two_widths_are_refused(cli: Callable[..., Any], files: Path) -> None:
    """Rows of two encoders do not make one sample."""
    np.save(files / "other.npy", rows(50, 300)[:, :32])
    words = (files / "sample.npy", files / "other.npy", "-o", files / "x.cal")
    failed = cli("calibrate", *words)
    assert failed.status == 2
    assert "inputs of one width, got rows of shapes (32,) and (64,)" in failed.err


def test_a_sample_too_small_for_its_profile_is_refused(
    cli: Callable[..., Any], files: Path
) -> None:
    """What `serve` would refuse is not written: too few rows, or too few different ones."""
    np.save(files / "repeats.npy", np.tile(np.load(files / "few.npy"), (12, 1)))
    for name in ("few", "repeats"):
        failed = cli("calibrate", files / f"{name}.npy", "-o", files / "x.cal")
        assert (failed.status, failed.out) == (2, "")
        assert "at least 256 different embeddings for landmarks, got 100" in failed.err
        assert not (files / "x.cal").exists()
    words = ("calibrate", files / "few.npy", "-o", files / "x.cal", "--profile", "cheapest")
    assert cli(*words).status == 0


def test_small_samples_are_warned_of(cli: Callable[..., Any], files: Path) -> None:
    """Too few to be steady, or to compare accounts with: the file is written, and the user told."""
    done = cli("calibrate", files / "shop.npy", "-o", files / "made.cal")
    assert "a sample of 600 different inputs is small" in done.err
    np.save(files / "half.npy", rows(50, 500))
    traffic = ("--traffic", files / "news.npy")
    done = cli("calibrate", files / "half.npy", "-o", files / "made.cal", *traffic)
    assert done.status == 0
    assert "to tell whether an account is as wide" in done.err


def test_a_sample_says_when_an_account_as_wide_pays(cli: Callable[..., Any], files: Path) -> None:
    """Without accounts nobody has looked whether customers are narrower than the sample.

    A sample of one narrow task looks like any other, and that task's own customer pays.
    """
    np.save(files / "one-task.npy", rows(1, 3000))
    done = cli("calibrate", files / "one-task.npy", "-o", files / "made.cal", "--json")
    free = json.loads(done.out)["free_if_as_wide"]
    assert 215 <= free < 2488  # .84 of 256 landmarks, and fewer than were not kept
    assert f"an account as wide as this sample pays after {free} inputs" in done.err
    np.save(files / "shop.npy", rows(1, 600))
    traffic = ("--traffic", files / "shop.npy")
    done = cli("calibrate", files / "one-task.npy", "-o", files / "made.cal", *traffic)
    assert "shop is nearly as wide as the sample" in done.err
    assert "as wide as this sample pays" not in done.err


def test_an_account_that_the_sample_does_not_hold_is_named(
    cli: Callable[..., Any], files: Path
) -> None:
    """What an account asks elsewhere scatters over landmarks that mean nothing there."""
    np.save(files / "one-task.npy", rows(3, 1200))
    np.save(files / "same-task.npy", rows(3, 600))
    traffic = ("--traffic", files / "news.npy", "--traffic", files / "same-task.npy")
    done = cli("calibrate", files / "one-task.npy", "-o", files / "made.cal", *traffic)
    assert "news asks what the sample does not hold: 9" in done.err
    assert "same-task asks" not in done.err
    done = cli("calibrate", files / "sample.npy", "-o", files / "made.cal", *traffic)
    assert "asks what the sample does not hold" not in done.err


def test_short_accounts_choose_no_knee(cli: Callable[..., Any], files: Path) -> None:
    """A log of few different inputs ends before its account does: alone refused, else named."""
    np.save(files / "one.npy", rows(1, 1))
    np.save(files / "retries.npy", np.tile(rows(2, 20), (50, 1)))
    short = ("--traffic", files / "one.npy", "--traffic", files / "retries.npy")
    sample = (files / "sample.npy", "-o", files / "x.cal")
    failed = cli("calibrate", *sample, *short)
    assert (failed.status, failed.out) == (2, "")
    assert "at least 256 different inputs to choose a knee by, got at most 20" in failed.err
    assert not (files / "x.cal").exists()
    done = cli("calibrate", *sample, *short, "--traffic", files / "shop.npy")
    assert done.status == 0
    assert "one has only 1 different inputs" in done.err
    assert "nearly as wide" not in done.err


def test_bad_words_are_one_line(cli: Callable[..., Any], files: Path) -> None:
    """An impossible rate, a plot of nothing, another width."""
    np.save(files / "nan.npy", np.full((300, 64), np.nan, np.float32))
    np.save(files / "narrow.npy", RNG.standard_normal((300, 8)).astype(np.float32))
    sample = (files / "sample.npy", "-o", files / "x.cal")
    for words, named in (
        (("--plot", files / "p.svg"), "--traffic"),
        (("--traffic", files / "shop.npy", "--false-penalty", "1"), "false-penalty rate"),
        (("--traffic", files / "narrow.npy"), "shape"),
        (("--traffic", files / "shop.npy", "--profile", "none"), "none has no knee"),
        (("--traffic", files / "shop.npy", "--profile", "b4b-2023"), "b4b-2023 has no knee"),
        (("--traffic", files / "nan.npy"), "nan.npy holds NaN"),
    ):
        failed = cli("calibrate", *sample, *words)
        assert (failed.status, failed.out) == (2, ""), words
        assert named in failed.err
        assert len(failed.err.splitlines()) == 1
