"""One data set in one process of one thread, in all prediction experiments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tollkeeper.bench.experiment import Context, Measurement, Metric
from tollkeeper.bench.predict.plan import Plan
from tollkeeper.bench.theft.jobs import run_jobs


@dataclass(frozen=True, slots=True)
class Job:
    """One data set's part of an experiment.

    Attributes:
        dataset: of the scene.
        plan: sizes.
        root: seed of the run.
        setting: of the experiment, for what is not in the plan.
    """

    dataset: str
    plan: Plan
    root: int
    setting: Any

    @property
    def name(self) -> str:
        """For progress."""
        return self.dataset

    def rng(self) -> np.random.Generator:
        """Return the generator of this part; other data sets do not change it."""
        return np.random.default_rng([self.root, *self.dataset.encode()])


@dataclass(slots=True)
class Part:
    """What one data set gave.

    Attributes:
        metrics: by name.
        facts: that only inform.
        data: checksums.
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    _begun: list[tuple[str, float]] = field(default_factory=list)

    def tell(self, stage: str) -> None:
        """Note when a stage begins; its seconds are those until the next one."""
        now = time.perf_counter()
        if self._begun:
            before, began = self._begun.pop()
            self.stages[before] = self.stages.get(before, 0.0) + now - began
        self._begun.append((stage, now))

    def done(self) -> Part:
        """Close the last stage."""
        self.tell("")
        self.facts["stages_s"] = {name: round(took, 2) for name, took in self.stages.items()}
        return self


def run_parts(
    function: Callable[[Job], Part],
    setting: Any,
    context: Context,
    *,
    workers: int,
) -> Measurement:
    """Run every data set of a setting (`setting.plans`) and join what they gave."""
    chosen = {name: setting.plans[name] for name in setting.datasets}
    for name, plan in chosen.items():
        plan.check(name)
    jobs = [Job(name, plan, context.seed, setting) for name, plan in chosen.items()]
    context.progress(0, len(jobs), ", ".join(chosen))
    parts = run_jobs(function, jobs, workers=workers, progress=context.progress)
    return Measurement(
        {name: one for part in parts for name, one in part.metrics.items()},
        diagnostics={job.dataset: part.facts for job, part in zip(jobs, parts, strict=True)},
        data={name: digest for part in parts for name, digest in part.data.items()},
    )
