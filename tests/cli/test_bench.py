"""Promises of `tollkeeper bench`, over an experiment that takes no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.bench import read_result, registry
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric, Result


@dataclass(frozen=True)
class Setting:
    """One number, handed through."""

    value: float = 1.0


def _measure(setting: Setting, context: Context) -> Measurement:
    context.progress(1, 1, "value")
    return Measurement(
        {
            "value": Metric(setting.value, "ratio", "lower"),
            "spread": Metric(2.0, "ms", "lower", interval=(1.5, 2.5)),
        },
        {"seed": context.seed},
    )


@pytest.fixture(autouse=True)
def _one_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(
        id="toy", title="a number", scales={"smoke": Setting()}, measure=_measure, promises=()
    )
    monkeypatch.setattr(registry, "EXPERIMENTS", (experiment,))


def _run(cli: Callable[..., Any], file: Path, value: float) -> None:
    done = cli("bench", "run", "toy", "--set", f"value={value}", "--json", file)
    assert done.status == 0


def test_experiments_are_listed(cli: Callable[..., Any]) -> None:
    """`bench list` names each experiment, its scales and what it asks."""
    assert json.loads(cli("bench", "list", "--json").out) == [
        {"id": "toy", "scales": ["smoke"], "title": "a number"}
    ]
    assert cli("bench", "list").out.splitlines()[1].split() == ["toy", "smoke", "a", "number"]


def test_a_run_is_printed_and_written(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """`bench run` prints the metrics and writes a result file with seed and settings in it."""
    file = tmp_path / "toy.json"
    words = ("bench", "run", "toy", "--scale", "smoke", "--seed", "5", "--set", "value=3.5")
    done = cli(*words, "--json", file)
    assert done.status == 0
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [
        ["value", "3.5"],
        ["spread", "2"],
    ]
    result = read_result(file)
    assert result.metrics["value"].value == 3.5
    assert (result.manifest["seed"], result.manifest["setting"]) == (5, {"value": 3.5})


def test_a_run_with_tables_prints_these(cli: Callable[..., Any], monkeypatch: Any) -> None:
    """Thousands of metrics are for the file; the tables are for the reader."""
    found = replace(registry.find("toy"), report=lambda metrics: f"| {metrics['value'].value} |")
    monkeypatch.setattr(registry, "find", lambda _: found)
    done = cli("bench", "run", "toy", "--set", "value=3.5")
    assert done.out.splitlines() == ["| 3.5 |", "", "2 metrics in all; --json FILE writes them"]
    assert "figures mean nothing" in done.err


def test_a_regression_fails_only_on_request(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """`bench compare` exits with 1 for a worse metric if --fail is given, else with 0."""
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    _run(cli, before, 1.0)
    _run(cli, after, 2.0)
    shown = cli("bench", "compare", before, after)
    assert shown.status == 0
    assert "value   1       2      worse" in shown.out
    assert cli("bench", "compare", before, after, "--fail").status == 1
    assert cli("bench", "compare", after, before, "--fail").status == 0
    rows = json.loads(cli("bench", "compare", before, after, "--json").out)["rows"]
    assert {row["name"]: row["change"] for row in rows} == {"value": "worse", "spread": "same"}


def test_an_audit_with_problems_fails(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """`bench audit` exits with 1 and names what is wrong."""
    (tmp_path / "old-cpu.json").write_text("{}")
    failed = cli("bench", "audit", "--results", tmp_path)
    assert failed.status == 1
    assert "old-cpu.json" in failed.out
    problems = json.loads(cli("bench", "audit", "--results", tmp_path, "--json").out)
    assert "\n".join(problems) == failed.out.strip()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run", "nonsense"), "nonsense"),
        (("run", "toy", "--scale", "huge"), "huge"),
        (("run", "toy", "--set", "value"), "KEY=VALUE"),
        (("run", "toy", "--set", "value=red"), "value"),
        (("run", "toy", "--set", "color=red"), "color"),
        (("run", "toy", "--json", "/nonexistent/x.json"), "/nonexistent/x.json"),
        (("compare", "/nonexistent.json", "/nonexistent.json"), "/nonexistent.json"),
    ],
)
def test_bad_input_is_one_line(cli: Callable[..., Any], words: tuple[str, ...], named: str) -> None:
    """Unknown experiments, scales, settings and files end with status 2 and one line."""
    failed = cli("bench", *words)
    assert (failed.status, failed.out) == (2, "")
    assert named in failed.err.splitlines()[-1]


def test_plots_of_other_results_are_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    """A result without a picture, or no result at all, is one line."""
    (tmp_path / "rda.json").write_bytes(Result("rda", "cpu", {}, {}, {}).to_json())
    for file, named in (("rda.json", "no picture of 'rda'"), ("none.json", "none.json")):
        failed = cli("bench", "plot", tmp_path / file, "-o", tmp_path / "x.svg")
        assert (failed.status, failed.out) == (2, "")
        assert named in failed.err
        assert len(failed.err.splitlines()) == 1
