"""Text encoder theft: distil a sentence encoder into a smaller one.

Sources: "Can't Hide Behind the API" (arXiv 2406.09355) and "Sentence Embedding Encoders are Easy
to Steal but Hard to Defend": pairs of text and vector, one query each. Differences from the
papers: the surrogate is a hashed n-gram net instead of a fine-tuned transformer, which nobody
needs a GPU for, and the loss is the cosine distance alone, since served sentence vectors have
unit norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from tollkeeper.attacks.direct import Direct
from tollkeeper.attacks.networks.ngram import NGram
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.cosine import Cosine
from tollkeeper.attacks.surrogate import NetworkFactory
from tollkeeper.lab.fit import Schedule


@dataclass(frozen=True, slots=True)
class OnePassAdam:
    """Adam that goes through its memory once a step: most of it is a table of n-grams."""

    def __call__(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return torch.optim.Adam(parameters, lr=rate, fused=True)


@dataclass(frozen=True, kw_only=True)
class TextDistillation(Direct):
    """Direct extraction of a text encoder."""

    paper: ClassVar[str] = "arXiv 2406.09355"
    objective: Objective = field(default_factory=Cosine)
    network: NetworkFactory = field(default_factory=NGram)
    schedule: Schedule = field(
        default_factory=lambda: Schedule(epochs=30, batch=128, rate=2e-3, optimizer=OnePassAdam())
    )
