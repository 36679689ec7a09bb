"""Jacobian-based augmentation: steps from a few honest pictures along the copy's gradient.

Sources: Papernot et al., "Practical Black-Box Attacks against Machine Learning", ASIA CCS 2017
(JBDA); Juuti et al., "PRADA: Protecting against DNN Model Stealing Attacks", EuroS&P 2019 (T-RND).

The seeds are the first pictures of the pool, honest ones or like them. They are asked and so count
as queries; they are the first `seeds` pictures that a `Recorder` sees, for those who leave
them out when they judge a detector.

Notes:
    Answers are kept, so a round asks its new pictures alone (MAZE's and Adaptive Misinformation's
    code asks the whole set again). Steps are clipped to the pixels' range [0, 1] (PredPoison's
    clips normalized pictures). What is asked is what is stored (PredPoison's `jbself` asks x - d
    and stores x + d). The copy's loss is the cross-entropy of its logits (MAZE's takes
    probabilities for logarithms). Targets are drawn once for each picture, never the victim's
    class (ModelGuard's draws again at each step, and may draw that class), and the step goes
    towards them (that of calibrated proof of work goes away). A round starts a new
    network. Of a round that the budget cuts, a random part is asked.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tollkeeper.attacks.base import UNLIMITED
from tollkeeper.attacks.classifier.copies import Copying
from tollkeeper.attacks.classifier.transfer import Line, Transfer
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import SGD, Schedule
from tollkeeper.lab.progress import Progress
from tollkeeper.types import Images

STEP = 0.05
"""0.1 of pixels in [-1, 1], as in SAME."""

ROUNDS = Schedule(epochs=10, batch=64, rate=0.01, optimizer=SGD())
"""Adaptive Misinformation's ten epochs a round."""

LAST = Schedule(epochs=100, batch=64, rate=0.01, optimizer=SGD())
"""PredPoison's."""

_TOGETHER = 512


@dataclass(frozen=True, kw_only=True)
class Augmenting(Copying):
    """Rounds of training a copy and asking one new picture for each that it has.

    Attributes:
        seeds: pictures of the pool that are asked first.
        step: how far a pixel may move, in [0, 1].
        rounds: how the copies between rounds are trained.
        gray: move all channels of a pixel alike. For thieves whose steps leave the color of fine
            detail as it is.
        strokes: move only pixels above this value, in [0, 1]; None moves all. For thieves who
            leave the background as clean as honest pictures have it.
        flip_every: rounds after which the step changes its sign; 0 never does.
        reservoir_after: rounds after which only `reservoir` pictures are stepped from; 0 never.
        reservoir: how many, drawn at random.
    """

    schedule: Schedule = LAST
    seeds: int = 200
    step: float = STEP
    rounds: Schedule = ROUNDS
    gray: bool = False
    strokes: float | None = None
    flip_every: int = 0
    reservoir_after: int = 0
    reservoir: int = 400

    def __post_init__(self) -> None:
        """Refuse settings that cannot be kept.

        Raises:
            ConfigurationError: no seeds or no reservoir, or a step or strokes out of range.
        """
        strokes = 0 if self.strokes is None else self.strokes
        if self.seeds < 2 or self.reservoir < 1 or not 0 < self.step <= 1 or not 0 <= strokes < 1:
            raise ConfigurationError(
                "expected at least 2 seeds, a reservoir of at least 1, a step in (0, 1] and "
                f"strokes in [0, 1), got {self.seeds}, {self.reservoir}, {self.step} and {strokes}"
            )

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return that there is no limit: the pool gives seeds alone."""
        del inputs, accounts
        return UNLIMITED

    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Ask the seeds, then round by round what is a step away from what was asked."""
        choosing, rounds, last = rng.spawn(3)
        transfer = Transfer(line)
        transfer.ask(pool[: self.seeds])
        number = 0
        while line.left:
            network = self.trained(
                transfer.images, transfer.answers, schedule=self.rounds, rng=rounds
            )
            chosen = self._chosen(len(transfer), number, line.left, choosing)
            # Some may step onto a picture that is known; only new ones are asked.
            fresh = self._stepped(network, transfer, chosen, number, choosing)
            if len(transfer.ask(fresh).index) == 0:
                break  # Nothing moves any more.
            number += 1
        return self.trained(transfer.images, transfer.answers, rng=last, progress=progress)

    def _chosen(
        self, count: int, number: int, left: int, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Return the positions of the pictures to step from, shuffled if not all can be asked."""
        most = count
        if self.reservoir_after and number >= self.reservoir_after:
            most = min(most, self.reservoir)
        return np.arange(count) if count <= min(most, left) else rng.permutation(count)[:most]

    def _stepped(
        self,
        network: nn.Module,
        transfer: Transfer,
        chosen: NDArray[np.intp],
        number: int,
        rng: np.random.Generator,
    ) -> Images:
        """Return a new picture for each chosen one."""
        sign = (-1) ** (number // self.flip_every) if self.flip_every else 1
        where = next(network.parameters()).device
        images, classes = transfer.images[chosen], transfer.answers[chosen].argmax(axis=1)
        others = self._others(classes, transfer.line.dim, rng)
        parts = []
        for start in range(0, len(images), _TOGETHER):
            end = start + _TOGETHER
            before = torch.from_numpy(images[start:end]).to(where)
            goal = torch.from_numpy(others[start:end]).to(where)
            after = self._moved(network, before, goal, sign * self.step)
            if self.strokes is not None:
                after = torch.where(before > self.strokes, after, before)
            parts.append(after.cpu().numpy())
        return np.concatenate(parts)

    def _others(
        self, classes: NDArray[np.int64], dim: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the class whose gradient each picture follows: the victim's."""
        del dim, rng
        return classes

    @abstractmethod
    def _moved(self, network: nn.Module, images: Tensor, classes: Tensor, step: float) -> Tensor:
        """Return images at most a step away from `images` in each pixel."""

    def _signs(self, slope: Tensor) -> Tensor:
        """Return the signs of a gradient (n, c, h, w), of all channels together if `gray`."""
        return slope.sum(dim=1, keepdim=True).sign() if self.gray else slope.sign()


@dataclass(frozen=True, kw_only=True)
class JBDA(Augmenting):
    """Step up the copy's output of the class that the victim said."""

    paper: ClassVar[str] = "Papernot et al., ASIA CCS 2017"

    def _moved(self, network: nn.Module, images: Tensor, classes: Tensor, step: float) -> Tensor:
        moved = images.clone().requires_grad_()
        # The gradient of log p has the signs of that of p, and does not vanish where p is near 1.
        value = -functional.cross_entropy(network(moved), classes, reduction="sum")
        (slope,) = torch.autograd.grad(value, moved)
        return (images + step * self._signs(slope)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class TRandom(Augmenting):
    """Step towards a class drawn at random from those that the victim did not say.

    Attributes:
        iterations: steps inside the box of `step` around a picture; 1 is FGSM.
        stride: length of such a step, in units of `step / iterations`.
    """

    paper: ClassVar[str] = "Juuti et al., EuroS&P 2019"
    iterations: int = 1
    stride: float = 1.0

    def _others(
        self, classes: NDArray[np.int64], dim: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        return (classes + rng.integers(1, dim, len(classes))) % dim

    def _moved(self, network: nn.Module, images: Tensor, classes: Tensor, step: float) -> Tensor:
        moved, length = images, step * self.stride / self.iterations
        for _ in range(self.iterations):
            here = moved.detach().requires_grad_()
            value = functional.cross_entropy(network(here), classes, reduction="sum")
            (slope,) = torch.autograd.grad(value, here)
            moved = here.detach() - length * self._signs(slope)
            moved = images + (moved - images).clamp(-abs(step), abs(step))
            moved = moved.clamp(0, 1)
        return moved
