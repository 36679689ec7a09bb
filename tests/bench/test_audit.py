"""The audit fails when it should, and only then."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.attacks.names import ATTACKS
from tollkeeper.bench.audit import audit
from tollkeeper.bench.experiment import Experiment, Measurement, Metric, Result
from tollkeeper.bench.registry import EXPERIMENTS, UNMEASURED_PROFILES
from tollkeeper.guard import profiles


@dataclass(frozen=True, slots=True)
class Setting:
    """One tuple, because JSON gives lists back."""

    dims: tuple[int, ...] = (8,)


EXPERIMENT = Experiment(
    id="example",
    title="an example",
    scales={"smoke": Setting(), "cpu": Setting((8, 16))},
    measure=lambda setting, context: Measurement({}),
    promises=("speed.d*", "bytes"),
    covers=("good",),
    attacks={"copy": "speed.*"},
)
GOOD = Result(
    id="example",
    scale="cpu",
    metrics={"speed.d8": Metric(1, "ratio", "lower"), "bytes": Metric(1, "bytes", "lower")},
    diagnostics={},
    manifest={
        "git": {},
        "versions": {},
        "seed": 0,
        "hardware": {},
        "data": {},
        "setting": {"dims": [8, 16]},
    },
)


def problems(folder: Path, **changed: Any) -> list[str]:
    """Audit a folder against the example experiment."""
    arguments: dict[str, Any] = {
        "experiments": (EXPERIMENT,),
        "unmeasured": {"toy": "for tests"},
        "profile_names": ("good", "toy"),
        "idle": {},
        "attack_names": ("copy",),
    }
    return audit(folder, **{**arguments, **changed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a results folder in which all is well."""
    (tmp_path / "example-cpu.json").write_bytes(GOOD.to_json())
    return tmp_path


def test_a_complete_folder_has_no_problems(folder: Path) -> None:
    """Everything measured, fresh and covered: nothing to say."""
    assert problems(folder) == []


def test_missing_result_is_found(tmp_path: Path) -> None:
    """An experiment without its result fails, with the command that makes it."""
    (found,) = problems(tmp_path)
    assert "tollkeeper bench run example --scale cpu" in found


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: replace(r, metrics={"bytes": r.metrics["bytes"]}), r"lacks .* speed\.d\*"),
        (
            lambda r: replace(r, manifest={**r.manifest, "setting": {"dims": [8]}}),
            "other settings",
        ),
        (
            lambda r: replace(
                r, manifest={key: value for key, value in r.manifest.items() if key != "git"}
            ),
            "no 'git'",
        ),
        (lambda r: replace(r, scale="smoke"), "example-smoke"),
        (lambda r: replace(r, id="retired"), "no experiment"),
    ],
)
def test_stale_result_is_found(
    folder: Path, spoil: Callable[[Result], Result], complaint: str
) -> None:
    """Lost metrics, old settings, a thin manifest and a wrong name each fail."""
    (folder / "example-cpu.json").write_bytes(spoil(GOOD).to_json())
    assert any(re.search(complaint, problem) for problem in problems(folder)), problems(folder)


def test_an_attack_is_measured_by_its_own_metric(folder: Path) -> None:
    """Naming an attack is not enough: the committed result must hold what shows it."""
    named = replace(EXPERIMENT, attacks={"copy": "accuracy.copy.*"})
    (found,) = problems(folder, experiments=(named,))
    assert found == (
        "example-cpu.json lacks accuracy.copy.*, the metric of the attack 'copy'; run it again"
    )


@pytest.mark.parametrize("content", [b"not json", b'{"schema": 9}'])
def test_unreadable_result_is_found(folder: Path, content: bytes) -> None:
    """A damaged file and one of another schema fail."""
    (folder / "example-cpu.json").write_bytes(content)
    assert ["example-cpu.json" in problem for problem in problems(folder)] == [True]


def test_stray_file_is_found(folder: Path) -> None:
    """A result that no experiment keeps, such as a smoke run, does not belong here."""
    (folder / "example-smoke.json").write_bytes(replace(GOOD, scale="smoke").to_json())
    (found,) = problems(folder)
    assert found.startswith("example-smoke.json")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"profile_names": ("good", "toy", "fresh")}, "'fresh' is measured by no experiment"),
        ({"unmeasured": {"toy": " "}}, "'toy' is measured by no experiment"),
        ({"profile_names": ("good",)}, "'toy' is covered or excused but does not exist"),
        ({"unmeasured": {"toy": "x", "good": "y"}}, "'good' is excused although"),
    ],
)
def test_profiles_must_be_covered_or_excused(
    folder: Path, changed: dict[str, Any], complaint: str
) -> None:
    """A new profile, a reason of blanks, a gone profile and a needless excuse each fail."""
    (found,) = problems(folder, **changed)
    assert complaint in found


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"attack_names": ("copy", "fresh")}, "attack 'fresh' is measured by no experiment"),
        ({"attack_names": ("copy", "idle"), "idle": {"idle": ""}}, "'idle' is measured by no"),
        ({"attack_names": ()}, "attack 'copy' is covered or excused but does not exist"),
        ({"idle": {"copy": "why"}}, "attack 'copy' is excused although"),
    ],
)
def test_attacks_must_be_measured_or_excused(
    folder: Path, changed: dict[str, Any], complaint: str
) -> None:
    """A public attack that no experiment runs fails the audit, unless there is a reason."""
    (found,) = problems(folder, **changed)
    assert complaint in found


def test_shipped_profiles_are_all_accounted_for(tmp_path: Path) -> None:
    """The real registry leaves no real profile out; only results may be missing here."""
    found = audit(tmp_path)
    assert len(found) == sum(len(experiment.committed) for experiment in EXPERIMENTS)
    assert set(UNMEASURED_PROFILES) < set(profiles.NAMES)
    assert {name for one in EXPERIMENTS for name in one.attacks} <= set(ATTACKS)
