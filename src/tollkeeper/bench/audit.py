"""Keeps the committed results honest: nothing missing, nothing stale, nothing unmeasured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from tollkeeper.attacks.names import ATTACKS
from tollkeeper.bench import registry
from tollkeeper.bench.experiment import BenchError, Experiment, Result, read_result
from tollkeeper.guard import profiles


def audit(
    results: str | Path,
    *,
    experiments: Sequence[Experiment[Any]] = registry.EXPERIMENTS,
    unmeasured: Mapping[str, str] = registry.UNMEASURED_PROFILES,
    profile_names: Sequence[str] = tuple(profiles.NAMES),
    idle: Mapping[str, str] = registry.UNMEASURED_ATTACKS,
    attack_names: Sequence[str] = tuple(ATTACKS),
) -> list[str]:
    """Return one sentence per problem; an empty list means that all is well.

    Args:
        results: folder of the committed result files.
        experiments: those that must have results.
        unmeasured: profiles excused from measurement, with the reason.
        profile_names: public guard profiles.
        idle: attacks excused from measurement, with the reason.
        attack_names: public attacks.
    """
    folder = Path(results)
    return [
        *_missing(folder, experiments),
        *(problem for path in sorted(folder.glob("*")) for problem in _file(path, experiments)),
        *_uncovered(
            "profile",
            {profile for experiment in experiments for profile in experiment.covers},
            unmeasured,
            profile_names,
        ),
        *_uncovered(
            "attack",
            {attack for experiment in experiments for attack in experiment.attacks},
            idle,
            attack_names,
        ),
    ]


def _missing(folder: Path, experiments: Sequence[Experiment[Any]]) -> Iterator[str]:
    for experiment in experiments:
        for scale in experiment.committed:
            name = f"{experiment.id}-{scale}.json"
            if not (folder / name).exists():
                command = f"tollkeeper bench run {experiment.id} --scale {scale}"
                yield f"{name} is missing; run `{command} --json {folder / name}`"


def _file(path: Path, experiments: Sequence[Experiment[Any]]) -> Iterator[str]:
    try:
        result = read_result(path)
    except BenchError as error:
        yield str(error)
        return
    if path.name != f"{result.id}-{result.scale}.json":
        yield f"{path.name} holds {result.id}-{result.scale}; rename or remove it"
    experiment = next((known for known in experiments if known.id == result.id), None)
    if experiment is None or result.scale not in experiment.committed:
        yield f"{path.name} is of no experiment and scale that keeps results; remove it"
        return
    yield from _stale(path.name, result, experiment)


def _stale(name: str, result: Result, experiment: Experiment[Any]) -> Iterator[str]:
    for key in ("git", "versions", "seed", "hardware", "data", "setting"):
        if key not in result.manifest:
            yield f"{name} has no {key!r} in its manifest; run the experiment again"
    setting = msgspec.json.encode(experiment.setting(result.scale))
    if result.manifest.get("setting") != msgspec.json.decode(setting):
        yield f"{name} was measured with other settings than it has now; run it again"
    for pattern in experiment.promises:
        if not _has(result, pattern):
            yield f"{name} lacks the promised metric {pattern}; run the experiment again"
    for attack, pattern in experiment.attacks.items():
        if not _has(result, pattern):
            yield f"{name} lacks {pattern}, the metric of the attack {attack!r}; run it again"


def _has(result: Result, pattern: str) -> bool:
    return any(fnmatchcase(metric, pattern) for metric in result.metrics)


def _uncovered(
    kind: str, covered: set[str], excused: Mapping[str, str], names: Sequence[str]
) -> Iterator[str]:
    for name in names:
        if name not in covered and not excused.get(name, "").strip():
            yield f"{kind} {name!r} is measured by no experiment and excused without a reason"
    for name in sorted({*covered, *excused} - set(names)):
        yield f"{kind} {name!r} is covered or excused but does not exist"
    for name in sorted(covered & set(excused)):
        yield f"{kind} {name!r} is excused although an experiment covers it"
