"""Profiles carry the published constants and refuse impossible ones."""

import dataclasses
import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard import profiles
from tollkeeper.guard.noise import Fresh
from tollkeeper.guard.price import Exponential, Geometric
from tollkeeper.guard.transform import DenseAffine

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
EXPERIMENT = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`:")
METRIC = re.compile(r"(?<![\w/.])[a-z]\w*(?:\.[\w*-]+)+")


def metrics(experiment: str) -> dict[str, Any]:
    """Return the committed metrics of an experiment."""
    found: dict[str, Any] = json.loads((RESULTS / f"{experiment}-cpu.json").read_text())["metrics"]
    return found


def test_sources_of_constants_are_there() -> None:
    """Every experiment and metric that a comment names is in the committed results."""
    lines = Path(profiles.__file__).read_text().splitlines()
    comments = " ".join(line.strip("# ") for line in lines if line.strip().startswith("#"))
    _, *parts = EXPERIMENT.split(comments)
    named = [
        (experiment, metric.rstrip("."))
        for experiment, text in zip(parts[::2], parts[1::2], strict=True)
        for metric in METRIC.findall(re.sub(r"\S+/\S+", "", text))
    ]
    assert len(named) > 15
    for experiment, metric in named:
        assert fnmatch.filter(metrics(experiment), metric), f"{experiment} has no {metric}"


def test_the_knee_is_above_the_account_that_chose_it() -> None:
    """All of Banking77 ends below the knee with every secret of `guard-coverage`."""
    metric = metrics("guard-coverage")["coverage.text.recommended.narrow.all"]
    assert metric["interval"][1] < profiles.RECOMMENDED.price.free_until


def test_the_last_level_ends_below_the_ceiling() -> None:
    """Every level of `recommended` has its step before inputs are refused."""
    price, ceiling = profiles.RECOMMENDED.price, profiles.RECOMMENDED.ceiling
    assert isinstance(price, Geometric)
    assert ceiling is not None
    assert price.knee + price.levels * price.step < ceiling


def test_b4b_2023_holds_the_papers_constants() -> None:
    """Raw features, 20 x 12 signs, λ 1e-6, α 1, β 0.80, absolute fresh noise, dense affine."""
    profile = profiles.get("b4b-2023")
    assert (profile.tables, profile.bits, profile.centered) == (20, 12, False)
    assert profile.price == Exponential(1e-6, 1.0, 0.80)
    assert not profile.in_feature_std
    assert isinstance(profile.noise, Fresh)
    assert isinstance(profile.transform, DenseAffine)
    assert not profile.needs_calibration


@pytest.mark.parametrize("name", profiles.NAMES)
def test_every_name_has_its_profile(name: str) -> None:
    """Listed names are found, under their own name."""
    assert profiles.get(name).name == name


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    """A typing mistake is answered with the choices."""
    with pytest.raises(ConfigurationError, match=r"recommended, b4b-2023.*'recomended'"):
        profiles.get("recomended")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "name"),
        ({"version": 0}, "version"),
        ({"tables": -1}, "tables"),
        ({"tables": 257}, "tables"),
        ({"bits": 0}, "bits"),
        ({"bits": 17}, "bits"),
        ({"landmarks": -1}, "landmarks"),
        ({"landmarks": 5000}, "landmarks"),
        ({"tables": 0}, "landmarks"),
        ({"ceiling": 0.0}, "ceiling"),
        ({"ceiling": 1.5}, "ceiling"),
        ({"price": Exponential(1e-6, 1.0, 0.8)}, "keyed noise"),
    ],
)
def test_each_impossible_setting_is_named(change: dict[str, Any], complaint: str) -> None:
    """A profile that cannot work is refused when it is built."""
    with pytest.raises(ConfigurationError, match=complaint):
        dataclasses.replace(profiles.RECOMMENDED, **change)


def test_all_violations_come_in_one_message() -> None:
    """The operator fixes everything at once."""
    with pytest.raises(ConfigurationError) as raised:
        dataclasses.replace(profiles.RECOMMENDED, version=0, tables=-3, bits=40)
    assert all(word in str(raised.value) for word in ("version", "tables", "bits"))
