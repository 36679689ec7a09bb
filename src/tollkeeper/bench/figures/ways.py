"""The ways to steal behind a guard, each with the best response that is known for it.

Those that ask to the end, with one account or three, have the largest budget of the theft curve;
those that take an account for every few hundred answers have one that is as good as half of it.

- `greedy`: through one account, whatever the answers are by then, until it is refused;
- `averaged`: as `greedy`, but each input is asked ten times and the answers are averaged, which
  fresh noise does not survive, and standardized, which takes out the tenant's shift. A budget
  counts distinct inputs (decision 14), so the nine other times are repeats: outside the budget,
  told beside it, and not charged by the published guard;
- `greedy3`: through three accounts that all go on, joined by one network with a head for each
  account. Joined by shared inputs, noisy answers made a much poorer copy of the text encoder and
  an equal one of the image encoder, in a trial that is not part of an experiment;
- `stop`: through one account that is left at its first changed answer;
- `merged`: through one account that is asked every input merged with the same filler, so that
  all of them lie in one place: the best of those that the thief has tried elsewhere;
- `overlap`, `rotation`, `trunk`: through as many accounts as the answers need, each left at its
  first changed answer, joined by shared inputs, by the shape of the answers, or by one network
  with a head for each account;
- `shards`: as `trunk`, but each account asks one region of the space, as the victim's own clean
  embeddings divide it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.accounts import MOST
from tollkeeper.attacks.asking import take
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.merged import Merge
from tollkeeper.attacks.recovery.averages import AverageRepeats
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.attacks.selection.random import FixedOrder
from tollkeeper.attacks.sybil.canary import StopAtNoise
from tollkeeper.attacks.sybil.mappers import ProcrustesMapper
from tollkeeper.bench.figures import fillers, thieves, traffic
from tollkeeper.bench.figures.plan import Job, Thief, bare, calibration, guard, small
from tollkeeper.bench.theft.stage import Stage, opened
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard

ALONE = ("greedy", "averaged", "merged")
"""Ways with one account that is asked to the end."""

SEVERAL: Mapping[str, int] = {"greedy3": 3}
"""Ways with several accounts that are asked to the end, and how many."""

_JOINED = {
    "greedy3": "sybil-trunk",
    "overlap": "sybil-overlap",
    "rotation": "sybil-rotation",
    "trunk": "sybil-trunk",
    "shards": "sybil-trunk",
}
"""Ways with several accounts to the attack that joins them."""

WAYS: Mapping[str, tuple[str, ...]] = {
    # Fresh noise differs from answer to answer: who can average it need not leave, or hide.
    "b4b-2023": ("greedy", "averaged"),
    # Answers to one question are the same, so there is nothing to average.
    "recommended": (
        "greedy",
        "greedy3",
        "stop",
        "merged",
        "overlap",
        "rotation",
        "trunk",
        "shards",
    ),
}
"""Guard profile to the ways that make sense behind it."""

_ANCHORS = 100
_TIMES = 10


def thief(job: Job, stage: Stage) -> Thief:
    """Return who steals in this way."""
    if job.way == "open":
        return Thief(bare(job), stage.pool.inputs)
    order = job.rng(4).permutation(len(stage.pool.inputs))
    if job.way in _JOINED:
        order = order[: job.budget]
        if job.way == "shards":
            order = order[thieves.by_region(stage.answers[order], seed=job.seed)]
    inputs = take(stage.pool.inputs, order)
    return Thief(_attack(job, stage), inputs, _accounts(job, stage, order))


def needed(job: Job, stage: Stage, order: NDArray[np.intp], profile: str) -> int:
    """Return how many accounts get inputs of the pool answered clean, in this order."""
    count = thieves.accounts_needed(guard(profile, job, stage), stage.answers[order])
    # One more for what the last ones leave, and at least two to be sybils.
    return int(min(MOST, max(2, count + 1)))


def _accounts(job: Job, stage: Stage, order: NDArray[np.intp]) -> int:
    if job.way not in _JOINED:
        return 1
    return SEVERAL.get(job.way) or needed(job, stage, order, job.profile)


def _attack(job: Job, stage: Stage) -> Attack:
    """Return the thief's attack."""
    inside = bare(job)
    if job.way == "greedy":
        attack: Attack = inside
    elif job.way == "averaged":
        recovery = Standardized(inner=AverageRepeats(times=_TIMES))
        attack = replace(inside, recovery=recovery)
    elif job.way == "merged":
        attack = Merge(inner=inside, filler=_filler(job, stage))
    elif job.way == "stop":
        attack = StopAtNoise(inner=replace(inside, selection=FixedOrder()))
    else:
        joined = _joined(job, inside)
        attack = joined if job.way in SEVERAL else StopAtNoise(inner=joined)
    return attack


def _joined(job: Job, inside: Any) -> Any:
    """Return the attack that joins several accounts."""
    name = _JOINED[job.way]
    joined = small(job, name)
    if name == "sybil-trunk":
        return replace(joined, selection=FixedOrder())
    if job.encoder == "text":
        joined = replace(joined, inner=inside)
    if name == "sybil-overlap":
        # The transforms are rotations, which take fewer pairs than affine maps.
        joined = replace(joined, mapper=ProcrustesMapper(), anchors=_ANCHORS)
    return joined


def _filler(job: Job, stage: Stage) -> Any:
    """Return the filler that serves best, as other accounts of the thief have found out."""
    task = next(iter(traffic.TASKS[job.encoder]))
    narrow = next(one.inputs for one in stage.references if one.name == task)
    _, encoder = opened(job.stage)
    other = Guard(profiles.RECOMMENDED, calibration(stage), secret=job.rng(5).bytes(32))
    return fillers.best(narrow, stage.pool.inputs, encoder.embed, other)
