"""Experiment `guard-pools`: what tells sybils from strangers, and what linking them changes.

Pairs of accounts are compared by the share of common inputs that their sketches tell: two
strangers of different narrow subjects, two customers of one, the same of wider subjects, two
accounts of a thief that share nothing but the pool they draw from, and two that ask some inputs
in common, which is what mapping one's answers onto the other's takes. Then honest accounts and
sybils are linked, and what that costs and gains is read from the guard's price.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.figures.subjects import Scene, scenes, subjects
from tollkeeper.bench.figures.traffic import Stage
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings, Sketch

LINKED_FROM = 0.04
"""Share of common inputs at which the figures link, with at least as many hashes as the gateway
asks for. Chosen on these same pairs: above most of what strangers have in common, below what a
hundred anchors leave in accounts of six hundred."""

_FEWEST_SEEN = 8
_ANCHORS, _FEW_ANCHORS = 100, 30
_EDIT = 0.999


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared.

    Attributes:
        encoders: names of `encoders.MODALITY`.
        secrets: deployment secrets, each with its own order of inputs.
        limit: inputs of a task or pool at most.
        counts: inputs of each account that is compared.
        sybils: accounts of one thief.
    """

    encoders: tuple[str, ...] = ("builtin:text", "lsa", "builtin:image", "patches")
    secrets: int = 3
    limit: int = 12_000
    counts: tuple[int, ...] = (300, 600, 1500)
    sybils: tuple[int, ...] = (2, 5, 10)


def measure(setting: Setting, context: Context) -> Measurement:
    """Compare and link accounts of every encoder with every secret.

    Raises:
        ConfigurationError: an unknown encoder.
        DataError: a data set is missing or damaged.
    """
    samples, data = Samples(), dict[str, str]()
    for scene in scenes(setting.encoders, setting.secrets, setting.limit, context, data):
        for count in setting.counts:
            for name, value in _compare(scene, count).items():
                wanted = name.split(".")[2] in _OURS
                samples.add(name, value, "higher" if wanted else "lower")
            for name, value in _chained(scene, count).items():
                samples.add(name, value, "lower")
        _link_sybils(scene, setting, samples)
    return Measurement(samples.metrics(), data=data)


def _compare(scene: Scene, count: int) -> dict[str, float]:
    """Return means over the pairs of each kind with one secret."""
    guard, layout = scene.guard, scene.guard.profile.layout
    found: dict[str, list[float]] = {}
    for kind, one, other in _pairs(scene.stage, count, scene.rng):
        mine, theirs = (guard.mark(guard.empty(), rows) for rows in (one, other))
        named = f"{scene.stage.encoder}.{kind}.n{count}"
        found.setdefault(f"shared.{named}", []).append(layout.shared(mine, theirs)[0])
        found.setdefault(f"linked.{named}", []).append(float(_linked(guard, mine, theirs)))
        if kind not in _THIEVES:
            alone = _pays(guard, mine) or _pays(guard, theirs)
            pays = _pays(guard, layout.merge(mine, theirs)) and not alone
            found.setdefault(f"false_link_pays.{named}", []).append(float(pays))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _linked(guard: Guard, mine: Sketch, theirs: Sketch) -> bool:
    shared, seen = guard.profile.layout.shared(mine, theirs)
    return shared >= LINKED_FROM and seen >= _FEWEST_SEEN


def _chained(scene: Scene, count: int) -> dict[str, float]:
    """Link all honest subjects that overlap, and those that these are linked to.

    Returns:
        The share of accounts that pay on such a pool and would not alone.
    """
    guard, layout = scene.guard, scene.guard.profile.layout
    cut = [one.embeddings for one in subjects(scene.stage, rng=scene.rng)]
    own = [guard.mark(guard.empty(), rows[:count]) for rows in cut if len(rows) >= count]
    if not own:
        return {}
    group = list(range(len(own)))
    for one, other in combinations(range(len(own)), 2):
        if _linked(guard, own[one], own[other]):
            joined, left = group[one], group[other]
            group = [joined if number == left else number for number in group]
    wronged = 0
    for number, mine in enumerate(own):
        pool = mine
        for other, theirs in enumerate(own):
            if group[other] == group[number]:
                pool = layout.merge(pool, theirs)
        wronged += _pays(guard, pool) and not _pays(guard, mine)
    return {f"wrongly_pays.{scene.stage.encoder}.n{count}": wronged / len(own)}


_OURS = {"anchors", "few_anchors", "edited_anchors"}
"""Kinds of pairs that ought to be linked."""

_THIEVES = {*_OURS, "disjoint"}


def _pairs(
    stage: Stage, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, Embeddings, Embeddings]]:
    """Yield pairs of accounts with `count` inputs each: kind, and what each asks."""
    cut = [one for one in subjects(stage, rng=rng) if len(one.embeddings) >= count]
    for left, right in combinations(cut, 2):
        kind = "strangers" if left.narrow and right.narrow else "wide_strangers"
        yield kind, left.embeddings[:count], right.embeddings[:count]
    for one in cut:
        if len(one.embeddings) >= 2 * count:
            kind = "one_subject" if one.narrow else "wide_one_subject"
            yield kind, one.embeddings[:count], one.embeddings[count : 2 * count]
    pool = rng.permutation(stage.pool.embeddings)
    for at in range(0, min(len(pool) - 2 * count, 6 * count), 2 * count):
        mine, theirs = pool[at : at + count], pool[at + count : at + 2 * count]
        yield "disjoint", mine, theirs
        anchors, rest = mine[:_ANCHORS], theirs[_ANCHORS:]
        yield "anchors", mine, np.concatenate([anchors, rest])
        few = [mine[:_FEW_ANCHORS], theirs[_FEW_ANCHORS:]]
        yield "few_anchors", mine, np.concatenate(few)
        yield "edited_anchors", mine, np.concatenate([_edited(anchors, rng), rest])


def _edited(rows: Embeddings, rng: np.random.Generator) -> Embeddings:
    """Return near-duplicates of rows, as small edits of the inputs would give."""
    away = rng.standard_normal(rows.shape).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    edited: Embeddings = _EDIT * rows + np.sqrt(1 - _EDIT**2) * lengths * away
    return edited.astype(np.float32)


def _pays(guard: Guard, sketch: Sketch) -> bool:
    return guard.fraction(sketch) > guard.profile.price.free_until


def _link_sybils(scene: Scene, setting: Setting, samples: Samples) -> None:
    """Count the free inputs of k accounts of a thief, each on its own and all on one pool.

    Each asks a part of the pool, which is dealt out at random or region by region, whichever
    gives more.
    """
    guard, orders = scene.guard, list(scene.orders())
    for count in setting.sybils:
        alone = max(
            sum(_free(guard, guard.empty(), part) for part in np.array_split(pool, count))
            for pool in orders
        )
        linked = max(_free(guard, guard.empty(), pool) for pool in orders)
        named = f"{scene.stage.encoder}.k{count}"
        samples.add(f"free_alone.{named}", float(alone), "lower", "inputs")
        samples.add(f"free_linked.{named}", float(linked), "lower", "inputs")


def _free(guard: Guard, sketch: Sketch, rows: Embeddings) -> int:
    """Return how many inputs are asked before one is paid for."""
    signal = guard.signal(sketch, rows)
    return int(np.searchsorted(signal, guard.profile.price.free_until, side="right"))


EXPERIMENT = Experiment(
    id="guard-pools",
    title="common inputs of sybils and of strangers, and what linking costs and gains",
    scales={
        "smoke": Setting(
            encoders=("builtin:text",), secrets=1, limit=1200, counts=(150,), sybils=(2,)
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "shared.*",
        "linked.*",
        "false_link_pays.*",
        "wrongly_pays.*",
        "free_alone.*",
        "free_linked.*",
    ),
    covers=("recommended",),
)
