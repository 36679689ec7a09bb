"""Detectors with a memory: judged by accounts, not by queries.

Each user's queries are cut into accounts of one size, in asking order and without the honest seeds
of JBDA, and an account's score is that after its last query. Small accounts are what sybils have: a
thief of 1,000 queries behind 20 accounts is 20 accounts of 50.

Beside the detectors with a memory stand plain sums of scores of single queries, which any such
detector must beat: a mean, or the share of queries that are odd by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

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
KEPT = ("auroc", "tpr_at_1pct")
"""Of `metrics.FIGURES`; a few hundred accounts say nothing of rarer false alarms."""

HONEST = "honest"
FUSED = "fused"
WATCHERS = ("prada", "seat", "history", "mean-max-softmax", "mean-fused", "share-fused", "fdinet")
FALSE_ALARMS = 0.01
"""Share of honest accounts that `history` may ever accuse, and that the sums accuse; PRADA, SEAT and
FDINet have thresholds of their own."""

_FEWEST = 4
"""Accounts of a size below which it is left out."""

_FDINET_FLAGS = 0.5
_FDINET_SHARE: Mapping[str, float] = {"mnist": 0.4, "cifar10": 0.75}
"""The paper's: a batch is an extraction if more of its queries than this are flagged."""

_DRAWN = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A user's queries.

    Attributes:
        images: (n, c, h, w) in asking order.
        answers: (n, k).
        scores: (n,) of each detector of single queries.
    """

    images: Images
    answers: Probabilities
    scores: Mapping[str, Scores]

    def __getitem__(self, at: slice | NDArray[np.intp]) -> Asked:
        """Return some of them."""
        some = {name: scores[at] for name, scores in self.scores.items()}
        return Asked(self.images[at], self.answers[at], some)


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """How an account is followed.

    Attributes:
        follow: an account's queries to (n,) scores after each.
        alarms: (n,) scores of an account of n queries to whether each is an alarm.
    """

    follow: Callable[[Asked], Scores]
    alarms: Callable[[Scores], NDArray[np.bool_]]


def watchers(made: Deployment, rng: np.random.Generator) -> dict[str, Watcher]:
    """Return what follows accounts, by name, set from honest images where it needs any.

    The sums and `history` are there if the detectors are whose scores they take.
    """
    scene, network = made.scene, made.victim.network
    classes = len(scene.classes)
    features = Features(network) if isinstance(network, Conv3) else None
    prada = Prada(scene.shape, classes=classes)
    seat = fit_seat(scene.calibration, classes=classes, rng=rng, features=features)
    found = {"prada": _remembering(prada, prada), "seat": _remembering(seat, seat)}
    fitted = made.defense.detectors
    answers = made.victim.embed(scene.calibration)
    if FUSED in fitted:
        usual = np.sort(fitted[FUSED].score(scene.calibration, answers))
        found["history"] = _betting(History(fitted[FUSED], usual))
        found["mean-fused"] = _summed(FUSED, usual, rng)
        odd = float(np.quantile(usual, 0.99, method="higher"))
        found["share-fused"] = _summed(FUSED, usual, rng, above=odd)
    if "max-softmax" in fitted:
        usual = fitted["max-softmax"].score(scene.calibration, answers)
        found["mean-max-softmax"] = _summed("max-softmax", usual, rng)
    if "fdinet" in fitted:
        share = _FDINET_SHARE[scene.dataset]
        found["fdinet"] = Watcher(
            partial(_running, "fdinet", above=_FDINET_FLAGS), lambda scores: _last(scores > share)
        )
    return {name: found[name] for name in WATCHERS if name in found}


def _remembering(detector: AccountDetector, own: Prada | Seat) -> Watcher:
    return Watcher(
        lambda asked: detector.update(detector.empty(), asked.images, asked.answers)[0], own.alarms
    )


def _betting(history: History) -> Watcher:
    limit = history.alarm_at(FALSE_ALARMS)
    return Watcher(
        lambda asked: history.follow(history.empty(), asked.scores[FUSED])[0],
        lambda scores: scores >= limit,
    )


def _running(name: str, asked: Asked, *, above: float | None = None) -> Scores:
    """Return the mean of an account's scores so far, or the share of those above a limit."""
    scores = asked.scores[name]
    counted = scores if above is None else (scores > above).astype(np.float64)
    found: Scores = np.cumsum(counted) / np.arange(1, len(counted) + 1)
    return found


def _summed(
    name: str, usual: Scores, rng: np.random.Generator, *, above: float | None = None
) -> Watcher:
    """Return a sum that is judged once, after an account's last query.

    Its limit is exceeded by one in a hundred accounts of that size drawn from `usual`, honest
    scores that no fit has seen.
    """
    counted = usual if above is None else (usual > above).astype(np.float64)

    @cache
    def limit(size: int) -> float:
        drawn = rng.choice(counted, (_DRAWN, size)).mean(axis=1)
        return float(np.quantile(drawn, 1 - FALSE_ALARMS, method="higher"))

    return Watcher(
        partial(_running, name, above=above), lambda scores: _last(scores > limit(len(scores)))
    )


def _last(alarms: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return alarms of an account that is judged after its last query alone."""
    return np.where(np.arange(len(alarms)) == len(alarms) - 1, alarms, False)


def judged(
    made: Deployment,
    watching: Mapping[str, Watcher],
    users: Mapping[str, Asked],
    *,
    rng: np.random.Generator,
) -> dict[str, Metric]:
    """Return figures of accounts of each size, and how many raise an alarm.

    Args:
        made: the deployment.
        watching: by name.
        users: what each asked; `honest` among them.
        rng: draws the bootstrap.
    """
    found: dict[str, Metric] = {}
    for size in SIZES:
        path = f"{made.scene.dataset}.accounts{size}"
        last: dict[str, dict[str, Scores]] = {}
        for user, asked in users.items():
            count = len(asked.images) // size
            if count < _FEWEST:
                continue
            accounts = [asked[at * size : (at + 1) * size] for at in range(count)]
            for name, watcher in watching.items():
                scores = [watcher.follow(account) for account in accounts]
                last.setdefault(user, {})[name] = np.array([one[-1] for one in scores])
                alarmed = np.array([watcher.alarms(one).any() for one in scores])
                found[f"alarmed.{path}.{name}.{user}"] = _share(alarmed, user, rng)
        honest = last.pop(HONEST, {})
        for user, malicious in last.items() if honest else ():
            some = judge(honest, malicious, resamples=made.plan.resamples, rng=rng)
            found |= some.metrics(path, user, only=KEPT)
    return found


def _share(alarmed: NDArray[np.bool_], user: str, rng: np.random.Generator) -> Metric:
    direction: Direction = "lower" if user == HONEST else "higher"
    drawn = alarmed[rng.integers(0, len(alarmed), (200, len(alarmed)))].mean(axis=1)
    return interval(float(alarmed.mean()), drawn, direction=direction)
