"""What most attacks share: choose, ask once, then train without the victim."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.asking import Answers, Asker, remaining, take
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.fit import Schedule, fit
from tollkeeper.attacks.networks.resnet import ResNet
from tollkeeper.attacks.progress import Progress
from tollkeeper.attacks.recovery.base import AsAnswered, Recovery
from tollkeeper.attacks.selection.base import Selection
from tollkeeper.attacks.selection.random import Random
from tollkeeper.attacks.surrogate import NetworkFactory, Surrogate
from tollkeeper.attacks.torching import device
from tollkeeper.encoders.base import Encoder
from tollkeeper.types import Batch

Loss = Callable[[Tensor], Tensor]
"""Positions of a batch, (b,) int64, to a scalar."""


@dataclass(frozen=True, eq=False)
class Known:
    """What an offline attack trains on.

    Attributes:
        index: (m,) positions in the pool.
        inputs: (m, ...) prepared inputs.
        targets: (m, d) float32 victim answers.
    """

    index: np.ndarray
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Offline(Attack):
    """One query phase, then training without contact: subclasses write `loss`.

    Attributes:
        network: architecture of the surrogate.
        schedule: how it is trained.
        selection: which inputs of the pool are asked.
        recovery: how they are asked and the answers cleaned.
    """

    network: NetworkFactory = field(default_factory=ResNet)
    schedule: Schedule = field(default_factory=Schedule)
    selection: Selection = field(default_factory=Random)
    recovery: Recovery = field(default_factory=AsAnswered)

    @property
    def asks_per_input(self) -> int:
        """Distinct queries that one input becomes."""
        return self.recovery.asks_per_input

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        """Choose inputs, ask for each once, and train a network on the answers."""
        choosing, asking, building, drawing, ordering = rng.spawn(5)
        answers = self.gather(victim, queries, choosing=choosing, asking=asking, progress=progress)
        network = self.network.build(answers.embeddings.shape[1], building)
        target = device()
        known = Known(
            answers.index,
            network.prepare(take(queries, answers.index)).to(target),
            torch.from_numpy(answers.embeddings).to(target),
        )
        loss, modules = self.loss(network, known, rng=drawing, progress=progress)
        count = len(answers.index)
        fit(
            [network, *modules],
            count,
            loss,
            schedule=self.schedule,
            rng=ordering,
            progress=progress,
        )
        return Surrogate(network, dim=victim.dim)

    @abstractmethod
    def loss(
        self, network: nn.Module, known: Known, *, rng: np.random.Generator, progress: Progress
    ) -> tuple[Loss, list[nn.Module]]:
        """Return the loss of a batch, and modules to be trained beside the network."""

    def gather(
        self,
        victim: Encoder,
        queries: Batch,
        *,
        choosing: np.random.Generator,
        asking: np.random.Generator,
        progress: Progress,
    ) -> Answers:
        """Choose inputs within the budget and ask for them."""
        count = min(len(queries), max(1, remaining(victim) // self.recovery.asks_per_input))
        asker = Asker(
            victim, queries, recovery=self.recovery, rng=asking, progress=progress, goal=count
        )
        asker.ask(self.selection.choose(queries, count, ask=asker, rng=choosing))
        answers = asker.answered()
        finished = self.recovery.finish(answers.embeddings)
        return Answers(answers.index, finished)
