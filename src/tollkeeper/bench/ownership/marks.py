"""What the experiments on image marks share: owners, thieves, independents, and judging them all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tollkeeper.attacks.direct import Direct
from tollkeeper.attacks.objectives import MSE, Cosine, InfoNCE
from tollkeeper.attacks.surrogate import NetworkFactory, Surrogate
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.watermarks.rotation import RotationWatermark
from tollkeeper.audit.watermarks.sslguard import SslGuard
from tollkeeper.bench.experiment import Metric, Progress
from tollkeeper.bench.ownership.networks import Small
from tollkeeper.bench.ownership.obfuscations import obfuscated
from tollkeeper.bench.ownership.scene import Block, Scene
from tollkeeper.bench.ownership.simclr import Recipe, train_simclr
from tollkeeper.bench.ownership.thieves import Means
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.probes import linear_probe
from tollkeeper.encoders.base import Encoder

ALPHA = 1e-3
"""Level of an accusation (method spec, section 10.4)."""

OBJECTIVES: Mapping[str, Callable[[], Any]] = {
    "mse": MSE,
    "infonce": lambda: InfoNCE(0.2),
    "cosine": Cosine,
}
"""Losses of thieves by name; they take the answers as they come."""


@dataclass(frozen=True, slots=True, eq=False)
class From:
    """Makes networks that begin with given weights, as of a public checkpoint."""

    start: nn.Module

    def build(self, dim: int, rng: np.random.Generator) -> nn.Module:
        """Return a copy; nothing is drawn."""
        del dim, rng
        return copy.deepcopy(self.start)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An encoder to be trained on its own images.

    Attributes:
        name: of the encoder.
        images: (n, 16, 16, 3).
        epochs: of contrastive training.
        seed: its own.
    """

    name: str
    images: NDArray[np.uint8]
    epochs: int
    seed: tuple[int, ...]

    def make(self) -> Surrogate:
        """Train it."""
        rng = np.random.default_rng(self.seed)
        return train_simclr(self.images, Recipe(epochs=self.epochs), rng=rng)


@dataclass(frozen=True, slots=True, eq=False)
class Copied:
    """A copy to be made.

    Attributes:
        name: of the copy.
        victim: asked.
        pool: (m, 16, 16, 3) images, the first `budget` of which may be asked.
        budget: queries.
        objective: of `OBJECTIVES`.
        epochs: over the answers.
        start: network that the copy begins as; None for random weights.
        seed: its own.
    """

    name: str
    victim: Encoder
    pool: NDArray[np.uint8]
    budget: int
    objective: str
    epochs: int
    seed: tuple[int, ...]
    start: nn.Module | None = None

    def make(self) -> Encoder:
        """Steal."""
        means = Means(epochs=self.epochs)
        network: NetworkFactory = Small() if self.start is None else From(self.start)
        attack = Direct(
            objective=OBJECTIVES[self.objective](),
            network=network,
            schedule=means.schedule(self.budget),
        )
        rng = np.random.default_rng(self.seed)
        pool = self.pool[: self.budget]
        return attack(self.victim, pool, budget=self.budget, rng=rng, clock=lambda: 0.0).surrogate


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A suspect to be tested.

    Attributes:
        name: of the metric: mark, suspect and mode.
        test: which.
        evidence: for it.
        suspect: whom to ask.
        hides: obfuscation of its answers, of `obfuscations.OUTPUTS`.
        public: images that the thief fits the obfuscation on.
    """

    name: str
    test: RotationWatermark | SslGuard
    evidence: Any
    suspect: Encoder
    hides: str
    public: NDArray[np.uint8]

    def make(self) -> OwnershipResult:
        """Ask and test."""
        rng = np.random.default_rng([2, *self.hides.encode()])
        hidden = obfuscated(self.hides, self.suspect, self.public, rng=rng)
        return self.test.run(hidden, self.evidence, rng=rng)


def made(job: Any) -> Any:
    """Do a job; runs in a worker."""
    return job.make()


def make_all(jobs: Sequence[Any], *, workers: int, progress: Progress) -> dict[str, Any]:
    """Return what each job made, by its name."""
    found = run_jobs(made, jobs, workers=workers, progress=progress)
    return {job.name: one for job, one in zip(jobs, found, strict=True)}


def independents(scene: Scene, count: int, *, epochs: int, root: int) -> list[Trained]:
    """Return encoders of the victim's kind on images of their own; the pool's blocks come last."""
    most = len(scene.world) // scene.sizes.block
    return [
        Trained(
            f"independent-{number}",
            scene.world_block(most - 1 - number).images,
            epochs,
            (root, 50, number),
        )
        for number in range(count)
    ]


def downstream(encoder: Encoder, train: Block, test: Block) -> float:
    """Return the accuracy of a linear classifier on an encoder's embeddings."""
    rows, others = encoder.embed(train.images), encoder.embed(test.images)
    return float((linear_probe(rows, train.labels, others) == test.labels).mean())


def metrics_of(name: str, result: OwnershipResult, unit: str) -> dict[str, Metric]:
    """Return the statistic, with a 95% interval, and the p-value of a result."""
    # The result's interval is of 99%.
    half = (result.interval[1] - result.interval[0]) / 2 * 1.960 / 2.576
    value = result.statistic
    return {
        f"{unit}.{name}": Metric(value, unit, "higher", (value - half, value + half)),
        f"p.{name}": Metric(result.p_value, "p", "lower", tolerance=1.0),
    }


def rate(flags: Sequence[bool]) -> Metric:
    """Return a share with its 95% interval (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    hits, n = int(np.sum(flags)), len(flags)
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return Metric(hits / n, "share", "lower", (low, high))
