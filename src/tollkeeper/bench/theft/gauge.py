"""What copies are measured by: the clean victim above them, an untrained network below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tollkeeper.attacks.base import Attack
from tollkeeper.bench.theft.pools import Pool
from tollkeeper.bench.theft.scoring import (
    NEIGHBORS,
    Reference,
    Scores,
    fidelity,
    input_reference,
    score,
    task_reference,
)
from tollkeeper.bench.theft.tasks import Task
from tollkeeper.bench.theft.tuning import part
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.cached import CachedEncoder, MemoryStore
from tollkeeper.errors import ConfigurationError, EncoderError, TollkeeperError
from tollkeeper.types import Batch, Embeddings

HELD_OUT = 500
"""Inputs of the pool at most that are kept from the attacker where there are no tasks."""

_SHARE = 5
_UNTRAINED = 1003  # Seeds of runs are below.


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """What copies are compared with.

    Attributes:
        references: the clean victim's answers.
        victim: the clean victim's own scores.
        asked: distinct inputs that it was asked for this.
    """

    references: tuple[Reference, ...]
    victim: Scores
    asked: int

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(each.name for each in self.references if each.task is not None)


class _Explained:
    """Passes calls on; what a user's own encoder raises becomes one line."""

    def __init__(self, victim: Encoder) -> None:
        self.name, self.dim, self.accepts = victim.name, victim.dim, victim.accepts
        self._victim = victim

    def embed(self, inputs: Batch) -> Embeddings:
        try:
            return self._victim.embed(inputs)
        except TollkeeperError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise EncoderError(f"the victim failed when asked for scoring: {error!r}") from error


def yardstick(victim: Encoder, *, tasks: Sequence[Task] = (), inputs: Batch = ()) -> Yardstick:
    """Ask the clean victim about tasks and about inputs without labels.

    Raises:
        ConfigurationError: nothing to ask about, or too little.
        TollkeeperError: the victim refused or failed.
    """
    asked = CachedEncoder(_Explained(victim), MemoryStore(), identity=b"")
    references = [task_reference(asked, task) for task in tasks]
    if len(inputs):
        references.append(input_reference(asked, "held out", inputs))
    return Yardstick(tuple(references), score(asked, references), asked.asked)


def hold_out(pool: Pool) -> tuple[Pool, Batch]:
    """Keep a fifth of a pool from the attacker, at most 500 inputs, and return both parts.

    Raises:
        ConfigurationError: the pool is too small.
    """
    count = min(HELD_OUT, len(pool.inputs) // _SHARE)
    if count <= NEIGHBORS:
        raise ConfigurationError(
            f"expected at least {_SHARE * (NEIGHBORS + 1)} inputs in {pool.name}, a fifth of "
            f"which is held out for scoring, got {len(pool.inputs)}"
        )
    left = len(pool.inputs) - count
    return beginning(pool, left), pool.inputs[left:]


def beginning(pool: Pool, count: int) -> Pool:
    """Return the first inputs of a pool, with their labels."""
    labels = None if pool.labels is None else pool.labels[:count]
    return Pool(pool.name, pool.inputs[:count], labels)


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """Turns scores into figures: between an untrained network and the victim.

    Attributes:
        yardstick: with the victim's scores.
        untrained: scores of the copy's network before training, for one draw of its weights.
    """

    yardstick: Yardstick
    untrained: Scores

    def figures(self, encoder: Encoder) -> dict[str, float]:
        """Score an encoder; its `fidelity` comes first."""
        scores = score(encoder, self.yardstick.references)
        return {"fidelity": self._fidelity(scores), **scores.named()}

    def floor(self) -> dict[str, float]:
        """Return the figures of the untrained network."""
        return {"fidelity": self._fidelity(self.untrained), **self.untrained.named()}

    def _fidelity(self, scores: Scores) -> float:
        return fidelity(scores, victim=self.yardstick.victim, untrained=self.untrained)


def figure_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all figures of a run."""
    families = ("accuracy", "knn", "agreement")
    named = (f"{family}.{task}" for family in families for task in tasks)
    return ("fidelity", "recall10", "centered_cosine", *named)


def blank_copy(attack: Attack, dim: int, inputs: Batch) -> Encoder:
    """Return the copy before training; nothing is asked of the victim.

    Raises:
        ConfigurationError: the network cannot be built, or does not read such inputs.
    """
    import torch

    from tollkeeper.bench.theft.floors import untrained

    # The first optimizer of a process loads much of torch; no run shall be billed for that.
    torch.optim.SGD([torch.zeros(1)], lr=0.1)
    try:
        bare = untrained(part(attack, "network"), dim, rng=np.random.default_rng(_UNTRAINED))
        bare.embed(inputs[:2])
    except (TollkeeperError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Torch tells wrong sizes in many ways; all of them come from the settings.
        raise ConfigurationError(f"the copy's network cannot be used: {error}") from error
    return bare


def gauge_for(measured: Yardstick, bare: Encoder) -> Gauge:
    """Score the copy before training.

    Raises:
        BenchError: the victim is no better, so that no fidelity can be stated.
    """
    gauge = Gauge(measured, score(bare, measured.references))
    gauge.floor()
    return gauge
