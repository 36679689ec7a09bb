"""What a score costs, in units of the victim's own forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.predict.deployment import Deployment
from tollkeeper.bench.stats import ratio_metric

_REPEATS = 15
BATCHES = (1, 32)


def speeds(made: Deployment) -> dict[str, Metric]:
    """Return the seconds of each detector over the victim's, by the number of queries together.

    Both run as graphs on one thread, in turns, so that what slows one down slows the other too.
    """
    found: dict[str, Metric] = {}
    for batch in BATCHES:
        images, answers = made.scene.honest[:batch], made.answers[:batch]
        for name, detector in made.defense.detectors.items():
            mine, victims = [], []
            for turn in range(_REPEATS + 1):
                pair = (
                    _took(made.clock, partial(detector.score, images, answers)),
                    _took(made.clock, partial(made.graph.run, images)),
                )
                if turn:  # the first is warm-up
                    mine.append(pair[0])
                    victims.append(pair[1])
            found[f"cost_over_victim.{made.scene.dataset}.{name}.batch{batch}"] = ratio_metric(
                mine,
                victims,
                direction="lower",
                tolerance=0.5,
                rng=np.random.default_rng(0),
            )
    return found


def _took(clock: Callable[[], float], work: Callable[[], object]) -> float:
    began = clock()
    work()
    return clock() - began
