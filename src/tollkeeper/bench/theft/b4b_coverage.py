"""Experiment `b4b-coverage`: how much of the space an account has covered after n queries.

Each account asks one data set and nothing else, one input after the other, and the live guard
charges it for each; nothing is computed beforehand. Three hashes are compared under one price:
B4B's own, which splits raw embeddings at zero; the same split at the medians of a calibration
sample; and that in whitened coordinates. One secret draws the same normals for all three.
Transforms are left out, since coverage is taken of clean embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.experiment import Context, Direction, Experiment, Measurement
from tollkeeper.bench.guard_coverage import Samples, walk
from tollkeeper.bench.inputs import noted
from tollkeeper.bench.theft.pools import load_pool
from tollkeeper.bench.theft.tasks import SIDE, STANDS_IN_FOR, load_task, select
from tollkeeper.data import load_images
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.planes import Gaussian, GaussianPlanes
from tollkeeper.guard.transform import Unchanged
from tollkeeper.types import Batch, Embeddings

Labels = NDArray[np.int64]
Loaded = tuple[Batch, Labels | None]

_LEAST_EIGENVALUE = 1e-6
"""Of the largest; below it a direction is float32 rounding, which whitening would blow up."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is walked.

    Attributes:
        encoders: SPECs.
        counts: queries after which coverage is read, besides all.
        secrets: deployment secrets, each with its own orders of inputs.
        limit: queries per account at most.
        calibration: embeddings that medians and whitening are taken of.
    """

    encoders: tuple[str, ...] = ("builtin:image", "builtin:text")
    counts: tuple[int, ...] = (100, 300, 1000, 2000, 5000, 10_000, 20_000)
    secrets: int = 3
    limit: int = 30_000
    calibration: int = 5000


@dataclass(frozen=True, slots=True)
class Whitened:
    """Draws standard normal hyperplanes of the space in which the calibration sample is white."""

    def draw(
        self, key: bytes, calibration: Calibration, count: int, *, centered: bool
    ) -> GaussianPlanes:
        """Draw (d, count) normals as `Gaussian` does and carry them back to raw embeddings."""
        normals = Gaussian().draw(key, calibration, count, centered=False).matrix
        matrix = (whitening(calibration.sample) @ normals).astype(np.float32)
        thresholds = calibration.thresholds(matrix) if centered else np.zeros(count, np.float32)
        return GaussianPlanes(matrix, thresholds)


_RAW = replace(profiles.B4B_2023, transform=Unchanged())
HASHES = {
    "raw": _RAW,
    "centered": replace(_RAW, centered=True),
    "whitened": replace(_RAW, centered=True, planes=Whitened()),
}
"""Profiles by name; all but the hash is that of `b4b-2023`."""


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """One account's queries.

    Attributes:
        name: for metric names.
        embeddings: (n, d) clean.
        labels: (n,) classes to sort by; None for an account with nothing to sort.
        broad: whether it ought to cover much.
    """

    name: str
    embeddings: Embeddings
    labels: Labels | None
    broad: bool


@dataclass(frozen=True, slots=True)
class Source:
    """Inputs that are loaded and embedded together.

    Attributes:
        name: of the account that asks all of them.
        load: takes the most inputs wanted, randomness and where to note checksums.
        broad: whether that account ought to cover much.
        parts: further accounts, which ask some classes only.
    """

    name: str
    load: Callable[[int, np.random.Generator, dict[str, str]], Loaded]
    broad: bool = False
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class World:
    """What there is for encoders of one modality.

    Attributes:
        sources: of queries.
        sample: takes randomness and where to note checksums; returns inputs such as the built-in
            encoder was trained on, to calibrate with.
    """

    sources: tuple[Source, ...]
    sample: Callable[[np.random.Generator, dict[str, str]], Batch]


def measure(setting: Setting, context: Context) -> Measurement:
    """Embed source after source and walk its accounts with every hash and secret.

    Raises:
        ConfigurationError: an encoder of neither images nor texts, or a calibration sample too
            small to whiten.
        DataError: a data set is missing or damaged.
    """
    samples, data, facts = Samples(), dict[str, str](), dict[str, object]()
    encoders = {spec.removeprefix("builtin:"): load_encoder(spec) for spec in setting.encoders}
    worlds = {name: world_of(encoder) for name, encoder in encoders.items()}
    steps, done = sum(len(world.sources) for world in worlds.values()), 0
    for number, (name, encoder) in enumerate(encoders.items()):
        rng = context.rng(number)
        context.progress(done, steps, f"{name}, calibration")
        calibration = calibrated(encoder, worlds[name], setting.calibration, data, rng=rng)
        guards = guards_of(calibration, setting.secrets, context)
        facts[name] = {"feature_std": calibration.feature_std, "dim": encoder.dim}
        for source in worlds[name].sources:
            context.progress(done, steps, f"{name}, {source.name}")
            for account in accounts(source, encoder, setting.limit, data, rng=rng):
                follow(guards, account, setting.counts, samples, encoder=name, rng=rng)
            done += 1
    facts["uniform"] = {f"n{count}": uniform(count) for count in setting.counts}
    facts["stands_in_for"] = dict(STANDS_IN_FOR)
    return Measurement(samples.metrics(), diagnostics=facts, data=data)


def guards_of(calibration: Calibration, secrets: int, context: Context) -> dict[str, list[Guard]]:
    """Return one guard per hash and secret; each secret serves all hashes."""
    keys = [context.rng(100, secret).bytes(32) for secret in range(secrets)]
    return {
        name: [Guard(profile, calibration, secret=key) for key in keys]
        for name, profile in HASHES.items()
    }


def accounts(
    source: Source,
    encoder: Encoder,
    limit: int,
    data: dict[str, str],
    *,
    rng: np.random.Generator,
) -> Iterator[Account]:
    """Embed a source, at most `limit` of its inputs at random, and yield its accounts."""
    inputs, labels = source.load(limit, rng, data)
    chosen = rng.permutation(len(inputs))[:limit]
    embeddings = encoder.embed(select(inputs, chosen))
    if labels is None:
        yield Account(source.name, embeddings, None, source.broad)
        return
    labels = labels[chosen]
    yield Account(source.name, embeddings, labels, source.broad)
    for name, classes in source.parts.items():
        yield Account(name, embeddings[np.isin(labels, classes)], None, broad=False)


def follow(
    guards: Mapping[str, Sequence[Guard]],
    account: Account,
    counts: Sequence[int],
    samples: Samples,
    *,
    encoder: str,
    rng: np.random.Generator,
) -> None:
    """Walk one account, in random order and sorted by class, and add its figures.

    In whichever order, all of its queries together cover the same; sorted ones are read before.
    """
    direction: Direction = "higher" if account.broad else "lower"
    total = len(account.embeddings)
    for name, some in guards.items():
        stem = f"{encoder}.{name}.{account.name}"
        for guard in some:
            order = rng.permutation(total)
            covered = walk(guard, account.embeddings[order], counts, rng=rng).coverage
            for count, coverage in covered.items():
                samples.add(f"coverage.{stem}.n{count}", coverage, direction)
            noise = noise_in_std(guard, covered[total])
            samples.add(f"noise.{stem}.n{total}", noise, direction, "feature std")
            if account.labels is None:
                continue
            order = class_sorted(account.labels, rng=rng)
            earlier = walk(guard, account.embeddings[order], counts, rng=rng).coverage
            for count, coverage in earlier.items():
                if count < total:
                    samples.add(f"coverage_sorted.{stem}.n{count}", coverage, direction)


def noise_in_std(guard: Guard, coverage: float) -> float:
    """Return the noise scale at a coverage, in feature standard deviations."""
    scale = float(guard.profile.price(np.array([coverage]))[0])
    return scale if guard.profile.in_feature_std else scale / guard.calibration.feature_std


def class_sorted(labels: Labels, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return an order of n inputs that exhausts class after class, both at random."""
    ranks = rng.permutation(int(labels.max()) + 1)
    return np.lexsort((rng.permutation(len(labels)), ranks[labels]))


def whitening(sample: Embeddings) -> NDArray[np.float64]:
    """Return the (d, d) matrix W for which the rows of (n, d) `sample` times W are white.

    Raises:
        ConfigurationError: not more rows than columns, so that some directions are unknown.
    """
    count, dim = sample.shape
    if count <= dim:
        raise ConfigurationError(
            f"expected more than {dim} calibration embeddings to whiten width {dim}, got {count}"
        )
    values, vectors = np.linalg.eigh(np.cov(sample, rowvar=False, dtype=np.float64))
    scales: NDArray[np.float64] = 1 / np.sqrt(np.maximum(values, _LEAST_EIGENVALUE * values[-1]))
    return vectors * scales


def uniform(count: int) -> float:
    """Return the coverage that n queries would have if every bucket were equally likely."""
    return float(-np.expm1(count * np.log1p(-(2.0**-_RAW.bits))))


def calibrated(
    encoder: Encoder,
    world: World,
    count: int,
    data: dict[str, str],
    *,
    rng: np.random.Generator,
) -> Calibration:
    """Calibrate on `count` inputs of the world's sample."""
    inputs = world.sample(rng, data)
    chosen = rng.permutation(len(inputs))[:count]
    return Calibration.fit(encoder.embed(select(inputs, chosen)), rng=rng, keep=count)


# -- inputs ----------------------------------------------------------------------


def world_of(encoder: Encoder) -> World:
    """Return what there is for the first modality that an encoder accepts.

    Raises:
        ConfigurationError: neither images nor texts.
    """
    for modality, world in _WORLDS.items():
        if modality in encoder.accepts:
            return world
    raise ConfigurationError(
        f"expected an encoder of {' or '.join(_WORLDS)} inputs, got {encoder.name!r} "
        f"of {', '.join(sorted(encoder.accepts))}"
    )


def _task(name: str, limit: int, rng: np.random.Generator, data: dict[str, str]) -> Loaded:
    """Return all of a task's inputs, training and test part, each cut to `limit`."""
    task = load_task(name, train=limit, test=limit, rng=rng, data=data)
    labels = np.concatenate([task.train_labels, task.test_labels])
    if isinstance(task.train_inputs, np.ndarray):
        return np.concatenate([task.train_inputs, task.test_inputs]), labels
    return [*task.train_inputs, *task.test_inputs], labels


def _pool(
    name: str, size: int, limit: int, rng: np.random.Generator, data: dict[str, str]
) -> Loaded:
    """Return at most `size` inputs of a query pool, which must hold so many."""
    pool = load_pool(name, size=min(size, limit), rng=rng, data=data)
    return pool.inputs, pool.labels


def _random_pixels(limit: int, rng: np.random.Generator, data: dict[str, str]) -> Loaded:
    """Return at most 10,000 images of independent uniform pixels."""
    del data
    shape = (min(limit, 10_000), SIDE, SIDE, 3)
    return rng.integers(0, 256, shape, np.uint8), None


def _cifar(rng: np.random.Generator, data: dict[str, str]) -> Batch:
    del rng
    parts = [next(noted(load_images, data, name, "train")) for name in ("cifar10", "cifar100")]
    return np.concatenate([part.inputs for part in parts])


def _broad_texts(rng: np.random.Generator, data: dict[str, str]) -> Batch:
    return _pool("broad_text", _BROAD_TEXTS, _BROAD_TEXTS, rng, data)[0]


_BROAD_TEXTS = 27_019
_CAT, _DOG = 3, 5

_WORLDS: Mapping[str, World] = {
    "image": World(
        (
            Source(
                "cifar10",
                partial(_task, "cifar10"),
                parts={"cifar10_one_class": (_CAT,), "cifar10_two_classes": (_CAT, _DOG)},
            ),
            Source("cifar100", partial(_task, "cifar100")),
            Source("gtsrb", partial(_task, "gtsrb")),
            Source("fashion_mnist", partial(_task, "fashion_mnist")),
            Source("tiny_imagenet", partial(_pool, "tiny_imagenet", 10_000), broad=True),
            Source("random_pixels", _random_pixels, broad=True),
        ),
        _cifar,
    ),
    "text": World(
        (
            Source("banking77", partial(_task, "banking77")),
            Source("ag_news", partial(_task, "ag_news")),
            Source("broad_text", partial(_pool, "broad_text", _BROAD_TEXTS), broad=True),
        ),
        _broad_texts,
    ),
}


EXPERIMENT = Experiment(
    id="b4b-coverage",
    title="coverage against queries for raw, centered and whitened hashes, one data set an account",
    scales={
        "smoke": Setting(counts=(100, 300), secrets=2, limit=600, calibration=700),
        "cpu": Setting(),
        "gpu": Setting(counts=(*Setting().counts, 50_000), secrets=20, limit=100_000),
    },
    measure=measure,
    promises=(
        "coverage.image.raw.*",
        "coverage.image.centered.*",
        "coverage.image.whitened.*",
        "coverage.text.*",
        "coverage_sorted.*",
        "noise.*",
    ),
    covers=("b4b-2023",),
)
