"""One attack at several budgets: what a copy costs, and how good it is.

Budgets are run in rising order and each with several seeds; every run is told at once, so
that whoever listens can keep it. What the attacker may ask is one pool:

- in this process every run chooses from the whole pool, so seeds differ in what they ask;
- of a live target the first inputs of the (shuffled) pool are asked in order, as many as a
  budget allows. What is paid for comes first, so a target that stops leaves all of it. All seeds and later budgets then share answers that are paid for already, and a
  curve costs as much as its last point. Attacks that ask random views of images, and sybils,
  who deal the inputs out anew, still pay for each budget and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import UNLIMITED, Attack, Clock, Theft
from tollkeeper.bench.theft.curve import mean_interval
from tollkeeper.bench.theft.gauge import beginning
from tollkeeper.bench.theft.pools import Pool
from tollkeeper.bench.theft.tuning import in_pool_order, needs_labels, part
from tollkeeper.bench.theft.victims import REQUEST, Victim
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import FREE, Meter, MeteredEncoder, Price
from tollkeeper.errors import (
    AuthenticationError,
    ConfigurationError,
    RefusalError,
    TollkeeperError,
)
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.types import Batch, Embeddings

_MOST_SEEDS = 1000
_SELF_TRAINED, _BOOTSTRAP = range(_MOST_SEEDS, _MOST_SEEDS + 2)
"""Seeds of what is not a run."""

Told = Callable[[str, Step], None]
"""Called with what is being run and where it stands."""


class Scorer(Protocol):
    """What copies are scored by."""

    def figures(self, encoder: Encoder) -> dict[str, float]:
        """Return the figures of a copy, by name."""
        ...


def check_plan(
    attack: Attack, pool: Pool, budgets: Sequence[int], *, accounts: int, seeds: int
) -> None:
    """Refuse what cannot be run, before anything is spent.

    Raises:
        ConfigurationError: a budget does not fit attack and pool, no seed, too few accounts, or
            no labels for an attack that needs them.
    """
    if needs_labels(attack) and pool.labels is None:
        raise ConfigurationError(
            f"the attack needs labels, and {pool.name} has none; tiny_imagenet and cifar100 do"
        )
    if not 1 <= seeds <= _MOST_SEEDS:
        raise ConfigurationError(f"expected 1 to {_MOST_SEEDS} seeds, got {seeds}")
    attack.check_accounts(accounts)
    least, most = attack.asks_per_input, attack.most_queries(len(pool.inputs), accounts)
    for budget in budgets:
        if not least <= budget <= most:
            raise ConfigurationError(
                f"expected budgets of {least:,} to {most:,} queries, which is what "
                f"{len(pool.inputs):,} inputs of {pool.name} allow, got {budget:,}"
            )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Campaign:
    """Everything that is decided before the first query.

    Attributes:
        attack: with its settings.
        victim: whom it asks.
        pool: what it may ask.
        budgets: distinct queries, rising.
        seeds: runs of each budget.
        price: what the target takes.
        whole_pool: whether a run may choose from all of it on a live target too.
        untrained: figures of the copy before training, which is all that a victim leaves who
            refuses before there are answers enough to train on; None to let that be an error.
    """

    attack: Attack
    victim: Victim
    pool: Pool
    budgets: tuple[int, ...]
    seeds: int = 3
    price: Price = FREE
    whole_pool: bool = False
    untrained: Mapping[str, float] | None = None

    def inputs(self, budget: int) -> int:
        """Return how many inputs of the pool a budget pays for."""
        return min(len(self.pool.inputs), -(-budget // self.attack.asks_per_input))

    def offered(self, budget: int) -> Pool:
        """Return what a run may choose from, see above."""
        if self.whole_pool or not self.victim.is_live:
            return self.pool
        return beginning(self.pool, self.inputs(budget))


@dataclass(frozen=True, slots=True)
class Run:
    """One attack, scored.

    Attributes:
        seed: which of the seeds.
        figures: those of `figure_names`; none if there is no copy.
        queries: distinct inputs that were answered, over all accounts.
        repeats: inputs that were answered again.
        calls: calls that the answers take, to a live target of up to 64 inputs each.
        money: at the stated price.
        seconds: from the first query to the finished copy.
        asking_s: seconds of those that the victim took; answers from a transcript take none.
        partial: why the victim was asked less than the attack wanted; empty if it was not.
    """

    seed: int
    figures: Mapping[str, float] = field(default_factory=dict)
    queries: int = 0
    repeats: int = 0
    calls: int = 0
    money: float = 0.0
    seconds: float = 0.0
    asking_s: float = 0.0
    partial: str = ""


COSTS = ("queries", "repeats", "calls", "money", "seconds", "asking_s")
"""Names of the numbers of a run that are no figures."""


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one budget so far.

    Attributes:
        budget: distinct queries allowed.
        runs: one a seed, at least one.
        self_trained: figures of the copy's network trained by itself on as many inputs; None
            for text, for classifiers and before it is trained, empty if it could not be trained.
    """

    budget: int
    runs: tuple[Run, ...]
    self_trained: Mapping[str, float] | None = None

    @property
    def partial(self) -> str:
        """Why a run holds less than it should; empty if none does."""
        return next((run.partial for run in self.runs if run.partial), "")

    def cost(self, name: str) -> float:
        """Return the mean over runs of one of `COSTS`."""
        return float(np.mean([getattr(run, name) for run in self.runs]))

    def mean(self, name: str) -> float | None:
        """Return the mean of a figure over runs; None if no run has it."""
        values = self._values(name)
        return float(np.mean(values)) if values else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return (low, high) of a figure over seeds as `curve` states it, or None."""
        return mean_interval(self._values(name), rng=np.random.default_rng(_BOOTSTRAP))

    def _values(self, name: str) -> list[float]:
        return [run.figures[name] for run in self.runs if name in run.figures]


def rows(campaign: Campaign, gauge: Scorer, *, clock: Clock, told: Told) -> Iterator[Row]:
    """Run a campaign.

    A victim that stops ends the campaign: what it answered until then is trained on and
    scored, and the row says why it is partial.

    Args:
        campaign: what to run.
        gauge: to score it by.
        clock: monotonic seconds.
        told: of progress.

    Yields:
        The row of a budget, once more after each of its runs, and again with its floor.

    Raises:
        TollkeeperError: the first run of all failed before there was a copy, or, of classifiers,
            otherwise than by a refusal.
    """
    for budget in campaign.budgets:
        row = Row(budget, ())
        for seed in range(campaign.seeds):
            label = f"{budget:,} queries, seed {seed + 1} of {campaign.seeds}"
            try:
                run = _run(campaign, gauge, budget, seed, clock=clock, progress=_under(label, told))
            except TollkeeperError as error:
                if budget == campaign.budgets[0] and seed == 0:
                    raise
                run = Run(seed, partial=str(error))
            row = replace(row, runs=(*row.runs, run))
            yield row
            if run.partial:
                return
        pictures = campaign.pool.inputs
        if isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8:
            told_floor = _under(f"{budget:,} images, floor", told)
            yield replace(row, self_trained=_self_trained(campaign, gauge, budget, told_floor))


def _run(
    campaign: Campaign, gauge: Scorer, budget: int, seed: int, *, clock: Clock, progress: Progress
) -> Run:
    """Steal once and score the copy."""
    victim = campaign.victim
    asked = _Asked(victim.begin(seed))
    try:
        theft = _steal(campaign, asked.victim, budget, seed, clock=clock, progress=progress)
    except TollkeeperError:
        if campaign.untrained is None or asked.refusal is None:
            raise
        return asked.run(seed, campaign)
    progress(Step("scoring", 0, 1))
    answered = theft.queries_spent + theft.repeats
    return Run(
        seed=seed,
        figures=gauge.figures(theft.surrogate),
        queries=theft.queries_spent,
        repeats=theft.repeats,
        calls=-(-answered // REQUEST) if victim.is_live else theft.calls,
        money=theft.charge,
        seconds=theft.seconds,
        asking_s=theft.asking_s,
        partial=theft.partial,
    )


def _steal(
    campaign: Campaign,
    asked: Encoder,
    budget: int,
    seed: int,
    *,
    clock: Clock,
    progress: Progress,
) -> Theft:
    live, pool = campaign.victim.is_live, campaign.offered(budget)
    attack = in_pool_order(campaign.attack) if live else campaign.attack
    return _labeled(attack, pool)(
        asked,
        pool.inputs,
        budget=budget,
        # The same for all budgets, so that a larger one asks what a smaller one asked.
        rng=np.random.default_rng(seed),
        clock=clock,
        price=campaign.price,
        progress=progress,
    )


class _Asked:
    """Counts what a run was answered, for when no copy comes of it.

    Attributes:
        victim: whom the run asks.
        refusal: how the last call was refused; None if it was not, or for want of a key.
    """

    def __init__(self, victim: Encoder) -> None:
        self.refusal: RefusalError | None = None
        self._meter = Meter(UNLIMITED)
        if isinstance(victim, Accounts):
            watched = enumerate(victim.accounts)
            self.victim: Encoder = Accounts([self._watched(one, number) for number, one in watched])
        else:
            self.victim = self._watched(victim, 0)

    def _watched(self, victim: Encoder, number: int) -> Encoder:
        return MeteredEncoder(_Refusals(victim, self), meter=self._meter, account=number)

    def run(self, seed: int, campaign: Campaign) -> Run:
        """Return the run of a victim who refused before there was a copy: an untrained one."""
        meter = self._meter
        return Run(
            seed=seed,
            figures=campaign.untrained or {},
            queries=meter.queries_spent,
            repeats=meter.repeats,
            calls=meter.calls,
            money=meter.charge(campaign.price),
            partial=f"{self.refusal}; {meter.queries_spent} answers, too few to train on",
        )


class _Refusals:
    """Notes whether the last call was refused."""

    def __init__(self, victim: Encoder, asked: _Asked) -> None:
        self.name, self.dim, self.accepts = victim.name, victim.dim, victim.accepts
        self._victim, self._asked = victim, asked

    def embed(self, inputs: Batch) -> Embeddings:
        try:
            rows = self._victim.embed(inputs)
        except RefusalError as error:
            lasting = not isinstance(error, AuthenticationError)
            self._asked.refusal = error if lasting else None
            raise
        self._asked.refusal = None
        return rows


def _self_trained(
    campaign: Campaign, gauge: Scorer, budget: int, progress: Progress
) -> dict[str, float]:
    """Score the copy's network, trained by itself on as many inputs as a budget pays for.

    Returns:
        Its figures; none if it cannot be trained so.
    """
    from tollkeeper.bench.theft.floors import self_trained

    try:
        floor = self_trained(
            campaign.pool.inputs[: campaign.inputs(budget)],
            part(campaign.attack, "network"),
            campaign.victim.encoder.dim,
            schedule=part(campaign.attack, "schedule"),
            rng=np.random.default_rng(_SELF_TRAINED),
            progress=progress,
        )
        progress(Step("scoring", 0, 1))
        return gauge.figures(floor)
    except TollkeeperError:  # a schedule that suits the attack can be too fast for SimCLR
        return {}


def _labeled(attack: Attack, pool: Pool) -> Attack:
    """Hand the pool's labels to an attack that needs them."""
    if not needs_labels(attack):
        return attack
    labeled: Attack = replace(attack, labels=pool.labels)  # type: ignore[type-var]  # a dataclass
    return labeled


def _under(label: str, told: Told) -> Progress:
    return lambda step: told(label, step)
