"""Run one experiment and wrap its numbers with where they come from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from tollkeeper.bench import manifest, registry
from tollkeeper.bench.experiment import Context, Experiment, Progress, Result


def run(
    experiment_id: str,
    scale: str,
    *,
    seed: int = 0,
    overrides: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run an experiment of the registry.

    Args:
        experiment_id: for example `guard-speed`.
        scale: `smoke`, `cpu` or `gpu`.
        seed: root of all randomness.
        overrides: setting name to text, as `--set` gives them.
        progress: told after each step; None is silent.

    Returns:
        The result with its manifest.

    Raises:
        ConfigurationError: unknown experiment, scale or setting.
        BenchError: it could not be measured.
    """
    experiment = registry.find(experiment_id)
    setting = experiment.setting(scale, overrides)
    context = Context(seed, time.perf_counter, progress or _silent)
    return run_experiment(experiment, scale, setting, context)


def run_experiment(
    experiment: Experiment[Any], scale: str, setting: Any, context: Context
) -> Result:
    """Measure `setting` and add the manifest."""
    measured = experiment.measure(setting, context)
    return Result(
        id=experiment.id,
        scale=scale,
        metrics=dict(measured.metrics),
        diagnostics=dict(measured.diagnostics),
        manifest={
            "git": manifest.git(),
            "versions": manifest.versions(),
            "seed": context.seed,
            "hardware": {**manifest.hardware(), **measured.hardware},
            "data": dict(measured.data),
            "setting": msgspec.to_builtins(setting),
        },
    )


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs; yields the callback to hand in."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {what}")

        yield show


def _silent(done: int, total: int, what: str) -> None:
    """Take progress and say nothing."""
