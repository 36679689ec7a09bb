"""The one training loop of self-supervised image encoders; a plan says what varies."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_objectives import Objective
from ssl_views import Strengths, augment

Images = npt.NDArray[np.uint8]


class Plan(Strengths, Protocol):
    """Everything that determines a training run except the data and the seed.

    Attributes:
        epochs: In all.
        batch_size: Images a step.
        learning_rate: Its highest value.
        momentum: Of Nesterov's kind.
        weight_decay: Of matrices and kernels; biases and normalizations have none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float

    def crop_side(self, epoch: int) -> int:
        """Return the side of the views, in pixels, at a zero-based epoch."""
        ...

    def rate(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch, above 0 and at most `epochs`."""
        ...

    def make_network(self, seed: int) -> nn.Module:
        """Make what is kept in the end: normalized images (n, 3, h, w) to (n, dim)."""
        ...

    def make_objective(self, seed: int) -> Objective:
        """Make what is minimized."""
        ...


class Trainer:
    """The state of a training run; its checkpoints continue bit for bit.

    Attributes:
        epoch: Epochs done.
        backbone: The part that is kept in the end.
    """

    def __init__(self, images: Images, recipe: Plan, seed: int, device: str = "cpu") -> None:
        """Start a run.

        Args:
            images: Unlabeled uint8 (n, h, w, 3).
            recipe: Hyperparameters.
            seed: Seed of the initial weights, the order of the images and the augmentations.
            device: Torch device.
        """
        self.epoch = 0
        self.recipe = recipe
        self.pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        self.backbone = recipe.make_network(seed)
        self.objective: Any = recipe.make_objective(seed + 1)
        model = nn.Sequential(self.backbone, self.objective).to(device)
        self.model = model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self._groups(), lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True
        )
        self.scheduled = self.optimizer.param_groups[:2]
        self.views = torch.Generator().manual_seed(seed + 2)
        self.order = torch.Generator().manual_seed(seed + 3)

    def _groups(self) -> list[dict[str, Any]]:
        """Return parameters with and without decay, then those of a fixed rate, if any."""
        fixed = {id(p) for layer in self.objective.unscheduled for p in layer.parameters()}
        parts: tuple[list[Any], list[Any]] = ([], [])
        for parameter in self.model.parameters():
            parts[id(parameter) in fixed].append(parameter)
        groups = []
        for part in filter(None, parts):
            decayed, plain = [p for p in part if p.ndim > 1], [p for p in part if p.ndim <= 1]
            groups.append({"params": decayed, "weight_decay": self.recipe.weight_decay})
            groups.append({"params": plain})
        return groups

    def loss(self, batch: Tensor) -> Tensor:
        """Return the loss of one batch of uint8 images (n, 3, h, w)."""
        side = self.recipe.crop_side(self.epoch)
        views = [augment(batch, side, self.recipe, self.views) for _ in range(2)]
        stacked = torch.cat(views).contiguous(memory_format=torch.channels_last)
        with torch.autocast(batch.device.type, torch.bfloat16):
            outputs = self.objective(self.backbone(stacked))
        loss: Tensor = self.objective.loss(outputs)
        return loss

    def run_epoch(self, bar: tqdm[Any]) -> float:
        """Train one epoch and return its mean loss; incomplete batches are dropped."""
        self.model.train()
        order = torch.randperm(len(self.pixels), generator=self.order).to(self.pixels.device)
        steps = len(order) // self.recipe.batch_size
        total = torch.zeros((), device=self.pixels.device, dtype=torch.float64)
        for step in range(steps):
            start = step * self.recipe.batch_size
            for group in self.scheduled:
                group["lr"] = self.recipe.rate(self.epoch + (step + 1) / steps)
            loss = self.loss(self.pixels[order[start : start + self.recipe.batch_size]])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            bar.update(1 / steps)
        self.epoch += 1
        return float(total) / steps

    def state(self) -> dict[str, Any]:
        """Return everything that a continued run needs."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "views": self.views.get_state(),
            "order": self.order.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state taken with the same recipe, seed and images."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduled = self.optimizer.param_groups[:2]
        self.views.set_state(state["views"])
        self.order.set_state(state["order"])
