"""KnockoffNets: ask pictures of a public pool, at random or where a bandit expects most.

Source: Orekondy et al., "Knockoff Nets: Stealing Functionality of Black-Box Models", CVPR 2019;
the bandit's update as in the Adversarial Robustness Toolbox.

Notes:
    Differences from the reference code: its adaptive policy raises NotImplementedError and here
    is a bandit; every budget starts a new network, where the reference goes on with the last; the
    learning rate falls along a cosine. Differences from the toolbox: pictures are drawn
    without replacement, so that no query is wasted on a repeat; rewards are of probabilities,
    whatever the copy returns; answers stay as soft as they came. The paper's tree of classes is
    flat here, and rewards are z-scored as in the toolbox, where the paper rescales them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tollkeeper.attacks.classifier.bandit import Bandit, Rewards, grouped
from tollkeeper.attacks.classifier.copies import (
    Copying,
    probabilities,
    shape_of,
    soft_cross_entropy,
)
from tollkeeper.attacks.classifier.transfer import Line, Transfer
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Optimizer
from tollkeeper.lab.progress import Progress
from tollkeeper.lab.torching import device
from tollkeeper.types import Images, Probabilities


@dataclass(frozen=True, kw_only=True)
class Knockoff(Copying):
    """Ask pictures at random, without replacement, and train on the answers."""

    paper: ClassVar[str] = "Orekondy et al., CVPR 2019"

    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Ask, then train."""
        choosing, training = rng.spawn(2)
        transfer = Transfer(line)
        order = choosing.permutation(len(pool))
        while len(order) and line.left:
            count = line.left
            transfer.ask(pool[order[:count]])
            order = order[count:]
        return self.trained(transfer.images, transfer.answers, rng=training, progress=progress)


@dataclass(frozen=True, kw_only=True)
class AdaptiveKnockoff(Copying):
    """Ask pictures of the classes that a gradient bandit prefers.

    Each step asks one picture and takes one training step; the copy is then trained anew on
    all answers.

    Attributes:
        labels: (n,) classes of the pool, the bandit's actions; None to group the pool by pixels.
        groups: how many groups, where there are no labels.
        certainty: reward answers that are sure of their top class.
        diversity: reward answers that differ from the mean answer.
        loss: reward pictures that the copy answers otherwise.
    """

    paper: ClassVar[str] = "Orekondy et al., CVPR 2019"
    labels: NDArray[np.int64] | None = None
    groups: int = 26
    certainty: bool = True
    diversity: bool = True
    loss: bool = True

    def __post_init__(self) -> None:
        """Refuse a bandit without rewards or actions.

        Raises:
            ConfigurationError: no reward, or fewer than 2 groups.
        """
        if not (self.certainty or self.diversity or self.loss) or self.groups < 2:
            raise ConfigurationError(
                f"expected a reward and at least 2 groups, got {self.groups} groups"
            )

    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Ask one by one, then train."""
        grouping, drawing, building, training = rng.spawn(4)
        actions = self._actions(pool, grouping)
        transfer = Transfer(line)
        network = self.network.build(shape_of(pool), line.dim, building).to(device())
        learner = _Learner(network, self.schedule.optimizer, self.schedule.rate)
        rewards = Rewards(line.dim, self.certainty, self.diversity, self.loss)
        bandit = Bandit(len(actions))
        while line.left and any(actions):
            policy = bandit.policy(np.array([len(left) > 0 for left in actions]))
            action = int(drawing.choice(len(actions), p=policy))
            picture = pool[actions[action].pop()][None]
            found = transfer.ask(picture)
            if len(found.index):
                guess = probabilities(network, found.images)
                learner.step(found.images, found.answers)
                bandit.update(action, rewards(found.answers[0], guess[0]), policy)
        return self.trained(transfer.images, transfer.answers, rng=training, progress=progress)

    def _actions(self, pool: Images, rng: np.random.Generator) -> list[list[int]]:
        """Return the positions in the pool of each action's pictures, shuffled."""
        labels = grouped(pool, self.groups, rng) if self.labels is None else self.labels
        if len(labels) != len(pool):
            raise ConfigurationError(
                f"expected one label for each of {len(pool)} pictures, got {len(labels)}"
            )
        order = rng.permutation(len(pool))
        return [order[labels[order] == one].tolist() for one in np.unique(labels)]


class _Learner:
    """A copy that learns answer by answer."""

    def __init__(self, network: nn.Module, make: Optimizer, rate: float) -> None:
        self._network = network
        self._optimizer = make(list(network.parameters()), rate)

    def step(self, images: Images, answers: Probabilities) -> None:
        where = next(self._network.parameters()).device
        inputs, targets = torch.from_numpy(images).to(where), torch.from_numpy(answers).to(where)
        self._network.train()
        value = soft_cross_entropy(self._network(inputs), targets).mean()
        self._optimizer.zero_grad(set_to_none=True)
        value.backward()
        self._optimizer.step()
        self._network.eval()


@dataclass(frozen=True, kw_only=True)
class Copycat(Knockoff):
    """Ask unrelated natural pictures at random and keep labels only.

    Source: Correia-Silva et al., "Copycat CNN: Stealing Knowledge by Persuading Confession with
    Random Non-Labeled Data", IJCNN 2018.

    Notes:
        The paper fine-tunes a VGG-16 that was trained on ImageNet; this copy starts at random
        weights unless `network` says otherwise.
    """

    paper: ClassVar[str] = "Correia-Silva et al., IJCNN 2018"
    labels_only: bool = True
