"""Experiment `guard-coverage`: how fast accounts cover the space, and what that does to answers.

A narrow account asks about one subject, a broad one about everything; both walk through
`Guard.admit` in a random order, once for each of several deployment secrets. Every figure
is the mean over secrets, and its interval is their whole range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import (
    BenchError,
    Context,
    Direction,
    Experiment,
    Measurement,
    Metric,
)
from tollkeeper.bench.inputs import noted
from tollkeeper.data import load_images, load_text
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.price import Geometric
from tollkeeper.types import Batch, Embeddings, Sketch

NEIGHBORS = 10
_REQUEST = 4096
_CAT, _DOG = 3, 5


@dataclass(frozen=True, slots=True)
class Setting:
    """What is walked.

    Attributes:
        encoders: SPECs of built-in encoders.
        profiles: guard profiles.
        counts: inputs after which coverage is read, besides all.
        secrets: deployment secrets, each with its own order of inputs.
        limit: inputs per traffic at most.
        sample: answers, and as many clean embeddings, that recall@10 is taken among.
    """

    encoders: tuple[str, ...] = ("builtin:text", "builtin:image")
    profiles: tuple[str, ...] = ("recommended", "b4b-2023")
    counts: tuple[int, ...] = (100, 300, 1000, 3000, 5000, 10_000, 20_000)
    secrets: int = 20
    limit: int = 100_000
    sample: int = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Everything one kind of account asks.

    Attributes:
        name: for metric names.
        embeddings: (n, d) clean.
        broad: whether it ought to pay.
    """

    name: str
    embeddings: Embeddings
    broad: bool

    @property
    def covering(self) -> Direction:
        """Whether more or less coverage is better."""
        return "higher" if self.broad else "lower"

    @property
    def answering(self) -> Direction:
        """Whether more or less accurate answers are better."""
        return "lower" if self.broad else "higher"


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One encoder's traffics, embedded once.

    Attributes:
        name: of the encoder, for metric names.
        traffics: narrow ones first.
        calibration: of the encoder.
    """

    name: str
    traffics: tuple[Traffic, ...]
    calibration: Calibration


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """One account that asked all of its inputs.

    Attributes:
        coverage: inputs asked to coverage.
        free: inputs answered before the first one with noise.
        charged: inputs charged.
        sketch: at the end.
    """

    coverage: Mapping[int, float]
    free: int
    charged: float
    sketch: Sketch


@dataclass(slots=True)
class Samples:
    """Values over secrets, by metric name."""

    _values: dict[str, list[float]] = field(default_factory=dict)
    _kinds: dict[str, tuple[str, Direction]] = field(default_factory=dict)

    def add(self, name: str, value: float, direction: Direction, unit: str = "share") -> None:
        """Add one secret's value."""
        self._values.setdefault(name, []).append(value)
        self._kinds[name] = (unit, direction)

    def metrics(self) -> dict[str, Metric]:
        """Return means with the range over secrets as interval; a single value has none."""
        return {
            name: Metric(
                float(np.mean(found)),
                *self._kinds[name],
                (min(found), max(found)) if len(found) > 1 else None,
            )
            for name, found in self._values.items()
        }


def measure(setting: Setting, context: Context) -> Measurement:
    """Embed every traffic once, then walk it with every profile and secret.

    Raises:
        ConfigurationError: an encoder without traffics.
        DataError: a data set is missing or damaged.
    """
    samples = Samples()
    data: dict[str, str] = {}
    facts: dict[str, object] = {}
    for number, spec in enumerate(setting.encoders):
        steps = len(setting.profiles) * setting.secrets
        context.progress(number * steps, len(setting.encoders) * steps, f"embedding for {spec}")
        stage = embed_all(spec, setting, data, rng=context.rng(0, number))
        facts[stage.name] = {
            "inputs": {traffic.name: len(traffic.embeddings) for traffic in stage.traffics},
            "feature_std": stage.calibration.feature_std,
        }
        walk_all(stage, setting, context, samples, number=number)
    return Measurement(samples.metrics(), diagnostics=facts, data=data)


def walk_all(
    stage: Stage, setting: Setting, context: Context, samples: Samples, *, number: int
) -> None:
    """Add the figures of encoder `number` for every profile, secret and traffic."""
    total = len(setting.encoders) * len(setting.profiles) * setting.secrets
    for place, profile in enumerate(setting.profiles):
        for secret in range(setting.secrets):
            done = (number * len(setting.profiles) + place) * setting.secrets + secret
            context.progress(done, total, f"{stage.name}, {profile}")
            rng = context.rng(1, secret)
            # Without a ceiling, so that the whole curve is seen.
            open_ended = replace(profiles.get(profile), ceiling=None)
            guard = Guard(open_ended, stage.calibration, secret=rng.bytes(32))
            for traffic in stage.traffics:
                _follow(guard, stage.name, traffic, setting, samples, rng=rng)
            narrow = [traffic for traffic in stage.traffics if not traffic.broad][-1]
            clean = rng.permutation(narrow.embeddings)[: setting.sample]
            for level, recall in enumerate(recall_by_level(guard, clean, rng=rng), start=1):
                name = f"recall10_at_level.{stage.name}.{profile}.l{level}"
                samples.add(name, recall, "lower")


def _follow(
    guard: Guard,
    encoder: str,
    traffic: Traffic,
    setting: Setting,
    samples: Samples,
    *,
    rng: np.random.Generator,
) -> None:
    """Walk one traffic in random order and add its figures."""
    profile = guard.profile
    name = f"{encoder}.{profile.name}.{traffic.name}"
    embeddings = rng.permutation(traffic.embeddings)
    walked = walk(guard, embeddings, setting.counts, rng=rng)
    for count, coverage in walked.coverage.items():
        suffix = "all" if count == len(embeddings) else f"n{count}"
        samples.add(f"coverage.{name}.{suffix}", coverage, traffic.covering)
    share = walked.charged / len(embeddings)
    samples.add(f"charged_share.{name}", share, traffic.covering)
    if traffic.broad and profile.price.free_until > 0:
        samples.add(f"free_broad.{encoder}.{profile.name}", walked.free, "lower", "inputs")
    recall = recall_at(guard, walked.sketch, embeddings[: setting.sample], rng=rng)[0]
    samples.add(f"recall10.{name}", recall, traffic.answering)


def walk(
    guard: Guard, embeddings: Embeddings, counts: Sequence[int], *, rng: np.random.Generator
) -> Walk:
    """Ask all of (n, d) embeddings for one account, reading coverage after `counts` and n."""
    total = len(embeddings)
    stops = {*(count for count in counts if count < total), total}
    key, sketch = guard.tenant_key("walker"), guard.empty()
    coverage: dict[int, float] = {}
    charged, free, start = 0.0, total, 0
    for end in sorted(stops | set(range(_REQUEST, total, _REQUEST))):
        verdict = guard.admit(sketch, embeddings[start:end], key=key, rng=rng)
        sketch, charged = verdict.sketch, charged + verdict.charge
        noisy = np.flatnonzero(verdict.noise_scale)
        if noisy.size:
            free = min(free, start + int(noisy[0]))
        if end in stops:
            coverage[end] = verdict.coverage
        start = end
    return Walk(coverage, free, charged, sketch)


def recall_at(
    guard: Guard, sketch: Sketch, clean: Embeddings, *, rng: np.random.Generator
) -> tuple[float, float]:
    """Return recall@10 of the guard's answers at a sketch, and their largest noise scale."""
    verdict = guard.admit(sketch, clean, key=guard.tenant_key("walker"), rng=rng)
    found, wanted = nearest(verdict.embeddings), nearest(clean)
    shared = (found[:, :, None] == wanted[:, None, :]).any(axis=2)
    return float(shared.mean()), float(verdict.noise_scale.max())


def recall_by_level(
    guard: Guard, clean: Embeddings, *, rng: np.random.Generator
) -> Iterator[float]:
    """Yield recall@10 at each price level; nothing where the price has no levels.

    The account has asked as much of `clean` as is free; then its sketch is filled with random
    bits up to the middle of each level.

    Raises:
        BenchError: hardly any input is free.
    """
    price = guard.profile.price
    if not isinstance(price, Geometric):
        return
    clean = clean[guard.signal(guard.empty(), clean) <= price.knee]
    if len(clean) <= NEIGHBORS:
        raise BenchError(f"expected more than {NEIGHBORS} free inputs, got {len(clean)}")
    asked = guard.admit(guard.empty(), clean, key=guard.tenant_key("walker"), rng=rng).sketch
    unit = guard.calibration.feature_std if guard.profile.in_feature_std else 1.0
    for level in range(price.levels):
        fraction = price.knee + (level + 0.5) * price.step
        sketch = filled(asked, fraction, guard.profile.layout, rng=rng)
        recall, scale = recall_at(guard, sketch, clean, rng=rng)
        expected = price.first * price.growth**level * unit
        if not np.isclose(scale, expected):
            raise BenchError(f"expected noise of scale {expected} at level {level}, got {scale}")
        yield recall


def filled(sketch: Sketch, fraction: float, layout: Layout, *, rng: np.random.Generator) -> Sketch:
    """Return a sketch with random further bits, until the price reads `fraction`."""
    seen = np.unpackbits(sketch)
    priced = seen[layout.priced]  # a view
    missing = max(0, round(fraction * layout.priced_count) - int(priced.sum()))
    priced[rng.permutation(np.flatnonzero(priced == 0))[:missing]] = 1
    return np.packbits(seen)


def nearest(rows: Embeddings) -> NDArray[np.intp]:
    """Return each row's ten nearest other rows by cosine, (n, 10) in no order."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argpartition(likeness, -NEIGHBORS, axis=1)[:, -NEIGHBORS:]


# -- inputs ----------------------------------------------------------------------

_Parts = list[Batch]


def embed_all(
    spec: str, setting: Setting, data: dict[str, str], *, rng: np.random.Generator
) -> Stage:
    """Load and embed all traffics of an encoder; adds checksums to `data`.

    Raises:
        ConfigurationError: there are none for this encoder.
    """
    if spec not in _TRAFFICS:
        known = ", ".join(_TRAFFICS)
        raise ConfigurationError(f"expected an encoder with traffics ({known}), got {spec!r}")
    encoder = load_encoder(spec)
    calibration = calibration_for(spec, encoder.dim, given=None, required=True)
    traffics = []
    for name, parts in _TRAFFICS[spec](data).items():
        share = setting.limit // len(parts)
        rows = [encoder.embed(_some(part, share, rng=rng)) for part in parts]
        traffics.append(Traffic(name, np.concatenate(rows), name == "broad"))
    return Stage(spec.removeprefix("builtin:"), tuple(traffics), calibration)


def _some(inputs: Batch, count: int, *, rng: np.random.Generator) -> Batch:
    """Return at most `count` inputs, chosen at random."""
    if len(inputs) <= count:
        return inputs
    chosen = rng.permutation(len(inputs))[:count]
    return inputs[chosen] if isinstance(inputs, np.ndarray) else [inputs[i] for i in chosen]


def _texts(data: dict[str, str]) -> dict[str, _Parts]:
    """Return all Banking77 questions, and distinct news, reviews and encyclopedia passages."""
    narrow = [*noted(load_text, data, "banking77", "train", "test")]
    named = {
        "ag_news": ("train", "test"),
        "sst2": ("train",),
        "mr": ("all",),
        "wikitext2": ("validation", "test"),
    }
    found = [
        part for name, splits in named.items() for part in noted(load_text, data, name, *splits)
    ]
    distinct = sorted({text for part in found for text in part.inputs})
    return {"narrow": [part.inputs for part in narrow], "broad": [distinct]}


def _images(data: dict[str, str]) -> dict[str, _Parts]:
    """Return CIFAR-10 cats, cats and dogs, and a mix of things, scenes and traffic signs."""
    (animals,) = noted(load_images, data, "cifar10", "test")
    named = {
        "tiny_imagenet": ("train",),
        "cifar100": ("train", "test"),
        "gtsrb32": ("train", "test"),
    }
    mix = [
        part for name, splits in named.items() for part in noted(load_images, data, name, *splits)
    ]
    pictures, labels = np.asarray(animals.inputs), np.asarray(animals.labels)
    return {
        "one_class": [pictures[labels == _CAT]],
        "two_classes": [pictures[np.isin(labels, [_CAT, _DOG])]],
        "broad": [part.inputs for part in mix],
    }


_TRAFFICS: Mapping[str, Callable[[dict[str, str]], dict[str, _Parts]]] = {
    "builtin:text": _texts,
    "builtin:image": _images,
}


EXPERIMENT = Experiment(
    id="guard-coverage",
    title="coverage, charges and recall of narrow and broad accounts",
    scales={
        "smoke": Setting(counts=(100, 300), secrets=2, limit=600, sample=200),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "coverage.*.narrow.all",
        "coverage.*.broad.all",
        "charged_share.*",
        "free_broad.*",
        "recall10.*",
        "recall10_at_level.*",
    ),
    covers=("recommended", "b4b-2023"),
)
