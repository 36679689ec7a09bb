"""Who asks what: two honest users and six thieves, each ending with a copy.

All copies have the victim's architecture and train on the answers alone. One input is one query,
and an answer that was bought is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.bench.toll.models import CLASSES, SIDE, Deployment, classifier, probabilities, train
from tollkeeper.challenge.leakage import converted_each
from tollkeeper.lab.torching import device, generator, seeded_init

JBDA_SEEDS = 200
JBDA_STEP = 0.05
"""λ = 0.1 of pixels in [-1, 1], which is 0.05 in [0, 1]."""

DFME_BATCH, DFME_STUDENT_STEPS, DFME_NOISE, DFME_EPSILON = 256, 5, 256, 1e-3
DFME_QUERIES = DFME_BATCH * (2 + DFME_STUDENT_STEPS)
"""1,792 queries per iteration: two batches for the generator's gradient, five for the student."""

_ROUNDS = 6
_ROUND_EPOCHS = 4


@dataclass(slots=True, eq=False)
class World:
    """What one user has.

    Attributes:
        deployment: asked by `ask` and `ask_labels` only, but for `worst_case`.
        pool: in-distribution images, twice the budget; (2 b, 1, 28, 28) in [0, 1].
        letters: other characters, drawn like the victim's data.
        photos: natural images in gray.
        budget: queries allowed.
        epochs: of the copy's last training.
        sigma: of the meter, which `worst_case` knows.
        delta: likewise.
        rng: all randomness.
        asked: what was asked, in order.
    """

    deployment: Deployment
    pool: Tensor
    letters: Tensor
    photos: Tensor
    budget: int
    epochs: int
    sigma: float
    delta: float
    rng: np.random.Generator
    asked: list[Tensor] = field(default_factory=list)

    def ask(self, images: Tensor) -> Tensor:
        """Return (n, 10) probabilities; every image is a query."""
        self.asked.append(images.detach())
        return probabilities(self.deployment.victim, images)

    def ask_labels(self, images: Tensor) -> Tensor:
        """Return (n,) classes, of an interface that tells no more."""
        return self.ask(images).argmax(dim=1)

    def votes(self) -> NDArray[np.int64]:
        """Return (n, 10) the teachers' votes on everything asked."""
        return self.deployment.teachers.votes(torch.cat(self.asked))

    def drawn(self, images: Tensor, count: int) -> Tensor:
        """Return some of `images` at random, without repeats."""
        return images[torch.from_numpy(self.rng.permutation(len(images))[:count])]

    def copy(self, images: Tensor, targets: Tensor, *, epochs: int | None = None) -> nn.Module:
        """Return a new network trained on answers."""
        network = classifier(self.rng)
        train(network, images, targets, epochs=epochs or self.epochs, rng=self.rng)
        return network


def standard(world: World) -> nn.Module:
    """Ask the first half of the pool, as an honest user's traffic comes."""
    images = world.pool[: world.budget]
    return world.copy(images, world.ask(images))


def shifted(world: World) -> nn.Module:
    """Ask honest images from another camera: two pixels off, and blurred over 3x3 pixels."""
    images = functional.avg_pool2d(world.pool[: world.budget], 3, stride=1, padding=1)
    images = images.roll((2, 2), dims=(2, 3))
    return world.copy(images, world.ask(images))


def knockoff(world: World) -> nn.Module:
    """Ask images of a public set at random (Orekondy et al. 2019, random policy)."""
    images = world.drawn(world.letters, world.budget)
    return world.copy(images, world.ask(images))


def copycat(world: World) -> nn.Module:
    """Ask unrelated natural images and keep labels only (Correia-Silva et al. 2018)."""
    images = world.drawn(world.photos, world.budget)
    return world.copy(images, world.ask_labels(images))


def jbda(world: World) -> nn.Module:
    """Step from few seeds along the copy's gradient (Papernot et al. 2017), labels only."""
    images = world.pool[: min(JBDA_SEEDS, world.budget)]
    labels = world.ask_labels(images)
    while len(images) < world.budget:
        network = world.copy(images, labels, epochs=_ROUND_EPOCHS)
        fresh = _stepped(network, images, labels)[: world.budget - len(images)]
        images = torch.cat([images, fresh])
        labels = torch.cat([labels, world.ask_labels(fresh)])
    return world.copy(images, labels)


def _stepped(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return images moved up the logit of the class that the victim said."""
    moved = images.clone().requires_grad_()
    logits = network(moved)
    (slope,) = torch.autograd.grad(logits[torch.arange(len(labels)), labels].sum(), moved)
    return (images + JBDA_STEP * slope.sign()).clamp(0, 1)


def data_free(world: World) -> nn.Module:
    """Ask what a generator makes up that the copy gets wrong (DFME, Truong et al. 2021).

    As many whole iterations as the budget holds, at least one; a handful of them leaves the
    generator untrained, so this shows what its first queries cost and not what the attack can do.
    """
    with seeded_init(world.rng):
        maker = _generator().to(device())
    student, draws = classifier(world.rng), generator(world.rng)
    makes = torch.optim.Adam(maker.parameters(), lr=1e-3)
    learns = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    maker.train()
    for _ in range(max(1, world.budget // DFME_QUERIES)):
        before = maker(torch.randn(DFME_BATCH, DFME_NOISE, generator=draws).to(device()))
        ascent = _estimated(world, student, before.detach(), draws)
        makes.zero_grad(set_to_none=True)
        before.backward(-ascent)
        makes.step()
        for _ in range(DFME_STUDENT_STEPS):
            with torch.no_grad():
                noise = torch.randn(DFME_BATCH, DFME_NOISE, generator=draws).to(device())
                images = torch.sigmoid(maker(noise))
            loss = _distance(world.ask(images), student(images)).mean()
            learns.zero_grad(set_to_none=True)
            loss.backward()
            learns.step()
    return student


def _estimated(world: World, student: nn.Module, before: Tensor, draws: torch.Generator) -> Tensor:
    """Return the gradient of the copy's error by one forward difference per image."""
    way = torch.randn(before.shape, generator=draws).to(before.device)
    way /= way.flatten(1).norm(dim=1)[:, None, None, None]
    here, there = torch.sigmoid(before), torch.sigmoid(before + DFME_EPSILON * way)
    with torch.no_grad():
        gain = _distance(world.ask(there), student(there))
        gain -= _distance(world.ask(here), student(here))
    size = before[0].numel() / DFME_EPSILON / len(before)
    return size * gain[:, None, None, None] * way


def _distance(answers: Tensor, logits: Tensor) -> Tensor:
    """Return (n,) mean L1 distances of logits, the victim's recovered from probabilities."""
    recovered = answers.clamp_min(1e-7).log()
    return (recovered - recovered.mean(dim=1, keepdim=True) - logits).abs().mean(dim=1)


def _generator() -> nn.Module:
    """Return a network from noise (n, 256) to images (n, 1, 28, 28) before the sigmoid."""
    edge = SIDE // 4
    return nn.Sequential(
        nn.Linear(DFME_NOISE, 32 * edge**2),
        nn.Unflatten(1, (32, edge, edge)),
        nn.BatchNorm2d(32),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 1, 3, padding=1),
        nn.BatchNorm2d(1, affine=False),
    )


def entropy_reversed(world: World) -> nn.Module:
    """Ask first, in rounds, those of the pool that the copy so far is surest about.

    The reference's `entropyrev` ends when all of its pool is asked, so it pays what honest users
    pay; this one has twice as many images as it can ask.
    """
    left = world.pool
    images, targets = left[:0], torch.zeros(0, CLASSES, device=left.device)
    network = classifier(world.rng)
    for part in np.array_split(np.arange(world.budget), _ROUNDS):
        said = probabilities(network, left)
        entropy = -(said * said.clamp_min(1e-12).log()).sum(dim=1)
        order = entropy.argsort()
        chosen, left = left[order[: len(part)]], left[order[len(part) :]]
        images = torch.cat([images, chosen])
        targets = torch.cat([targets, world.ask(chosen)])
        network = world.copy(images, targets, epochs=_ROUND_EPOCHS)
    return world.copy(images, targets)


def worst_case(world: World) -> nn.Module:
    """Ask the cheapest of the pool, as a thief would who knows the meter.

    The reference's `worstcase`: no outsider has the teachers, but where a price tells the
    margin of the vote, it can be learned.
    """
    votes = world.deployment.teachers.votes(world.pool)
    cheapest = converted_each(votes, sigma=world.sigma, delta=world.delta).argsort(kind="stable")
    images = world.pool[torch.from_numpy(cheapest[: world.budget])]
    return world.copy(images, world.ask(images))


User = Callable[[World], nn.Module]

HONEST = ("standard", "shifted")
"""Users who steal nothing. Prices are fitted to users like the first."""

USERS: Mapping[str, User] = {
    "standard": standard,
    "shifted": shifted,
    "knockoff": knockoff,
    "copycat": copycat,
    "jbda": jbda,
    "data_free": data_free,
    "entropy_reversed": entropy_reversed,
    "worst_case": worst_case,
}
"""Name in metrics to what the user does."""
