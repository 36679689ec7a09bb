"""The classifiers under attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.bench.predict.networks import Kind, build
from tollkeeper.bench.predict.scene import Scene
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.lab.fit import SGD, Schedule, fit, run_network
from tollkeeper.lab.progress import silent
from tollkeeper.lab.torching import device, generator

_PAD = 4


@dataclass(frozen=True, slots=True)
class Training:
    """How a classifier is trained.

    Attributes:
        network: its architecture.
        width: of `Conv3`'s first layer; 32 is the paper's for MNIST.
        epochs: passes over the images.
        batch: images per step.
        rate: of SGD with momentum .9.
        augment: shift by up to 4 pixels and mirror, for photographs.
    """

    network: Kind = "conv3"
    width: int = 16
    epochs: int = 8
    batch: int = 128
    rate: float = 0.05
    augment: bool = False

    def build(self, scene: Scene, rng: np.random.Generator) -> nn.Module:
        """Return an untrained network of a scene's images."""
        network = build(self.network, scene.shape, len(scene.classes), rng, width=self.width)
        return Augmented(network, rng) if self.augment else network

    def schedule(self) -> Schedule:
        """Return how long and how fast it is trained."""
        return Schedule(
            epochs=self.epochs,
            batch=self.batch,
            rate=self.rate,
            optimizer=SGD(weight_decay=5e-4),
        )


class Augmented(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """A network that is shown shifted and mirrored images while it is trained.

    Attributes:
        network: that sees the images as they are afterwards.
    """

    def __init__(self, network: nn.Module, rng: np.random.Generator) -> None:
        """Stand before a network; `rng` seeds the shifts."""
        super().__init__()
        self.network = network
        self._draws = generator(rng)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network returns."""
        found: Tensor = self.network(augmented(images, self._draws) if self.training else images)
        return found


def train_victim(scene: Scene, training: Training, *, rng: np.random.Generator) -> TorchClassifier:
    """Train a classifier on the scene's training images.

    Source: Conv3 and SGD as in SAME's released code (AAAI 2024); it has a ResNet-18 on CIFAR-10.
    """
    network = training.build(scene, rng).to(device())
    images = torch.from_numpy(scene.train).to(device())
    labels = torch.from_numpy(scene.train_labels).to(device())

    def loss(index: Tensor) -> Tensor:
        return functional.cross_entropy(run_network(network, images[index]), labels[index])

    fit([network], len(images), loss, schedule=training.schedule(), rng=rng, progress=silent)
    # Its layers are read by detectors, so it stands alone.
    alone = network.network if isinstance(network, Augmented) else network
    return TorchClassifier(
        alone, input_shape=scene.shape, classes=scene.classes, name=f"{scene.dataset}-victim"
    )


def augmented(images: Tensor, draws: torch.Generator) -> Tensor:
    """Return (n, c, h, w) images mirrored at random and shifted together by up to 4 pixels."""
    mirrored = torch.rand(len(images), generator=draws).to(images.device) < 0.5
    turned = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    down, right = torch.randint(0, 2 * _PAD + 1, (2,), generator=draws).tolist()
    padded = functional.pad(turned, (_PAD, _PAD, _PAD, _PAD), mode="reflect")
    return padded[:, :, down : down + images.shape[2], right : right + images.shape[3]]
