"""Experiments, metrics and the result file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bench.experiment import (
    BenchError,
    Context,
    Experiment,
    Measurement,
    Metric,
    Result,
    read_result,
)
from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Setting:
    """What the experiment of these tests is made of."""

    dims: tuple[int, ...] = (8, 16)
    repetitions: int = 3
    victim: str = "builtin:text"


EXPERIMENT = Experiment(
    id="example",
    title="an example",
    scales={"smoke": Setting(repetitions=1), "cpu": Setting()},
    measure=lambda setting, context: Measurement({}),
    promises=(),
)

MANIFEST: dict[str, Any] = {"git": {"sha": None, "dirty": None}, "seed": 0}
METRIC = (
    '{"schema": 1, "id": "a", "scale": "cpu", "diagnostics": {}, "manifest": {}, '
    '"metrics": {"m": {"value": %s}}}'
)
finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.builds(
    Metric,
    value=finite,
    unit=st.sampled_from(["ratio", "ms"]),
    direction=st.sampled_from(["lower", "higher"]),
    interval=st.none() | st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair))),
    tolerance=st.floats(0, 1),
)


def test_setting_is_that_of_the_scale() -> None:
    """Without overrides the scale decides."""
    assert EXPERIMENT.setting("smoke") == Setting(repetitions=1)


def test_overrides_take_the_type_of_the_field() -> None:
    """Text becomes numbers, lists of numbers or stays text."""
    texts = {"dims": "32,64", "repetitions": "7", "victim": "onnx:a,b"}
    assert EXPERIMENT.setting("cpu", texts) == Setting((32, 64), 7, "onnx:a,b")


@pytest.mark.parametrize(
    ("scale", "overrides", "complaint"),
    [
        ("huge", {}, "no scale 'huge'; choose smoke, cpu"),
        ("cpu", {"dim": "3"}, "no setting 'dim'; choose dims"),
        ("cpu", {"repetitions": "many"}, "bad setting for 'example'"),
        ("cpu", {"dims": "8,x"}, "bad setting for 'example'"),
    ],
)
def test_bad_settings_are_named(scale: str, overrides: dict[str, str], complaint: str) -> None:
    """An unknown scale, an unknown field and a wrong type each get one clear line."""
    with pytest.raises(ConfigurationError, match=complaint):
        EXPERIMENT.setting(scale, overrides)


@given(st.dictionaries(st.text(min_size=1), metrics))
def test_result_survives_its_file(found: dict[str, Metric]) -> None:
    """Reading what was written gives the same result."""
    result = Result("example", "cpu", found, {"note": [1, 2.5, "x"]}, MANIFEST)
    assert Result.from_json(result.to_json()) == result


def test_file_has_the_published_shape() -> None:
    """The keys are those of the interface page, and nothing else."""
    metric = Metric(1.5, "ratio", "lower", (1.0, 2.0))
    tree = json.loads(Result("example", "cpu", {"m": metric}, {}, MANIFEST).to_json())
    assert tree == {
        "schema": 1,
        "id": "example",
        "scale": "cpu",
        "metrics": {
            "m": {"value": 1.5, "unit": "ratio", "direction": "lower", "interval": [1.0, 2.0]}
        },
        "diagnostics": {},
        "manifest": MANIFEST,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 2, "id": "a", "scale": "cpu"}',
        '{"schema": 1, "id": "a", "scale": "cpu", "metrics": {}, "diagnostics": {}}',
        METRIC % '"1", "unit": "s", "direction": "lower", "interval": null',
        METRIC % '1, "unit": "s", "direction": "up", "interval": null',
    ],
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    """Wrong JSON, schema, fields and types raise, and the message names the file."""
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"bad\.json"):
        read_result(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is a bench error, not a traceback."""
    with pytest.raises(BenchError, match=r"none\.json: No such file"):
        read_result(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("value", "interval"), [(float("nan"), None), (1.0, (0.0, float("inf"))), (1.0, (2.0, 1.0))]
)
def test_metric_must_be_comparable(value: float, interval: tuple[float, float] | None) -> None:
    """NaN, infinity and a reversed interval never become a metric."""
    with pytest.raises(BenchError, match="expected"):
        Metric(value, "ratio", "lower", interval)


def test_context_spawns_reproducible_parts() -> None:
    """The same seed and path draw the same numbers; another path draws others."""
    context = Context(5, lambda: 0.0, lambda *_: None)
    same, again, other = (context.rng(*path).random() for path in [(1, 2), (1, 2), (1, 3)])
    assert same == again != other
