"""From what a user asks for to a campaign that is ready to run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks import names
from tollkeeper.attacks.base import Attack, Clock, accounts_in
from tollkeeper.attacks.names import Copies
from tollkeeper.bench import manifest
from tollkeeper.bench.theft import victims
from tollkeeper.bench.theft.campaign import Campaign, Scorer, Told, check_plan
from tollkeeper.bench.theft.findings import Findings
from tollkeeper.bench.theft.gauge import blank_copy, gauge_for, hold_out, yardstick
from tollkeeper.bench.theft.pools import Pool
from tollkeeper.bench.theft.tasks import IMAGE_TASKS, TEXT_TASKS, Task, load_task, scaled
from tollkeeper.bench.theft.tuning import Scale, described, prepared, scale_named
from tollkeeper.bench.theft.victims import Victim
from tollkeeper.client import Caps, Tariff
from tollkeeper.client.allowance import UNLIMITED
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Step

TASKS: Mapping[str, tuple[str, ...]] = {"image": IMAGE_TASKS, "text": TEXT_TASKS}
"""Modality to its tasks."""

_TASK_DRAWS = 2000
"""Seed of the choice of task inputs; seeds of runs are below."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Order:
    """What a user asks for.

    Attributes:
        attack: name in the table.
        target: SPEC of an encoder of this process, or an address.
        pool: the attacker's inputs in random order.
        budgets: distinct queries, rising.
        folder: where transcripts of a live target lie.
        tasks: names; None for those of the modality, or for none where a live target would
            have to be asked about them.
        reference: SPEC of the clean victim; None to take the target itself.
        seeds: runs of each budget.
        scale: of `tuning.SCALES`.
        settings: changes of the attack, setting to text.
        price: of one input.
        profile: guard before an encoder of this process; None for none.
        accounts: identities of the attacker in this process; a live target has one a key.
        keys: API keys of a live target.
        caps: the most that a live target may be sent.
        concurrency: requests to it at once.
        data: checksums of the data sets used so far.
        date: of the order, for the report.
        command: that gave it, for the report.
    """

    attack: str
    target: str
    pool: Pool
    budgets: tuple[int, ...]
    folder: Path
    tasks: tuple[str, ...] | None = None
    reference: str | None = None
    seeds: int = 3
    scale: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)
    price: float = 0.0
    profile: str | None = None
    accounts: int = 1
    keys: Sequence[str] = field(default=(), repr=False)
    caps: Caps = UNLIMITED
    concurrency: int = 4
    data: dict[str, str] = field(default_factory=dict)
    date: str = ""
    command: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the target is asked over HTTP."""
        return victims.is_address(self.target)

    @property
    def modality(self) -> str:
        """What the inputs are."""
        return "image" if isinstance(self.pool.inputs, np.ndarray) else "text"

    def task_names(self) -> tuple[str, ...]:
        """Return the tasks to score on.

        Raises:
            ConfigurationError: one is not of this modality.
        """
        known = TASKS[self.modality]
        if self.tasks is None:
            return () if self.is_live and self.reference is None else known
        for name in self.tasks:
            if name not in known:
                raise ConfigurationError(
                    f"no {self.modality} task {name!r}; choose {', '.join(known)} or none"
                )
        return self.tasks


def text_pool(name: str, texts: Iterable[str], rng: np.random.Generator) -> Pool:
    """Make a pool of a user's texts: shuffled, and of equal ones one is kept."""
    distinct = list(dict.fromkeys(texts))
    return Pool(name, [distinct[at] for at in rng.permutation(len(distinct))], None)


def image_pool(name: str, images: Iterable[NDArray[np.uint8]], rng: np.random.Generator) -> Pool:
    """Make a pool of a user's images (h, w, 3): shuffled, and scaled to 32x32 as in all pools."""
    small = scaled(images)
    return Pool(name, small[rng.permutation(len(small))], None)


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A campaign that can begin.

    Attributes:
        campaign: to be run.
        gauge: to score it by.
        findings: what is known before the first run.
    """

    campaign: Campaign
    gauge: Scorer
    findings: Findings


@contextmanager
def opened(order: Order, *, clock: Clock, told: Told) -> Iterator[Ready]:
    """Prepare a campaign; a live target stays open for as long as the block runs.

    Everything that can be refused is refused before the target is asked anything.

    Args:
        order: what to do.
        clock: seconds.
        told: of progress.

    Raises:
        ConfigurationError: an order that makes no sense; torch is missing.
        DataError: a data set is missing.
        TollkeeperError: the target refused or failed when asked for its width or for scoring.
    """
    entry = names.find(order.attack)
    if order.modality not in entry.accepts:
        raise ConfigurationError(
            f"{order.attack} copies {' and '.join(sorted(entry.accepts))} encoders, "
            f"got {order.modality} inputs"
        )
    scale = scale_named(order.scale)
    text = order.modality == "text"
    attack = prepared(order.attack, scale=scale, text=text, settings=order.settings)
    wanted = order.task_names()
    tasks = _load(wanted, scale, order.data, told)
    pool, held_out = (order.pool, ()) if tasks else hold_out(order.pool)
    accounts = max(1, len(order.keys)) if order.is_live else order.accounts
    check_plan(attack, pool, order.budgets, accounts=accounts, seeds=order.seeds)
    with ExitStack() as stack:
        victim = _victim(order, pool, stack, clock)
        clean = load_encoder(order.reference) if order.reference else victim.clean
        for encoder in (victim.encoder, clean):
            if order.modality not in encoder.accepts:
                raise ConfigurationError(
                    f"{encoder.name} takes {' and '.join(sorted(encoder.accepts))}, "
                    f"got {order.modality} inputs"
                )
        campaign = Campaign(
            attack=attack,
            victim=victim,
            pool=pool,
            budgets=order.budgets,
            seeds=order.seeds,
            price=Tariff(per_input=order.price),
        )
        bare = blank_copy(attack, victim.encoder.dim, pool.inputs)
        told("the victim", Step("scoring", 0, 1))
        measured = yardstick(clean, tasks=tasks, inputs=held_out)
        told("an untrained network", Step("scoring", 0, 1))
        gauge = gauge_for(measured, bare)
        found = findings(
            order,
            attack,
            campaign,
            wanted,
            victim_figures=gauge.yardstick.victim.named(),
            untrained=gauge.floor(),
            asked=gauge.yardstick.asked,
        )
        yield Ready(campaign, gauge, found)


def _load(wanted: Sequence[str], scale: Scale, data: dict[str, str], told: Told) -> list[Task]:
    rng = np.random.default_rng(_TASK_DRAWS)
    tasks = []
    for number, name in enumerate(wanted):
        told(name, Step("loading", number, len(wanted)))
        tasks.append(load_task(name, train=scale.train, test=scale.test, rng=rng, data=data))
    return tasks


def _victim(order: Order, pool: Pool, stack: ExitStack, clock: Clock) -> Victim:
    if order.is_live:
        opening = victims.live(
            order.target,
            order.keys,
            folder=order.folder,
            price=order.price,
            caps=order.caps,
            concurrency=order.concurrency,
            probe=pool.inputs[0],
        )
        return stack.enter_context(opening)
    if order.profile is not None:
        return victims.guarded(
            order.target, order.profile, pool.inputs, accounts=order.accounts, clock=clock
        )
    return victims.in_process(order.target, accounts=order.accounts)


def findings(
    order: Order,
    attack: Attack,
    campaign: Campaign,
    tasks: tuple[str, ...],
    *,
    victim_figures: Mapping[str, float],
    untrained: Mapping[str, float],
    asked: int,
    copies: Copies = "encoder",
) -> Findings:
    """Return what is known before the first run.

    Args:
        order: what the user asked for.
        attack: as it is run.
        campaign: to be run.
        tasks: names of what copies are scored on.
        victim_figures: of the clean victim.
        untrained: figures of the untrained copy.
        asked: inputs that the clean victim was asked for scoring.
        copies: what is copied.
    """
    victim = campaign.victim
    asks_target = victim.is_live and order.reference is None
    return Findings(
        attack=order.attack,
        source=names.find(order.attack).source,
        date=order.date,
        command=order.command,
        settings=described(attack),
        target=order.target,
        profile=order.profile,
        model=victim.encoder.name,
        dim=victim.encoder.dim,
        is_live=victim.is_live,
        accounts=accounts_in(victim.encoder),
        pool=order.pool.name,
        pool_size=len(campaign.pool.inputs),
        reference=order.reference or order.target,
        is_clean=not asks_target,
        scored_on=asked,
        scoring_queries=asked if asks_target else 0,
        tasks=tasks,
        scale=order.scale,
        seeds=order.seeds,
        budgets=order.budgets,
        price=order.price,
        victim=victim_figures,
        untrained=untrained,
        copies=copies,
        manifest=_manifest(order),
    )


def _manifest(order: Order) -> dict[str, Any]:
    return {
        "git": manifest.git(),
        "versions": manifest.versions(),
        "hardware": manifest.hardware(),
        "data": dict(order.data),
    }
