"""The one table of experiments, and what no experiment measures, with the reason."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from tollkeeper.bench import (
    gateway_overhead,
    guard_coverage,
    guard_speed,
    ledger_durability,
    toll_speed,
)
from tollkeeper.bench.experiment import Experiment
from tollkeeper.errors import ConfigurationError

_LAB = (
    "theft.b4b_coverage",
    "theft.b4b_remap",
    "theft.b4b_theft",
    "theft.noise_sweep",
    "theft.ssl_losses",
    "theft.stolen_encoder_bench",
    "theft.cont_steal_bench",
    "theft.rda_bench",
    "figures.guard_figures",
    "figures.guard_pools",
    "figures.guard_windows",
    "toll.pow_calibration",
    "toll.reference_logs",
    "toll.timelines",
    "predict.classifier_theft",
    "predict.same_detection",
    "predict.same_ablation",
    "predict.same_ratio",
    "predict.same_addon",
    "predict.scoring_speed",
    "predict.prediction_responses",
    "ownership.tenant_mark",
    "ownership.audit_speed",
    "ownership.dataset_inference",
    "ownership.rotation_watermark",
    "ownership.sslguard",
    "ownership.text_watermark",
    "ownership.classifier_inference",
)
"""Modules with an experiment that needs the lab tools, most of them."""


def _lab() -> Iterator[Experiment[Any]]:
    """Yield the experiments of the lab, without those whose packages are not installed."""
    for name in _LAB:
        try:
            module = importlib.import_module(f"tollkeeper.bench.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("tollkeeper"):
                raise
        else:
            yield module.EXPERIMENT


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    guard_speed.EXPERIMENT,
    guard_coverage.EXPERIMENT,
    gateway_overhead.EXPERIMENT,
    ledger_durability.EXPERIMENT,
    toll_speed.EXPERIMENT,
    *_lab(),
)

UNMEASURED_PROFILES = {
    "cheapest": "for tests only; its numbers are not claims",
}
"""Guard profiles that no experiment covers, and why."""

UNMEASURED_ATTACKS: dict[str, str] = {}
"""Attacks that no experiment runs, and why."""


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
    raise ConfigurationError(
        f"no experiment {experiment_id!r}; choose {known} (experiments on theft need the lab "
        "tools: pip install 'tollkeeper[lab]')"
    )
