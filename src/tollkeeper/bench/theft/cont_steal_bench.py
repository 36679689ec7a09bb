"""Experiment `cont-steal`: how many views of an image are worth asking for.

A budget is spent on few images with many views each or on many images with few. The paper asks
for a fresh view in every epoch and does not count them; its conventional attack, mean squared
error without views, is the baseline.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tollkeeper.attacks import presets
from tollkeeper.bench.experiment import Experiment
from tollkeeper.bench.theft.stage import Stage
from tollkeeper.bench.theft.variants import CPU, GPU, SMOKE, Trial, Variant, measure_variants

VIEWS = (1, 2, 5, 10)


def variants(trial: Trial, stage: Stage) -> list[Variant]:
    """Return Cont-Steal with every number of views, and the conventional attack."""
    del trial, stage
    attack = presets.cont_steal()
    conventional = replace(presets.mse(), schedule=attack.schedule)
    return [
        *(Variant(f"views{views}", replace(attack, views=views)) for views in VIEWS),
        Variant("conventional", conventional),
    ]


EXPERIMENT = Experiment(
    id="cont-steal",
    title="Cont-Steal: views of an image against images, at a fixed budget",
    scales={
        "smoke": SMOKE,
        "cpu": replace(CPU, budget=8000, examples=64_000),
        "gpu": replace(GPU, network="resnet18"),
    },
    measure=partial(measure_variants, make=variants, also=("agreement",)),
    promises=(
        "relative_accuracy.views1.*",
        "relative_accuracy.views10.*",
        "relative_accuracy.conventional.*",
        "relative_accuracy.floor_untrained.*",
        "relative_accuracy.floor_ssl.*",
        "agreement.views10.*",
    ),
    attacks={"cont-steal": "relative_accuracy.views2.*"},
)
