"""Experiment `guard-pools`: what tells sybils from strangers, and what linking them changes.

Pairs of accounts are compared by the share of common inputs that their sketches tell: two
strangers of different subjects, two customers of one subject, two accounts of a thief that
share nothing but the pool they draw from, and two that ask a hundred inputs in common, which
is what mapping one's answers onto the other's takes. Then pairs and sybils are linked, and
what that costs and gains is read from the guard's price.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.figures.subjects import subjects
from tollkeeper.bench.figures.traffic import Stage, load_stage
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings, Sketch

LINKED_FROM = 0.04
"""Share of common inputs at which the figures link, with at least as many hashes as the gateway
asks for: between what strangers have in common and what anchors leave."""

_FEWEST_SEEN = 8
_ANCHORS = 100
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
    steps = len(setting.encoders) * (1 + setting.secrets)
    for number, name in enumerate(setting.encoders):
        done = number * (1 + setting.secrets)
        context.progress(done, steps, f"embedding for {name}")
        stage = load_stage(name, limit=setting.limit, rng=context.rng(0, number), data=data)
        for secret in range(setting.secrets):
            context.progress(done + 1 + secret, steps, f"{name}, secret {secret + 1}")
            rng = context.rng(1, number, secret)
            guard = Guard(profiles.RECOMMENDED, stage.calibration, secret=rng.bytes(32))
            _compare(guard, stage, setting, samples, rng)
            _link_sybils(guard, stage, setting, samples, rng)
    return Measurement(samples.metrics(), data=data)


def _compare(
    guard: Guard, stage: Stage, setting: Setting, samples: Samples, rng: np.random.Generator
) -> None:
    layout = guard.profile.layout
    for count in setting.counts:
        for kind, one, other in _pairs(stage, count, rng):
            mine, theirs = (guard.mark(guard.empty(), rows) for rows in (one, other))
            shared, seen = layout.shared(mine, theirs)
            named = f"{stage.encoder}.{kind}.n{count}"
            samples.add(f"shared.{named}", shared, "higher" if kind in _OURS else "lower")
            linked = shared >= LINKED_FROM and seen >= _FEWEST_SEEN
            samples.add(f"linked.{named}", float(linked), "higher" if kind in _OURS else "lower")
            if kind not in _THIEVES:
                pays = _pays(guard, layout.merge(mine, theirs)) and not (
                    _pays(guard, mine) or _pays(guard, theirs)
                )
                samples.add(f"false_link_pays.{named}", float(pays), "lower")


_OURS = {"anchors", "edited_anchors"}
"""Kinds of pairs that ought to be linked."""

_THIEVES = {*_OURS, "disjoint"}


def _pairs(
    stage: Stage, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, Embeddings, Embeddings]]:
    """Yield pairs of accounts with `count` inputs each: kind, and what each asks."""
    cut = [one.embeddings for one in subjects(stage, rng=rng)]
    for one, other in combinations([rows for rows in cut if len(rows) >= count], 2):
        yield "strangers", one[:count], other[:count]
    for rows in cut:
        if len(rows) >= 2 * count:
            yield "one_subject", rows[:count], rows[count : 2 * count]
    pool = rng.permutation(stage.pool.embeddings)
    for at in range(0, min(len(pool) - 2 * count, 6 * count), 2 * count):
        one, other = pool[at : at + count], pool[at + count : at + 2 * count]
        yield "disjoint", one, other
        anchors = one[:_ANCHORS]
        yield "anchors", one, np.concatenate([anchors, other[_ANCHORS:]])
        yield "edited_anchors", one, np.concatenate([_edited(anchors, rng), other[_ANCHORS:]])


def _edited(rows: Embeddings, rng: np.random.Generator) -> Embeddings:
    """Return near-duplicates of rows, as small edits of the inputs would give."""
    away = rng.standard_normal(rows.shape).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    edited: Embeddings = _EDIT * rows + np.sqrt(1 - _EDIT**2) * lengths * away
    return edited.astype(np.float32)


def _pays(guard: Guard, sketch: Sketch) -> bool:
    return guard.fraction(sketch) > guard.profile.price.free_until


def _link_sybils(
    guard: Guard, stage: Stage, setting: Setting, samples: Samples, rng: np.random.Generator
) -> None:
    """Count the free inputs of k accounts of a thief, each on its own and all on one pool."""
    pool = rng.permutation(stage.pool.embeddings)
    for count in setting.sybils:
        parts = np.array_split(pool, count)
        alone = sum(_free(guard, guard.empty(), part) for part in parts)
        turns = np.concatenate([pool[at::count] for at in range(count)])
        linked = _free(guard, guard.empty(), turns)
        named = f"{stage.encoder}.k{count}"
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
    promises=("shared.*", "linked.*", "false_link_pays.*", "free_alone.*", "free_linked.*"),
    covers=("recommended",),
)
