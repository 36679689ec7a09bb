"""Every attack of the toolkit once: without a guard, and behind `recommended`.

Each runs with the settings that `attack run` gives it, but for the size of its network, at a
budget of its own that is small enough to run all of them. One account goes on past its knee, as
its attack knows of no guard. Sybils have as many accounts as clean answers to the budget need.
An attack is run on every encoder that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tollkeeper.attacks import names
from tollkeeper.attacks.names import ATTACKS
from tollkeeper.bench.figures import ways
from tollkeeper.bench.figures.plan import SCENES, Job, Plan, Thief, small
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.pools import Pool
from tollkeeper.bench.theft.stage import Stage
from tollkeeper.bench.theft.tuning import needs_labels

PROFILES: Mapping[str, str] = {"none": "open", "recommended": "recommended"}
"""Guard profile to its word in the names of metrics."""


def metrics() -> Mapping[str, str]:
    """Return each attack that is run on some encoder, with a pattern of the metrics that show it."""
    return {
        name: f"theft_attack.*.{name}.recommended"
        for name, entry in ATTACKS.items()
        if entry.accepts & set(SCENES)
    }


def left_out(encoder: str, pool: Pool) -> Mapping[str, str]:
    """Return the attacks that take an encoder and cannot be run on its pool, with the reason."""
    return {
        name: f"needs labels, and {pool.name} has none"
        for name in _taking(encoder)
        if pool.labels is None and needs_labels(names.load(name))
    }


def jobs(stage: Payload[Stage], encoder: str, plan: Plan, pool: Pool) -> Iterator[Job]:
    """Yield two thefts of an encoder for each attack that can be run."""
    reasons = left_out(encoder, pool)
    for name in _taking(encoder):
        if name not in reasons:
            for profile in PROFILES:
                yield Job(stage, plan, encoder, profile, name, plan.attacked, seed=0)


def _taking(encoder: str) -> list[str]:
    return [name for name, entry in ATTACKS.items() if encoder in entry.accepts]


def thief(job: Job, stage: Stage) -> Thief:
    """Return who steals with an attack of the toolkit."""
    attack = small(job, job.way)
    if needs_labels(attack):
        attack = replace(attack, labels=stage.pool.labels)
    order = job.rng(4).permutation(len(stage.pool.inputs))[: job.budget]
    sybils = attack.least_accounts > 1
    # As many without a guard, so that the guard is all the difference.
    accounts = ways.needed(job, stage, order, "recommended") if sybils else 1
    return Thief(attack, stage.pool.inputs, accounts)
