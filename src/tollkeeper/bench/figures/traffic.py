"""Accounts as figures know them: what each kind of customer and thief asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.merged import merged
from tollkeeper.bench.figures import encoders, fillers
from tollkeeper.bench.theft.pools import load_pool
from tollkeeper.bench.theft.tasks import load_task
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Batch, Embeddings

Kind = Literal["narrow", "wide", "broad"]

TASKS: Mapping[str, Mapping[str, Kind]] = {
    "text": {"banking77": "narrow", "sst2": "wide", "ag_news": "wide"},
    "image": {"gtsrb": "narrow", "fashion_mnist": "narrow", "cifar10": "wide"},
}
"""Modality to its honest tasks. A wide one spans as much of the space as a thief's pool: whole
corpora of news and of film reviews, both of which the pool of texts holds too, and photographs
of ten kinds of things."""

POOLS = {"text": "broad_text", "image": "tiny_imagenet"}

_SAMPLE = 250
"""Inputs of each task in the sample of a provider that has no calibration yet."""

_ALL = 10**6
_MERGED = 8000


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Everything that one kind of account has to ask, in random order.

    Attributes:
        name: of the task or pool.
        kind: `narrow` and `wide` are honest, `broad` is the thief's pool.
        embeddings: (n, d) clean.
        labels: (n,) classes; None for a pool.
        tested: how many of the last ones are the task's test inputs.
    """

    name: str
    kind: Kind
    embeddings: Embeddings
    labels: NDArray[np.int64] | None = None
    tested: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One encoder with all its traffic embedded.

    Attributes:
        encoder: its name, for metric names.
        traffics: honest ones first, the pool last.
        calibration: of the encoder.
        merged: (m, d) clean embeddings of the first inputs of the pool, each merged with the
            filler that serves a thief best of those it tries (`fillers`).
    """

    encoder: str
    traffics: tuple[Traffic, ...]
    calibration: Calibration
    merged: Embeddings

    @property
    def honest(self) -> tuple[Traffic, ...]:
        """What customers ask."""
        return tuple(one for one in self.traffics if one.kind != "broad")

    @property
    def narrow(self) -> tuple[Traffic, ...]:
        """What customers of one subject ask."""
        return tuple(one for one in self.traffics if one.kind == "narrow")

    @property
    def pool(self) -> Traffic:
        """What a thief asks."""
        return self.traffics[-1]


def load_stage(name: str, *, limit: int, rng: np.random.Generator, data: dict[str, str]) -> Stage:
    """Load all traffic of an encoder's modality and embed it.

    Args:
        name: a key of `encoders.MODALITY`.
        limit: inputs of a task or pool at most.
        rng: chooses and orders.
        data: gets the checksums of the data sets.

    Raises:
        ConfigurationError: an unknown encoder.
        DataError: a data set is missing or damaged.
    """
    if name not in encoders.MODALITY:
        raise ConfigurationError(
            f"expected an encoder of {', '.join(encoders.MODALITY)}, got {name!r}"
        )
    modality = encoders.MODALITY[name]
    ordering, fitting = rng.spawn(2)
    asked: list[tuple[str, Kind, Batch, NDArray[np.int64] | None, int]] = []
    for task, kind in TASKS[modality].items():
        loaded = load_task(task, train=_ALL, test=_ALL, rng=ordering, data=data)
        train, test = limit * 3 // 4, limit // 4
        inputs = _joined(loaded.train_inputs[:train], loaded.test_inputs[:test])
        labels = np.concatenate([loaded.train_labels[:train], loaded.test_labels[:test]])
        asked.append((task, kind, inputs, labels, min(test, len(loaded.test_inputs))))
    pool = load_pool(POOLS[modality], size=None, rng=ordering, data=data)
    asked.append((pool.name, "broad", pool.inputs[:limit], None, 0))
    samples = [inputs[:_SAMPLE] for _, _, inputs, _, _ in asked]
    embed, calibration = _encoder(name, modality, samples, rng=fitting)
    traffics = tuple(
        Traffic(task, kind, _embedded(embed, inputs), labels, tested)
        for task, kind, inputs, labels, tested in asked
    )
    guard = Guard(profiles.RECOMMENDED, calibration, secret=fitting.bytes(32))
    filler = fillers.best(asked[0][2], pool.inputs, embed, guard)
    worn = merged(pool.inputs[: min(limit, _MERGED)], filler)
    return Stage(name.removeprefix("builtin:"), traffics, calibration, _embedded(embed, worn))


def _encoder(
    name: str, modality: str, samples: Sequence[Batch], *, rng: np.random.Generator
) -> tuple[encoders.Embed, Calibration]:
    """Return an encoder and the calibration that its provider would have."""
    if name.startswith("builtin:"):
        encoder = load_encoder(name)
        return encoder.embed, calibration_for(name, encoder.dim, given=None, required=True)
    sample = _joined(*samples)
    embed = (
        encoders.lsa(list(sample), dim=256, seed=int(rng.integers(2**31)))
        if modality == "text"
        else encoders.patches(np.asarray(sample), centroids=200, seed=int(rng.integers(2**31)))
    )
    return embed, Calibration.fit(embed(sample), rng=rng)


def _joined(*parts: Batch) -> Batch:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate([np.asarray(part) for part in parts])
    return [item for part in parts for item in part]


def _embedded(embed: encoders.Embed, inputs: Batch) -> Embeddings:
    rows = [embed(inputs[at : at + 1024]) for at in range(0, len(inputs), 1024)]
    return np.concatenate(rows)
