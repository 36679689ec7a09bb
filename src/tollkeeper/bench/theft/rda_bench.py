"""Experiment `rda`: prototypes of several views against single answers, under defenses.

Averaging is RDA's answer to perturbed answers, and it costs queries: at one budget, ten views
leave a tenth of the images. InfoNCE and StolenEncoder spend the same budget on single answers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tollkeeper.attacks import presets
from tollkeeper.attacks.rda import RDA
from tollkeeper.bench.experiment import Experiment
from tollkeeper.bench.theft.perturb import STRONG
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

VIEWS = (1, 5, 10)


def variants(trial: Trial, stage: Stage) -> list[Variant]:
    """Return RDA with every number of views and its rivals, open and behind every defense."""
    del stage
    attack = presets.rda()
    if trial.examples:
        # One copy of an image per step, as the paper has it for its largest victims: more copies
        # make steps dearer, and the number of examples is what is fixed here.
        attack = replace(attack, copies=1)
    rival = presets.stolen_encoder()
    return list(
        defended(
            [
                *(_with_views(attack, views) for views in VIEWS),
                Variant("infonce", presets.infonce()),
                Variant("stolen_encoder", rival, copies=1 + rival.copies),
            ],
            STRONG,
        )
    )


def _with_views(attack: RDA, views: int) -> Variant:
    return Variant(f"views{views}", replace(attack, views=views), copies=attack.copies)


EXPERIMENT = Experiment(
    id="rda",
    title="RDA: prototypes of several views against single answers, open and under defenses",
    scales={
        "smoke": SMOKE,
        "cpu": replace(CPU, budget=3000, examples=16_000),
        "gpu": replace(GPU, network="resnet18"),
    },
    measure=partial(measure_variants, make=variants),
    promises=(
        "relative_accuracy.views1.*",
        "relative_accuracy.views10.*",
        "relative_accuracy.views10_noise.*",
        "relative_accuracy.infonce_noise.*",
        "relative_accuracy.stolen_encoder_noise.*",
        "relative_accuracy.floor_untrained.*",
        "relative_accuracy.floor_ssl.*",
        "recall10.honest_*",
    ),
    attacks={"rda": "relative_accuracy.views10.*"},
)
