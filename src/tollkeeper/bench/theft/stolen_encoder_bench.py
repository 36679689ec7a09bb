"""Experiment `stolen-encoder`: StolenEncoder with and without augmented copies, under defenses.

The defenses are those of the literature in the strength of RDA's code, and once more so mild
that search still works. What each does to an honest user is measured beside: a defense that a
thief feels less than an honest user is none.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tollkeeper.attacks import presets
from tollkeeper.bench.experiment import Experiment
from tollkeeper.bench.theft.perturb import MILD, STRONG
from tollkeeper.bench.theft.stage import Stage
from tollkeeper.bench.theft.variants import (
    CPU,
    GPU,
    SMOKE,
    Trial,
    Variant,
    defended,
    measure_variants,
)


def variants(trial: Trial, stage: Stage) -> list[Variant]:
    """Return lambda 0 and lambda 20, open and behind every defense."""
    del trial, stage
    attack = presets.stolen_encoder()
    plain = [
        Variant("lambda0", replace(attack, strength=0.0, copies=0)),
        Variant("lambda20", attack, copies=1 + attack.copies),
    ]
    return list(defended(plain, {**STRONG, **MILD}))


EXPERIMENT = Experiment(
    id="stolen-encoder",
    title="StolenEncoder with and without augmented copies, open and under stateless defenses",
    scales={
        "smoke": SMOKE,
        "cpu": replace(CPU, budget=2500, examples=24_000),
        "gpu": replace(GPU, budget=2500),
    },
    measure=partial(measure_variants, make=variants),
    promises=(
        "relative_accuracy.lambda0.*",
        "relative_accuracy.lambda20.*",
        "relative_accuracy.lambda20_noise.*",
        "relative_accuracy.lambda20_noise_mild.*",
        "relative_accuracy.floor_untrained.*",
        "relative_accuracy.floor_ssl.*",
        "recall10.honest_*",
    ),
    attacks={"stolen-encoder": "relative_accuracy.lambda20.*"},
)
