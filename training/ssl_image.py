"""Self-supervised image training: network, augmentations, contrastive loss and training loop.

The method is SimCLR (Chen et al. 2020) with the decoupled loss of Yeh et al. (2022), which leaves
the positive pair out of the denominator and so works at small batches. Views are random crops
at a low resolution first and a higher one while the learning rate decays, which saves most of the
time on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

Images = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]

# Per-channel mean and standard deviation of CIFAR-10, on the 0..255 scale.
PIXEL_MEAN = (125.3, 123.0, 113.9)
PIXEL_STD = (63.0, 62.1, 66.7)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run except the data and the seed."""

    epochs: int = 80
    cooldown: int = 14
    warmup: int = 2
    early_side: int = 16
    late_side: int = 24
    batch_size: int = 256
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 2e-4
    temperature: float = 0.2
    width: int = 32
    dim: int = 512
    hidden: int = 512
    projection: int = 128
    min_crop: float = 0.2
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_probability: float = 0.8
    gray_probability: float = 0.2

    def crop_side(self, epoch: int) -> int:
        """Return the side of the crops, in pixels, at a zero-based epoch."""
        return self.late_side if epoch >= self.epochs - self.cooldown else self.early_side

    def rate(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch: linear warm-up, constant, linear decay.

        Before the decay it does not depend on the number of epochs, so that a run can be
        continued from a checkpoint with more epochs than it was started with.
        """
        rise = epoch / self.warmup
        fall = (self.epochs - epoch) / self.cooldown
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


class ConvUnit(nn.Sequential):
    """A bias-free convolution, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        """Make a unit that maps (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection, then ReLU."""

    def __init__(self, channels: int) -> None:
        """Make a block that keeps the shape (n, channels, h, w)."""
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the same shape, non-negative."""
        return F.relu(x + self.norm(self.conv(self.first(x))))


def make_backbone(recipe: Recipe, seed: int) -> nn.Sequential:
    """Make the convolutional stages; their output averaged over positions is the embedding.

    Args:
        recipe: Widths.
        seed: Seed of the initial weights; the global generator is left as it was.

    Returns:
        A module from normalized images (n, 3, h, w) to (n, dim, h / 8, w / 8), non-negative.
    """
    w = recipe.width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            ConvUnit(3, w, kernel=4, stride=2),
            ConvUnit(w, 2 * w),
            ConvUnit(2 * w, 4 * w, stride=2),
            Residual(4 * w),
            ConvUnit(4 * w, 8 * w, stride=2),
            ConvUnit(8 * w, recipe.dim, kernel=1),
        )


def make_projector(recipe: Recipe, seed: int) -> nn.Sequential:
    """Make the head used in training only: (n, dim) to (n, projection)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(recipe.dim, recipe.hidden, bias=False),
            nn.BatchNorm1d(recipe.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(recipe.hidden, recipe.projection),
        )


def normalize(images: Tensor) -> Tensor:
    """Scale float images (n, 3, h, w) on 0..255 to zero mean and unit deviation per channel."""
    mean = torch.tensor(PIXEL_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def embed(backbone: nn.Module, images: Tensor) -> Tensor:
    """Embed normalized images (n, 3, h, w) to non-negative (n, dim): global average pooling."""
    pooled: Tensor = backbone(images).float().mean(dim=(2, 3))
    return pooled


def _to_network(images: Tensor) -> Tensor:
    """Turn uint8 (n, h, w, 3) into normalized channels-last float32 (n, 3, h, w)."""
    planes = normalize(images.permute(0, 3, 1, 2).float())
    return planes.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def calibrate_norms(backbone: nn.Module, images: Tensor) -> None:
    """Set batch-normalization statistics from uint8 (n, h, w, 3); leaves evaluation mode on."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches seen
    backbone.train()
    for batch in images.split(512):
        backbone(_to_network(batch))
    for norm in norms:
        norm.momentum = 0.1
    backbone.eval()


@torch.no_grad()
def embed_images(backbone: nn.Module, images: Images) -> Features:
    """Embed uint8 (n, h, w, 3) to float32 (n, dim) in evaluation mode, full precision."""
    backbone.eval()
    parts = [embed(backbone, _to_network(b)) for b in torch.from_numpy(images).split(250)]
    return torch.cat(parts).numpy()


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw (n,) uniform numbers in [low, high) on the CPU."""
    return low + (high - low) * torch.rand(n, generator=generator)


def crop_grid(n: int, side: int, min_crop: float, generator: torch.Generator) -> Tensor:
    """Sample grids (n, side, side, 2) of random resized crops, half of them mirrored."""
    area = _uniform(n, min_crop, 1.0, generator)
    ratio = torch.exp(_uniform(n, math.log(3 / 4), math.log(4 / 3), generator))
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta[:, 0, 2] = (1 - width) * _uniform(n, -1.0, 1.0, generator)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (1 - height) * _uniform(n, -1.0, 1.0, generator)
    return F.affine_grid(theta, [n, 3, side, side], align_corners=False)


def color_matrices(n: int, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw color jitter as one matrix an image.

    Saturation, hue (a rotation in the YIQ plane), gray scale and brightness are linear in the
    color of a pixel and so are composed into a single 3x3 matrix.

    Returns:
        Matrices (n, 3, 3) and contrast factors (n,).
    """
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    jittered = torch.rand(n, generator=generator) < recipe.jitter_probability
    gray = torch.rand(n, generator=generator) < recipe.gray_probability
    chroma = _uniform(n, 1 - recipe.saturation, 1 + recipe.saturation, generator)
    angle = 2 * math.pi * _uniform(n, -recipe.hue, recipe.hue, generator)
    gain = _uniform(n, 1 - recipe.brightness, 1 + recipe.brightness, generator)
    contrast = _uniform(n, 1 - recipe.contrast, 1 + recipe.contrast, generator)
    chroma = torch.where(jittered, chroma, 1.0) * (~gray)
    angle = torch.where(jittered, angle, 0.0)
    middle = torch.zeros(n, 3, 3)
    middle[:, 0, 0] = 1.0
    middle[:, 1, 1] = middle[:, 2, 2] = chroma * torch.cos(angle)
    middle[:, 1, 2] = -chroma * torch.sin(angle)
    middle[:, 2, 1] = chroma * torch.sin(angle)
    matrix = torch.linalg.inv(to_yiq) @ middle @ to_yiq
    matrix = matrix * torch.where(jittered, gain, 1.0).view(n, 1, 1)
    return matrix, torch.where(jittered, contrast, 1.0)


def augment(images: Tensor, side: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Make one random view of every image.

    Args:
        images: uint8 (n, 3, h, w) on any device.
        side: Side of the views in pixels.
        recipe: Strengths.
        generator: CPU generator; the draws do not depend on the device.

    Returns:
        Normalized float32 views (n, 3, side, side) in channels-last memory.
    """
    n, device = len(images), images.device
    grid = crop_grid(n, side, recipe.min_crop, generator).to(device)
    matrix, contrast = (t.to(device) for t in color_matrices(n, recipe, generator))
    x = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    x = torch.bmm(matrix, x.flatten(2))
    center = x.mean(dim=(1, 2), keepdim=True)
    x = (center + contrast.view(n, 1, 1) * (x - center)).clamp(0, 255)
    return normalize(x.view(n, 3, side, side)).contiguous(memory_format=torch.channels_last)


def contrastive_loss(projected: Tensor, temperature: float) -> Tensor:
    """Return the decoupled contrastive loss of projections (2 n, p): first views, then second."""
    z = F.normalize(projected.float(), dim=1)
    half = len(z) // 2
    similarity = (z @ z.T) / temperature
    owner = torch.arange(half, device=z.device).repeat(2)
    same = owner.unsqueeze(0) == owner.unsqueeze(1)
    attract = similarity.diagonal(half).repeat(2)
    repel = torch.logsumexp(similarity.masked_fill(same, -math.inf), dim=1)
    return (repel - attract).mean()


class Trainer:
    """The state of a training run; its checkpoints continue bit for bit.

    Attributes:
        epoch: Epochs done.
        backbone: The part that is kept in the end.
    """

    def __init__(self, images: Images, recipe: Recipe, seed: int, device: str = "cpu") -> None:
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
        self.backbone = make_backbone(recipe, seed)
        model = nn.Sequential(self.backbone, make_projector(recipe, seed + 1)).to(device)
        self.model = model.to(memory_format=torch.channels_last)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        plain = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain}],
            lr=0.0,
            momentum=recipe.momentum,
            nesterov=True,
        )
        self.views = torch.Generator().manual_seed(seed + 2)
        self.order = torch.Generator().manual_seed(seed + 3)

    def loss(self, batch: Tensor) -> Tensor:
        """Return the loss of one batch of uint8 images (n, 3, h, w)."""
        side = self.recipe.crop_side(self.epoch)
        views = [augment(batch, side, self.recipe, self.views) for _ in range(2)]
        stacked = torch.cat(views).contiguous(memory_format=torch.channels_last)
        with torch.autocast(batch.device.type, torch.bfloat16):
            projected = self.model[1](embed(self.model[0], stacked))
        return contrastive_loss(projected, self.recipe.temperature)

    def run_epoch(self, bar: tqdm[Any]) -> float:
        """Train one epoch and return its mean loss; incomplete batches are dropped."""
        self.model.train()
        order = torch.randperm(len(self.pixels), generator=self.order).to(self.pixels.device)
        steps = len(order) // self.recipe.batch_size
        total = 0.0
        for step in range(steps):
            start = step * self.recipe.batch_size
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.epoch + (step + 1) / steps)
            loss = self.loss(self.pixels[order[start : start + self.recipe.batch_size]])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach())
            bar.update(1 / steps)
        self.epoch += 1
        return total / steps

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
        self.views.set_state(state["views"])
        self.order.set_state(state["order"])
