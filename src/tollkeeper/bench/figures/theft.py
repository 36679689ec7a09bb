"""What free answers are worth: copies made without a guard, and behind it in every way known.

A thief without a guard asks a pool at several budgets: the theft curve. Behind a guard it
asks as much as one of these budgets, in one of several ways (`ways`), and with each attack of
the toolkit (`toolkit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from time import perf_counter
from typing import Any

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.names import ATTACKS
from tollkeeper.bench.experiment import Context
from tollkeeper.bench.figures import toolkit, ways
from tollkeeper.bench.figures.plan import SCENES, Job, Plan, bare, calibration
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.theft.floors import untrained
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import Payload
from tollkeeper.bench.theft.scoring import Scores, fidelity, score
from tollkeeper.bench.theft.stage import Stage, opened, staged
from tollkeeper.encoders.base import Encoder
from tollkeeper.guard import profiles

Found = Sequence[tuple[Job, Mapping[str, float]]]
"""Copies and what became of them."""


def work(job: Job) -> dict[str, float]:
    """Make one copy and say what it is worth; what worker processes call."""
    stage, encoder = opened(job.stage)
    thief = (toolkit if job.way in ATTACKS else ways).thief(job, stage)
    with _victim(job, stage, encoder, thief.accounts) as victim:
        theft = thief.attack(
            victim,
            thief.inputs,
            budget=min(job.budget, thief.attack.most_queries(len(thief.inputs), thief.accounts)),
            rng=job.rng(3),
            clock=perf_counter,
        )
    worth = fidelity(
        score(theft.surrogate, stage.references),
        victim=stage.victim,
        untrained=_floor(replace(job, profile="none", way="open", budget=0)),
    )
    return {
        "fidelity": worth,
        "queries": float(theft.queries_spent),
        "repeats": float(theft.repeats),
        "accounts": float(thief.accounts),
    }


@cache
def _floor(job: Job) -> Scores:
    """Score an untrained copy; once per seed and worker process."""
    stage, _ = opened(job.stage)
    copy = untrained(bare(job).network, stage.answers.shape[1], rng=job.rng(0))
    return score(copy, stage.references)


@contextmanager
def _victim(job: Job, stage: Stage, encoder: Encoder, accounts: int) -> Iterator[Encoder]:
    """Yield whom a thief asks: the encoder itself, or a fresh deployment of a guard."""
    if job.profile == "none":
        yield _one_or_more([encoder] * accounts)
        return
    with GuardedVictim(
        encoder,
        profiles.get(job.profile),
        calibration(stage),
        secret=job.secret,
        clock=perf_counter,
        rng=job.rng(2),
    ) as victim:
        yield _one_or_more([victim.account(f"thief{number}") for number in range(accounts)])


def _one_or_more(accounts: Sequence[Encoder]) -> Encoder:
    return Accounts(accounts) if len(accounts) > 1 else accounts[0]


def jobs(stage: Payload[Stage], encoder: str, plan: Plan) -> Iterator[Job]:
    """Yield the thefts of an encoder without a guard, and in every way behind one."""
    for seed in range(plan.seeds):
        for budget in plan.budgets:
            yield Job(stage, plan, encoder, "none", "open", budget, seed)
        for profile in plan.profiles:
            for way in ways.WAYS.get(profile, ways.WAYS["recommended"]):
                to_the_end = way in ways.ALONE or way in ways.SEVERAL
                budget = max(plan.budgets) if to_the_end else plan.guarded
                yield Job(stage, plan, encoder, profile, way, budget, seed)


def measure(
    plan: Plan, context: Context, samples: Samples, data: dict[str, str]
) -> Mapping[str, Any]:
    """Make every copy and add what they are worth.

    Returns:
        Diagnostics: queries, repeats and accounts of each theft, and which attacks of the
        toolkit were left out and why.

    Raises:
        DataError: a data set is missing or damaged.
        BenchError: a job failed.
    """
    facts: dict[str, Any] = {}
    for encoder, scene in SCENES.items():
        sized = replace(scene, pool_size=plan.pool, train=plan.train, test=plan.test)
        with staged(sized, context, data) as (stage, payload):
            asked = [
                *jobs(payload, encoder, plan),
                *toolkit.jobs(payload, encoder, plan, stage.pool),
            ]
            done = run_jobs(work, asked, workers=plan.workers, progress=context.progress)
        found = list(zip(asked, done, strict=True))
        _add_ways([one for one in found if one[0].way not in ATTACKS], samples)
        _add_attacks([one for one in found if one[0].way in ATTACKS], samples)
        for job, one in found:
            costs = {key: one[key] for key in ("queries", "repeats", "accounts")}
            facts.setdefault(f"{encoder}.{job.profile}.{job.way}", []).append(costs)
        for name, reason in toolkit.left_out(encoder, stage.pool).items():
            facts[f"{encoder}.{name}"] = f"not run: {reason}"
    return facts


def _add_ways(found: Found, samples: Samples) -> None:
    """Add copies, and those behind a guard as a share of what as many queries give without."""
    opens = {(job.seed, job.budget): one["fidelity"] for job, one in found if job.way == "open"}
    for job, one in found:
        name = f"{job.encoder}.{job.profile}.{job.way}"
        if job.way == "open":
            samples.add(f"theft.{name}.n{job.budget}", one["fidelity"], "lower", "fidelity")
            continue
        samples.add(f"theft.{name}", one["fidelity"], "lower", "fidelity")
        share = one["fidelity"] / opens[job.seed, job.budget]
        samples.add(f"theft_share.{name}", share, "lower", "ratio")


def _add_attacks(found: Found, samples: Samples) -> None:
    """Add copies by attacks of the toolkit."""
    for job, one in found:
        name = f"theft_attack.{job.encoder}.{job.way}.{toolkit.PROFILES[job.profile]}"
        samples.add(name, one["fidelity"], "lower", "fidelity")
