"""What a score costs, in units of the victim's own forward pass."""

from __future__ import annotations

import time
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

    Both run as graphs on this thread, in turns; its own processor seconds are counted, since others
    who share the processor interrupt long work more often than short.
    """
    found: dict[str, Metric] = {}
    for batch in BATCHES:
        images, answers = made.scene.honest[:batch], made.answers[:batch]
        for name, detector in made.defense.detectors.items():
            mine, victims = [], []
            for turn in range(_REPEATS + 1):
                pair = (
                    _took(partial(detector.score, images, answers)),
                    _took(partial(made.graph.run, images)),
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


def _took(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
