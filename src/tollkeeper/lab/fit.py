"""The one training loop; what varies is the loss that is handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.lab.torching import autocast, generator

Optimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
"""Makes an optimizer of parameters and a learning rate."""


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba 2015)."""

    weight_decay: float = 0.0

    def __call__(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return torch.optim.Adam(parameters, lr=rate, weight_decay=self.weight_decay)


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    momentum: float = 0.9
    weight_decay: float = 0.0

    def __call__(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return torch.optim.SGD(
            parameters, lr=rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with decay apart from the gradient (Loshchilov and Hutter 2019).

    Its second moment forgets faster than usual, as is the custom for transformers.
    """

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)

    def __call__(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Make the optimizer."""
        # Fused: one call for all of a transformer's many small weights.
        return torch.optim.AdamW(
            parameters, lr=rate, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the answers.
        batch: rows per step; the incomplete rest of an epoch is left out.
        rate: learning rate at the start; it falls to zero along a cosine.
        optimizer: what to do with gradients.
        warmup: epochs over which the rate first rises in a line, under that cosine.
    """

    epochs: int = 100
    batch: int = 256
    rate: float = 1e-3
    optimizer: Optimizer = Adam()
    warmup: int = 0

    def __post_init__(self) -> None:
        """Refuse a schedule that cannot be kept.

        Raises:
            ConfigurationError: negative epochs, no rows per step, or no learning rate.
        """
        if min(self.epochs, self.warmup) < 0 or self.batch < 1 or not 0 < self.rate < np.inf:
            raise ConfigurationError(
                "expected at least 0 epochs, 1 row per step and a learning rate above 0, "
                f"got {self.epochs} (warm-up {self.warmup}), {self.batch} and {self.rate}"
            )

    def share(self, step: int, per_epoch: int) -> float:
        """Return which share of the rate a step takes: the lower of warm-up and cosine."""
        steps = max(1, self.epochs * per_epoch)
        falling = (1 + math.cos(math.pi * step / steps)) / 2
        return min(falling, (step + 1) / max(1, self.warmup * per_epoch))


def fit(
    modules: Sequence[nn.Module],
    count: int,
    loss: Callable[[Tensor], Tensor],
    *,
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Progress,
    phase: str = "training",
) -> float:
    """Train modules on rows 0 to count - 1.

    Args:
        modules: what is trained, in training mode during the call, in evaluation mode after it.
        count: rows there are, at least 2.
        loss: turns the positions of a batch, (b,) int64, into a scalar.
        schedule: how long and how fast.
        rng: order of the rows.
        progress: told after each epoch.
        phase: its name there.

    Returns:
        Mean loss of the last epoch.

    Raises:
        ConfigurationError: too few rows, or the loss is no longer finite.
    """
    if count < 2:
        raise ConfigurationError(f"expected at least 2 answers to train on, got {count}")
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = schedule.optimizer(parameters, schedule.rate)
    per_epoch = max(1, count // schedule.batch)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: schedule.share(i, per_epoch))
    order = generator(rng)
    _mode(modules, training=True)
    mean = float("nan")
    for epoch in range(schedule.epochs):
        losses = []
        for index in _batches(count, schedule.batch, order):
            value = _step(loss, index, optimizer)
            decay.step()
            losses.append(value)
        mean = float(torch.stack(losses).mean())
        if not np.isfinite(mean):
            raise ConfigurationError(
                f"the loss is {mean} after epoch {epoch + 1}; lower the learning rate"
            )
        progress(Step(phase, epoch + 1, schedule.epochs, loss=mean))
    _mode(modules, training=False)
    return mean


def _step(
    loss: Callable[[Tensor], Tensor], index: Tensor, optimizer: torch.optim.Optimizer
) -> Tensor:
    value = loss(index)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return value.detach()


def _batches(count: int, batch: int, order: torch.Generator) -> Iterator[Tensor]:
    """Yield the positions of whole batches in a random order; one short batch if there is none."""
    index = torch.randperm(count, generator=order)
    for start in range(0, max(1, count // batch) * batch, batch):
        yield index[start : start + batch]


def _mode(modules: Sequence[nn.Module], *, training: bool) -> None:
    for module in modules:
        module.train(training)


def run_network(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the network's (b, d) float32 output, computed in the fast precision."""
    with autocast(inputs.device):
        output: Tensor = network(inputs)
    return output.float()
