"""What data-free attacks share: a game against a victim without gradients.

The pool tells the shape of the pictures and nothing else. Whole iterations are played while the
budget holds them; what is left is asked for the copy alone, so that nothing is wasted. At the
budgets of detection experiments (1,000 to 10,000) an iteration or five are played: the
queries are then pictures of a generator that has learned next to nothing, and say nothing about
the attack at its own budgets of millions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.base import UNLIMITED
from tollkeeper.attacks.classifier.copies import Copying, shape_of
from tollkeeper.attacks.classifier.generator import Generator, Memory, directions
from tollkeeper.attacks.classifier.transfer import Line
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Schedule
from tollkeeper.lab.progress import Progress, Step
from tollkeeper.lab.torching import device, generator, seeded_init
from tollkeeper.types import Images

AS_PUBLISHED = Schedule(epochs=0)
"""The copy is what the game left."""


@dataclass(frozen=True, kw_only=True)
class DataFree(Copying):
    """A game: the generator makes pictures that the copy gets wrong, the copy learns them.

    Attributes:
        game_batch: pictures per step.
        noise: numbers that the generator makes a picture of.
        filters: of its first layer.
        directions: forward differences per picture.
        epsilon: their length, before the pictures' squashing.
        student_steps: steps of the copy on new pictures in an iteration.
        reuse: whether the first of those learns the pictures of the generator's step, which
            are answered already.
        replays: steps of the copy in an iteration on what it remembers.
        memory: answered pictures that are remembered, a random part of all; none with 0.
        student_rate: learning rate of the copy.
        generator_rate: of the generator.
        momentum: of the copy.
        weight_decay: of the copy.
        floor: least probability whose logarithm is taken.
        schedule: how a new copy is trained on the memory in the end. With 0 epochs, as published,
            the copy is the one that played.
    """

    schedule: Schedule = AS_PUBLISHED
    game_batch: int = 256
    noise: int = 256
    filters: int = 128
    directions: int = 1
    epsilon: float = 1e-3
    student_steps: int = 5
    reuse: bool = False
    replays: int = 0
    memory: int = 0
    student_rate: float = 0.1
    generator_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 5e-4
    floor: float = 1e-10

    def __post_init__(self) -> None:
        """Refuse a game that cannot be played.

        Raises:
            ConfigurationError: something is too small.
        """
        least = min(self.game_batch - 1, self.noise, self.filters - 1, self.directions)
        if least < 1 or self.student_steps < 1 or min(self.replays, self.memory) < 0:
            raise ConfigurationError(
                "expected batches and filters of at least 2, and noise, directions and student "
                f"steps of at least 1, got {self.game_batch}, {self.filters}, {self.noise}, "
                f"{self.directions} and {self.student_steps}"
            )

    @property
    def queries_per_iteration(self) -> int:
        """Pictures that one iteration asks."""
        fresh = self.student_steps - int(self.reuse)
        return self.game_batch * (self.directions + 1 + fresh)

    def most_queries(self, inputs: int, accounts: int) -> int:
        """Return that there is no limit."""
        del inputs, accounts
        return UNLIMITED

    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Play, then ask for the copy what the budget has left."""
        game = _Game(self, line, shape_of(pool), rng)
        iterations = line.left // self.queries_per_iteration
        for number in range(iterations):
            if line.stopped:
                break
            game.set_rates(self.decay(number / iterations))
            game.iterate()
            progress(Step("playing", number + 1, iterations, queries=line.budget - line.left))
        while line.left:
            game.learn(min(self.game_batch, line.left))
        if self.schedule.epochs and len(game.memory) > 1:
            images, answers = game.memory.all()
            return self.trained(images, answers, rng=rng.spawn(1)[0], progress=progress)
        return game.student

    @abstractmethod
    def errors(self, answers: Tensor, logits: Tensor) -> Tensor:
        """Return (n,) what the copy's (n, k) logits miss of the victim's probabilities."""

    @abstractmethod
    def decay(self, share: float) -> float:
        """Return the factor of the learning rates after a share of the iterations."""

    @abstractmethod
    def generator_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return what trains the generator."""


class _Game:
    """The two networks of one run, and the line to the victim."""

    def __init__(
        self, rule: DataFree, line: Line, shape: tuple[int, int, int], rng: np.random.Generator
    ) -> None:
        making, building, drawing, remembering = rng.spawn(4)
        self._rule, self._line, self._where = rule, line, device()
        with seeded_init(making):
            maker = Generator(shape, noise=rule.noise, filters=rule.filters)
        self._maker = maker.to(self._where).train()
        self.student = rule.network.build(shape, line.dim, building).to(self._where)
        self._draws = generator(drawing)
        self.memory = Memory(rule.memory, remembering)
        self._makes = rule.generator_optimizer(list(self._maker.parameters()))
        self._learns = torch.optim.SGD(
            self.student.parameters(),
            lr=rule.student_rate,
            momentum=rule.momentum,
            weight_decay=rule.weight_decay,
        )

    def set_rates(self, factor: float) -> None:
        """Set both learning rates to a share of their first values."""
        rates = (self._rule.generator_rate, self._rule.student_rate)
        for optimizer, rate in zip((self._makes, self._learns), rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def iterate(self) -> None:
        """Take one step of the generator, and the copy's steps."""
        rule = self._rule
        before = self._maker(self._noise(rule.game_batch))
        answered = self._error(before.detach())
        slope = estimated(
            lambda moved: self._error(moved)[0],
            answered[0],
            before.detach(),
            count=rule.directions,
            epsilon=rule.epsilon,
            draws=self._draws,
        )
        self._makes.zero_grad(set_to_none=True)
        # Descent on minus the mean error is ascent on it.
        before.backward(-slope / len(before))
        self._makes.step()
        if rule.reuse:
            self._step(*answered[1:])
        for _ in range(rule.student_steps - int(rule.reuse)):
            self.learn(rule.game_batch)
        for _ in range(rule.replays):
            images, answers = self.memory.drawn(rule.game_batch)
            self._step(images.to(self._where), answers.to(self._where))

    def learn(self, count: int) -> None:
        """Take one step of the copy on new pictures."""
        with torch.no_grad():
            # Batch normalization needs two pictures, also where one query is left.
            made = squashed(self._maker(self._noise(max(2, count))))[:count]
        self._step(*self._ask(made)[1:])

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self._rule.noise, generator=self._draws).to(self._where)

    def _ask(self, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions that were answered, (m, c, h, w) as asked, and (m, k) answers."""
        found = self._line(made.cpu().numpy())
        self.memory.add(found.images, found.answers)
        index = torch.from_numpy(found.index).to(self._where)
        return (
            index,
            torch.from_numpy(found.images).to(self._where),
            torch.from_numpy(found.answers).to(self._where),
        )

    def _error(self, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the copy's (n,) errors, NaN where there is no answer, and what was answered."""
        index, images, answers = self._ask(squashed(before))
        errors = torch.full((len(before),), float("nan"), device=self._where)
        with torch.no_grad():
            errors[index] = self._rule.errors(answers, self.student(images))
        return errors, images, answers

    def _step(self, images: Tensor, answers: Tensor) -> None:
        if len(images) == 0:
            return
        self.student.train()
        loss = self._rule.errors(answers, self.student(images)).mean()
        self._learns.zero_grad(set_to_none=True)
        loss.backward()
        self._learns.step()


def squashed(before: Tensor) -> Tensor:
    """Return pictures in [0, 1] of what the generator makes: tanh, shifted to that range."""
    return (torch.tanh(before) + 1) / 2


def estimated(
    errors: Callable[[Tensor], Tensor],
    here: Tensor,
    point: Tensor,
    *,
    count: int,
    epsilon: float,
    draws: torch.Generator,
) -> Tensor:
    """Return the gradient (n, ...) of errors at n points by forward differences on the sphere.

    The mean over directions u of (size / epsilon) (f(x + epsilon u) - f(x)) u, which is the
    gradient in expectation where f is linear over epsilon.

    Args:
        errors: of n points, (n,); NaN where unknown, which adds nothing.
        here: errors at `point`.
        point: (n, ...).
        count: directions per point.
        epsilon: their length.
        draws: the directions.
    """
    slope = torch.zeros_like(point)
    for _ in range(count):
        way = directions(point.shape, draws).to(point.device)
        gain = torch.nan_to_num(errors(point + epsilon * way) - here)
        slope += gain.reshape(-1, *[1] * (point.ndim - 1)) * way
    return slope * (point[0].numel() / epsilon / count)
