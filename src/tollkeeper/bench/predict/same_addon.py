"""Experiment `same-addon`: figure 4 of the SAME paper, what a score does once policy acts on it.

Two ways to act, on the score's rank in honest traffic that no fit has seen: refuse what ranks above
a share of it, or ask a puzzle that grows with the rank. Whoever asks has a stated hash rate and a
stated patience; an answer that comes in time is a success. The paper gives neither mapping, hash
nor constants for its figure, so its shape can be compared and its numbers cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement, Metric
from tollkeeper.bench.predict.accounts import HONEST
from tollkeeper.bench.predict.deployment import Deployment, deploy, places
from tollkeeper.bench.predict.figures import interval
from tollkeeper.bench.predict.jobs import Job, Part, run_parts
from tollkeeper.bench.predict.live import live
from tollkeeper.bench.predict.plan import CPU, GPU, SMOKE, Plan
from tollkeeper.bench.predict.streams import ADAPTIVE, THIEVES
from tollkeeper.challenge.difficulty import RankPrice
from tollkeeper.types import Scores

LIVE = "mnist"
USERS = ("jbda", "jbda_strokes", "knockoff", "knockoff_matched", "dfme_untrained", "insider")
FITTED = ("floors", "same", "oe", "edm", "fused")

_TIMED = 15


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        datasets: of `scene.CASTS`.
        plans: sizes of each data set's part.
        budget: queries of each user.
        refused: percent of honest traffic that is refused, one way for each.
        floor_bits: of the puzzle where a charge begins.
        ceiling_bits: of the puzzle for a score above all honest ones.
        free: share of honest traffic that is asked no puzzle.
        hash_rate: of every user, in hashes per second; a process of Python does about a million.
        patience_s: after which an answer is of no use.
        live: queries of each user at a live gateway, on digits; 0 starts none.
        alarm: share of honest accounts that an alarm there may ever hit.
        workers: processes, of one thread each.
    """

    datasets: tuple[str, ...] = ("mnist", "cifar10")
    plans: dict[str, Plan] = field(default_factory=lambda: dict(CPU))
    budget: int = 1000
    refused: tuple[int, ...] = (1, 5)
    floor_bits: int = 8
    ceiling_bits: int = 24
    free: float = 0.95
    hash_rate: float = 1e6
    patience_s: float = 5.0
    live: int = 500
    alarm: float = 0.01
    workers: int = 2


def measure(setting: Setting, context: Context) -> Measurement:
    """Measure each data set in a process of its own.

    Raises:
        ConfigurationError: an unknown data set, or too few images.
        BenchError: a part failed.
    """
    return run_parts(run, setting, context, workers=setting.workers)


def run(job: Job) -> Part:
    """Measure one data set; runs in a worker."""
    part, rng, setting = Part(), job.rng(), job.setting
    made = deploy(
        job.dataset,
        job.plan,
        rng=rng,
        clock=time.perf_counter,
        tell=part.tell,
        data=part.data,
        names=FITTED,
    )
    part.tell("users")
    known = made.scores(made.scene.calibration, made.victim.embed(made.scene.calibration))
    users = _users(made, setting.budget)
    part.tell("policy")
    service = _service_s(made)
    for detector, reference in known.items():
        scores = {user: found[detector] for user, found in users.items()}
        for mode, act in _modes(reference, setting, service[detector]).items():
            for user, mine in scores.items():
                taken = act(mine, rng)
                name = f"{job.dataset}.{mode}.{detector}.{user}"
                part.metrics |= _figures(name, taken, setting.patience_s, rng)
    if setting.live and job.dataset == LIVE:
        part.tell("live gateway")
        refused = max(setting.refused) / 100
        part.metrics |= live(made, queries=setting.live, refused=refused, alarm=setting.alarm)
    return part.done()


def _users(made: Deployment, budget: int) -> dict[str, Mapping[str, Scores]]:
    """Return the scores of every user's queries by every detector; thieves' seeds left out."""
    scene = made.scene
    found: dict[str, Mapping[str, Scores]] = {
        HONEST: made.scores(scene.honest[:budget], made.answers[:budget])
    }
    there = {*made.present(THIEVES), *made.present(ADAPTIVE)}
    for name in (one for one in USERS if one in there):
        stream = made.stream(name, budget)
        chosen = places(stream, budget)
        found[name] = made.scores(stream.images[chosen], stream.answers[chosen])
    return found


def _service_s(made: Deployment) -> dict[str, float]:
    """Return the median seconds of one query's answer and score, by detector."""
    image, answer = made.scene.honest[:1], made.answers[:1]

    def median(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(_TIMED):
            began = made.clock()
            work()
            taken.append(made.clock() - began)
        return float(np.median(taken))

    plain = median(lambda: made.graph.run(image))
    return {
        name: plain + median(lambda one=detector: one.score(image, answer))  # type: ignore[misc]
        for name, detector in made.defense.detectors.items()
    }


Act = Callable[[Scores, np.random.Generator], NDArray[np.float64]]
"""Returns (n,) seconds until each query's answer; infinite where it is refused."""


def _modes(reference: Scores, setting: Setting, service: float) -> dict[str, Act]:
    """Return the ways to act on a detector's scores."""
    ranks = np.sort(reference)

    def refusing(percent: int) -> Act:
        most = float(np.quantile(ranks, 1 - percent / 100, method="higher"))
        return lambda scores, _: np.where(scores > most, np.inf, service)

    def charging(scores: Scores, rng: np.random.Generator) -> NDArray[np.float64]:
        if ranks[0] == ranks[-1]:
            return np.full(len(scores), service)  # It tells nothing apart, so nobody is charged.
        price = RankPrice(
            ranks.tolist(),
            floor_bits=setting.floor_bits,
            ceiling_bits=setting.ceiling_bits,
            free_quantile=setting.free,
        )
        bits = np.array([price(one) for one in scores.tolist()])
        # How many hashes it takes is exponential around 2^bits.
        work = np.where(bits > 0, 2.0**bits * rng.exponential(size=len(bits)), 0)
        return service + work / setting.hash_rate

    return {f"refuse{percent}": refusing(percent) for percent in setting.refused} | {
        "puzzle": charging
    }


def _figures(
    name: str, taken: NDArray[np.float64], patience: float, rng: np.random.Generator
) -> dict[str, Metric]:
    """Return the share of answers in time, and how long those took."""
    honest = name.endswith(f".{HONEST}")
    direction: Direction = "higher" if honest else "lower"
    came = (taken <= patience).astype(np.float64)
    again = rng.integers(0, len(came), (200, len(came)))
    found = {
        f"successful.{name}": interval(came.mean(), came[again].mean(axis=1), direction=direction)
    }
    answered = taken[np.isfinite(taken)]
    slower: Direction = "lower" if honest else "higher"
    for share in (50, 95) if len(answered) else ():
        seconds = float(np.percentile(answered, share))
        found[f"response_p{share}_s.{name}"] = Metric(seconds, "s", slower, tolerance=0.5)
    return found


EXPERIMENT = Experiment(
    id="same-addon",
    title="figure 4 of SAME: refusing and charging by a score's rank in honest traffic",
    scales={
        "smoke": Setting(
            datasets=("mnist",), plans=dict(SMOKE), budget=40, refused=(5,), live=0, workers=1
        ),
        "cpu": Setting(),
        "gpu": Setting(plans=dict(GPU), workers=1),
    },
    measure=measure,
    promises=(
        *(
            f"successful.{dataset}.{mode}.{detector}.{user}"
            for dataset in ("mnist", "cifar10")
            for mode in ("refuse*", "puzzle")
            for detector in ("same", "oe", "edm", "fused")
            for user in (HONEST, "jbda", "knockoff", "dfme_untrained")
        ),
        "live.mnist.same.answered.*",
        "live.mnist.fused.answered.*",
        "live.mnist.alarm.*",
    ),
)
