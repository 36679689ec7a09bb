"""Detectors with a memory: judged by accounts, not by queries.

Each user's queries are cut into accounts of one size, in asking order, and an account's score is
that after its last query. Small accounts are what sybils have: a thief of 1,000 queries behind 20
accounts is 20 accounts of 50.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import Direction, Metric
from tollkeeper.bench.predict.deployment import Deployment
from tollkeeper.bench.predict.figures import interval, judge
from tollkeeper.detectors.base import AccountDetector
from tollkeeper.detectors.history import History
from tollkeeper.detectors.lab.layers import Features
from tollkeeper.detectors.lab.seat import fit_seat
from tollkeeper.detectors.prada import Prada
from tollkeeper.detectors.seat import Seat
from tollkeeper.lab.conv3 import Conv3
from tollkeeper.types import Images, Probabilities, Scores

SIZES = (50, 100, 200, 500)
HONEST = "honest"
FUSED = "fused"
FALSE_ALARMS = 0.01
"""Share of honest accounts that `history` may ever accuse; PRADA and SEAT have thresholds of their
own."""

_FEWEST = 4
"""Accounts of a size below which it is left out."""

Queries = tuple[Images, Probabilities]


def watchers(made: Deployment, rng: np.random.Generator) -> dict[str, AccountDetector]:
    """Return the account detectors, set from honest images where they need any."""
    scene, network = made.scene, made.victim.network
    classes = len(scene.classes)
    features = Features(network) if isinstance(network, Conv3) else None
    found: dict[str, AccountDetector] = {
        "prada": Prada(scene.shape, classes=classes),
        "seat": fit_seat(scene.calibration, classes=classes, rng=rng, features=features),
    }
    if FUSED in made.defense.detectors:
        fused = made.defense.detectors[FUSED]
        answers = made.victim.embed(scene.calibration)
        found["history"] = History(fused, np.sort(fused.score(scene.calibration, answers)))
    return found


def judged(
    made: Deployment,
    watching: Mapping[str, AccountDetector],
    users: Mapping[str, Queries],
    *,
    rng: np.random.Generator,
) -> dict[str, Metric]:
    """Return figures of accounts of each size, and how many raise an alarm.

    Args:
        made: the deployment.
        watching: account detectors by name.
        users: what each asked; `honest` among them.
        rng: draws the bootstrap.
    """
    found: dict[str, Metric] = {}
    for size in SIZES:
        path = f"{made.scene.dataset}.accounts{size}"
        last: dict[str, dict[str, Scores]] = {}
        for user, queries in users.items():
            if len(queries[0]) // size < _FEWEST:
                continue
            for name, detector in watching.items():
                scores = _accounts(detector, queries, size)
                last.setdefault(user, {})[name] = scores[:, -1]
                alarmed = np.any(_alarms(detector, scores), axis=1)
                found[f"alarmed.{path}.{name}.{user}"] = _share(alarmed, user, rng)
        honest = last.pop(HONEST, {})
        for user, malicious in last.items() if honest else ():
            some = judge(honest, malicious, resamples=made.plan.resamples, rng=rng)
            found |= some.metrics(path, user)
    return found


def _accounts(detector: AccountDetector, queries: Queries, size: int) -> NDArray[np.float64]:
    """Return (accounts, size) scores after each query."""
    count = len(queries[0]) // size
    rows = [
        detector.update(detector.empty(), *(part[at * size : (at + 1) * size] for part in queries))[
            0
        ]
        for at in range(count)
    ]
    return np.stack(rows)


def _alarms(detector: AccountDetector, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where (accounts, size) scores are alarms."""
    if isinstance(detector, Prada | Seat):
        return detector.alarms(scores.ravel()).reshape(scores.shape)
    assert isinstance(detector, History)
    return scores >= detector.alarm_at(FALSE_ALARMS)


def _share(alarmed: NDArray[np.bool_], user: str, rng: np.random.Generator) -> Metric:
    direction: Direction = "lower" if user == HONEST else "higher"
    drawn = alarmed[rng.integers(0, len(alarmed), (200, len(alarmed)))].mean(axis=1)
    return interval(float(alarmed.mean()), drawn, direction=direction)
