"""The one table of experiments, and what no experiment measures, with the reason."""

from __future__ import annotations

from typing import Any

from tollkeeper.bench import gateway_overhead, guard_coverage, guard_speed, ledger_durability
from tollkeeper.bench.experiment import Experiment
from tollkeeper.errors import ConfigurationError

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    guard_speed.EXPERIMENT,
    guard_coverage.EXPERIMENT,
    gateway_overhead.EXPERIMENT,
    ledger_durability.EXPERIMENT,
)

UNMEASURED_PROFILES = {
    "cheapest": "for tests only; its numbers are not claims",
}
"""Guard profiles that no experiment covers, and why."""


def main_list() -> list[Experiment[Any]]:
    """Return all experiments, for `bench list`."""
    return list(EXPERIMENTS)


def find(experiment_id: str) -> Experiment[Any]:
    """Return the experiment with this id.

    Raises:
        ConfigurationError: there is none; names those there are.
    """
    for experiment in EXPERIMENTS:
        if experiment.id == experiment_id:
            return experiment
    known = ", ".join(experiment.id for experiment in EXPERIMENTS)
    raise ConfigurationError(f"no experiment {experiment_id!r}; choose {known}")
