"""The classifiers under attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
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


def train_victim(scene: Scene, training: Training, *, rng: np.random.Generator) -> TorchClassifier:
    """Train a classifier on the scene's training images.

    Source: Conv3 and SGD as in SAME's released code (AAAI 2024); it has a ResNet-18 on CIFAR-10.
    """
    classes = len(scene.classes)
    network = build(training.network, scene.shape, classes, rng, width=training.width).to(device())
    images = torch.from_numpy(scene.train).to(device())
    labels = torch.from_numpy(scene.train_labels).to(device())
    draws = generator(rng)

    def loss(index: Tensor) -> Tensor:
        asked = images[index]
        if training.augment:
            asked = augmented(asked, draws)
        return functional.cross_entropy(run_network(network, asked), labels[index])

    schedule = Schedule(
        epochs=training.epochs,
        batch=training.batch,
        rate=training.rate,
        optimizer=SGD(weight_decay=5e-4),
    )
    fit([network], len(images), loss, schedule=schedule, rng=rng, progress=silent)
    return TorchClassifier(
        network, input_shape=scene.shape, classes=scene.classes, name=f"{scene.dataset}-victim"
    )


def augmented(images: Tensor, draws: torch.Generator) -> Tensor:
    """Return (n, c, h, w) images mirrored at random and shifted together by up to 4 pixels."""
    mirrored = torch.rand(len(images), generator=draws).to(images.device) < 0.5
    turned = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    down, right = torch.randint(0, 2 * _PAD + 1, (2,), generator=draws).tolist()
    padded = functional.pad(turned, (_PAD, _PAD, _PAD, _PAD), mode="reflect")
    return padded[:, :, down : down + images.shape[2], right : right + images.shape[3]]
