"""ActiveThief: ask what the copy so far would learn most from.

Source: Pal et al., "ActiveThief: Model Extraction Using Active Learning and Unannotated Public
Data", AAAI 2020.

Notes:
    The answers that validate are queries and count (the reference's stated budget leaves them
    out); they pick the epoch whose copy agrees best, by macro F1, and are not learned. The
    reference imports a module that it lacks. Epochs are fixed, where the paper waits for
    100 without progress. Distances of k-center are between the copy's own probabilities, of
    centers too. DeepFool's pictures are never asked.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tollkeeper.attacks.classifier.choices import Choice, Uncertainty
from tollkeeper.attacks.classifier.copies import Copying, imitate, probabilities, shape_of
from tollkeeper.attacks.classifier.transfer import Line, Transfer
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Adam, Schedule
from tollkeeper.lab.progress import Progress, Step, silent
from tollkeeper.lab.torching import device
from tollkeeper.types import Images

SCHEDULE = Schedule(epochs=1000, batch=150, optimizer=Adam(weight_decay=1e-3))
"""Of the paper."""


@dataclass(frozen=True, kw_only=True)
class ActiveThief(Copying):
    """Rounds of choosing pictures of a pool, asking them, and training anew.

    Attributes:
        choice: what is asked next.
        schedule: how each round's copy is trained.
        iterations: rounds after the seed.
        seed: share of the budget that is asked at random first.
        validation: share that is asked at random to tell good epochs.
    """

    paper: ClassVar[str] = "Pal et al., AAAI 2020"
    choice: Choice = field(default_factory=Uncertainty)
    schedule: Schedule = SCHEDULE
    iterations: int = 10
    seed: float = 0.1
    validation: float = 0.2

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to choose.

        Raises:
            ConfigurationError: no rounds, no seed, or shares of 1 or more together.
        """
        shares = self.seed + self.validation
        if self.iterations < 1 or self.seed <= 0 or self.validation < 0 or shares >= 1:
            raise ConfigurationError(
                "expected at least 1 iteration, a seed above 0 and shares below 1 together, got "
                f"{self.iterations}, {self.seed} and {self.validation}"
            )

    def steal(
        self, line: Line, pool: Images, *, rng: np.random.Generator, progress: Progress
    ) -> nn.Module:
        """Ask validation and seed, then round by round."""
        drawing, choosing, training = rng.spawn(3)
        order = drawing.permutation(len(pool))
        held = round(self.validation * line.left)
        seed = max(2, round(self.seed * line.left))
        watched, known = Transfer(line), Transfer(line)
        watched.ask(pool[order[:held]])
        known.ask(pool[order[held : held + seed]])
        rest = order[held + seed :]
        best = _Best(watched)
        for left in range(self.iterations, 0, -1):
            count = -(-line.left // left)
            if not count or not len(rest):
                break
            network = self._copy(known, best, training)
            chosen = self.choice(network, pool[rest], known.images, count, rng=choosing)
            known.ask(pool[rest[chosen]])
            rest = np.delete(rest, chosen)
            progress(Step("choosing", self.iterations - left + 1, self.iterations))
        return self._copy(known, best, training, progress)

    def _copy(
        self,
        known: Transfer,
        best: _Best,
        rng: np.random.Generator,
        progress: Progress = silent,
    ) -> nn.Module:
        """Return a new copy of its best epoch."""
        building, ordering = rng.spawn(2)
        network = self.network.build(shape_of(known.images), known.line.dim, building)
        network = network.to(device())
        images, answers = known.images, known.answers
        watch = best.watch(network, progress)
        imitate(network, images, answers, schedule=self.schedule, rng=ordering, progress=watch)
        best.restore(network)
        return network


class _Best:
    """Remembers the weights of the epoch that agreed best with the validating answers."""

    def __init__(self, watched: Transfer) -> None:
        self._images: Images | None = watched.images if len(watched) else None
        self._wanted = watched.answers.argmax(axis=1) if len(watched) else np.empty(0, np.intp)
        self._classes = watched.line.dim
        self._score = -1.0
        self._state: dict[str, Tensor] = {}

    def watch(self, network: nn.Module, progress: Progress) -> Callable[[Step], None]:
        """Return what to call after each epoch."""
        self._score, self._state = -1.0, {}

        def watch(step: Step) -> None:
            progress(step)
            if self._images is None:
                return
            network.eval()
            said = probabilities(network, self._images).argmax(axis=1)
            network.train()
            score = macro_f1(self._wanted, said, self._classes)
            if score >= self._score:
                self._score, self._state = score, deepcopy(network.state_dict())

        return watch

    def restore(self, network: nn.Module) -> None:
        """Give the network its best weights."""
        if self._state:
            network.load_state_dict(self._state)


def macro_f1(wanted: NDArray[np.intp], said: NDArray[np.intp], classes: int) -> float:
    """Return the mean F1 of the classes that occur in either."""
    scores = []
    for one in range(classes):
        both = int(((wanted == one) & (said == one)).sum())
        either = int((wanted == one).sum() + (said == one).sum())
        if either:
            scores.append(2 * both / either)
    return float(np.mean(scores))
