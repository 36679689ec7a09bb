"""The published mappers: small networks trained by gradient descent.

Kept to show what the paper's attacker gets beside closed-form ridge on the same pairs.
Source of both: Dubiński et al., "Bucks for Buckets (B4B)", NeurIPS 2023, and its released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.sybil.mappers import pairs, varying
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.torching import device, generator, seeded_init
from tollkeeper.types import Embeddings

_ROWS = 4096
"""Rows mapped at once."""


@dataclass(frozen=True, slots=True, eq=False)
class NetworkMap:
    """A trained network as a map.

    Attributes:
        network: in evaluation mode.
    """

    network: nn.Module

    @torch.inference_mode()
    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Map (m, d1) to (m, d2)."""
        parts = torch.from_numpy(np.ascontiguousarray(embeddings)).to(device()).split(_ROWS)
        mapped: Embeddings = torch.cat([self.network(part) for part in parts]).cpu().numpy()
        return mapped


@dataclass(frozen=True, slots=True)
class Training:
    """How a mapper is trained: Adam on the mean squared error.

    Attributes:
        rate: Adam's.
        batch: pairs a step; the last step of a pass takes what is left.
        max_steps: cap on the steps of all passes. The published 50 * 50,000 / n passes are at
            most 40,000 steps from 1,000 pairs on, but 250,000 at 10 pairs.
    """

    rate: float
    batch: int = 64
    max_steps: int = 40_000

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        if min(self.batch, self.max_steps) < 1:
            raise ConfigurationError(
                f"expected a batch and steps of at least 1, got {self.batch} and {self.max_steps}"
            )

    def passes(
        self,
        network: nn.Module,
        source: Tensor,
        target: Tensor,
        *,
        count: int,
        rng: np.random.Generator,
    ) -> Iterator[None]:
        """Train `network` in place, with a stop after each of `count` passes.

        Args:
            network: maps (b, d1) to (b, d2).
            source: (n, d1).
            target: (n, d2).
            count: passes, fewer where that would be more than `max_steps` steps; at least 1.
            rng: order of the pairs.
        """
        order = generator(rng)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate, fused=True)
        affordable = self.max_steps // -(-len(source) // self.batch)
        for _ in range(max(1, min(count, affordable))):
            for index in torch.randperm(len(source), generator=order).split(self.batch):
                loss = nn.functional.mse_loss(network(source[index]), target[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            yield


@dataclass(frozen=True, slots=True)
class TwoLayerMapper:
    """B4B's mapper in its remapping study: two linear layers without an activation.

    50 * int(50,000 / n) - 1 passes over n pairs, as coded. Differences from the code: the cap of
    `Training.max_steps`, and above 50,000 pairs, where the formula gives no pass, 49 of them.

    Attributes:
        hidden: width of the middle layer; None takes as many as source coordinates vary, which
            is the victim's width behind an affine transform or pads.
        training: rate 1e-5, as in most of the released settings (1e-2 for STL10 and SVHN).
    """

    hidden: int | None = None
    training: Training = Training(rate=1e-5)

    def fit(
        self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator
    ) -> NetworkMap:
        """Train on n pairs; see `Mapper.fit`."""
        x, y = _tensors(source, target)
        hidden = self.hidden or _width(source)
        with seeded_init(rng):
            network = nn.Sequential(
                nn.Linear(x.shape[1], hidden),
                nn.Linear(hidden, y.shape[1]),
            ).to(device())
        count = 50 * max(1, 50_000 // len(x)) - 1
        for _ in self.training.passes(network, x, y, count=count, rng=rng):
            pass
        return NetworkMap(network.eval())


@dataclass(frozen=True, slots=True)
class ThreeLayerMapper:
    """B4B's mapper in end-to-end stealing: three layers with ReLU between them.

    int(50 * 50,000 / n) passes over n pairs, of which 80% are trained on; the weights of the
    pass with the least validation error are kept. Differences from the code: the error is the
    mean over all validation pairs, and the best pass is kept whatever its error. The code looks
    at the last mini-batch alone, keeps nothing above an error of 100 or 10,000 (depending on the
    victim, in its own units), and then fails for want of a file. Its split has a fixed seed. The
    cap of `Training.max_steps` is ours too.

    Attributes:
        hidden: width of both middle layers; None as for `TwoLayerMapper`.
        training: rate 1e-4.
    """

    hidden: int | None = None
    training: Training = Training(rate=1e-4)

    def fit(
        self, source: Embeddings, target: Embeddings, *, rng: np.random.Generator
    ) -> NetworkMap:
        """Train on n pairs; see `Mapper.fit`."""
        x, y = _tensors(source, target)
        hidden = self.hidden or _width(source)
        with seeded_init(rng):
            network = nn.Sequential(
                nn.Linear(x.shape[1], hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, y.shape[1]),
            ).to(device())
        shuffled = torch.from_numpy(rng.permutation(len(x)))
        train, check = shuffled.tensor_split([len(x) * 4 // 5])
        count = max(1, 50 * 50_000 // len(x))
        least, best = float("inf"), deepcopy(network.state_dict())
        for _ in self.training.passes(network, x[train], y[train], count=count, rng=rng):
            error = _error(network, x[check], y[check])
            if error < least:
                least, best = error, deepcopy(network.state_dict())
        network.load_state_dict(best)
        return NetworkMap(network.eval())


@torch.no_grad()
def _error(network: nn.Module, source: Tensor, target: Tensor) -> float:
    return float(nn.functional.mse_loss(network(source), target))


def _tensors(source: Embeddings, target: Embeddings) -> tuple[Tensor, Tensor]:
    """Return checked pairs as float32 on the device that trains."""
    x, y = pairs(source, target)
    return torch.from_numpy(x).float().to(device()), torch.from_numpy(y).float().to(device())


def _width(source: Embeddings) -> int:
    """Return how many source coordinates vary, at least 1."""
    return max(1, int(varying(source).sum()))
