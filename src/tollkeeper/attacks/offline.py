"""What most attacks share: choose, ask once, then train without the victim."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.asking import Answers, Asker, remaining, take
from tollkeeper.attacks.trained import Loss, Recovering
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import device
from tollkeeper.types import Batch


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
class Offline(Recovering):
    """One query phase, then training without contact: subclasses write `loss`."""

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
        return self.trained(
            network,
            loss,
            beside=modules,
            count=len(answers.index),
            dim=victim.dim,
            rng=ordering,
            progress=progress,
        )

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
