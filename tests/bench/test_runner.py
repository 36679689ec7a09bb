"""Running an experiment and describing where its numbers come from."""

from __future__ import annotations

import io
import json
import socket
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from tollkeeper.bench import manifest, registry
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric, Result
from tollkeeper.bench.runner import progress_bar, run, run_experiment
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.clock import FakeClock


@dataclass(frozen=True, slots=True)
class Setting:
    """How often to look at the clock."""

    looks: int = 3


def measure(setting: Setting, context: Context) -> Measurement:
    """Report how long the looks took, by the clock handed in."""
    started = context.clock()
    for look in range(setting.looks):
        context.progress(look, setting.looks, "looking")
        took = context.clock() - started
    return Measurement({"took": Metric(took, "s", "lower")}, hardware={"blas_threads": 1})


EXPERIMENT = Experiment("example", "an example", {"cpu": Setting()}, measure, promises=("took",))


def test_run_uses_the_clock_and_seed_it_is_given() -> None:
    """The measurement sees exactly the context, and the manifest records it."""
    steps: list[tuple[int, int, str]] = []
    context = Context(7, FakeClock(step=2.0), lambda *step: steps.append(step))
    result = run_experiment(EXPERIMENT, "cpu", Setting(2), context)
    assert result.metrics == {"took": Metric(4.0, "s", "lower")}
    assert steps == [(0, 2, "looking"), (1, 2, "looking")]
    assert result.manifest["seed"] == 7
    assert result.manifest["setting"] == {"looks": 2}
    assert result.manifest["hardware"]["blas_threads"] == 1
    assert Result.from_json(result.to_json()) == result


def test_manifest_tells_versions_and_hardware_but_not_the_machine() -> None:
    """It names code, versions and processor; never the host, the user or a path."""
    found = {"git": manifest.git(), "versions": manifest.versions(), "hw": manifest.hardware()}
    assert set(found["git"]) == {"sha", "dirty"}
    assert {"python", "numpy", "tollkeeper"} <= set(found["versions"])
    assert found["hw"]["cores"] >= 1
    text = json.dumps(found)
    for secret in (socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert secret not in text


def test_git_is_unknown_outside_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git the manifest says None and does not fail."""
    monkeypatch.setenv("PATH", "")
    assert manifest.git() == {"sha": None, "dirty": None}


def test_unknown_experiment_names_the_known_ones() -> None:
    """A wrong id is answered with the right ones."""
    with pytest.raises(
        ConfigurationError, match="choose guard-speed, guard-coverage, gateway-overhead"
    ):
        run("guard-sped", "smoke")


def test_ids_are_unique_and_listed() -> None:
    """No two experiments share an id, and each has a smoke scale and its committed ones."""
    listed = registry.main_list()
    assert len({experiment.id for experiment in listed}) == len(listed)
    for experiment in listed:
        assert {"smoke", *experiment.committed} <= set(experiment.scales)


def test_progress_bar_stays_off_standard_output() -> None:
    """Whatever is drawn goes to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), progress_bar("example") as progress:
        progress(1, 2, "half way")
    assert out.getvalue() == ""
