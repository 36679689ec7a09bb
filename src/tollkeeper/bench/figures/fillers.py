"""What a disguised thief merges its inputs with: the best of several that it has tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tollkeeper.attacks.asking import take
from tollkeeper.attacks.merged import merged
from tollkeeper.bench.figures.encoders import Embed
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Batch

_QUESTIONS = 4
_CANDIDATES = 8
_TRIED = 300


def best(narrow: Batch, pool: Batch, embed: Embed, guard: Guard) -> Any:
    """Return the filler behind which a pool looks narrowest.

    A text is four questions of a narrow task, an image one picture of it, white, or black.

    Args:
        narrow: inputs of a narrow task.
        pool: what the thief is after; its first inputs are tried.
        embed: the victim, clean.
        guard: of another secret than the deployment's: a thief tries fillers with accounts that
            it can spare, and what it learns there holds for the next one.
    """
    tried = take(pool, np.arange(min(_TRIED, len(pool))))
    ends = [
        (float(guard.signal(guard.empty(), embed(merged(tried, filler)))[-1]), number)
        for number, filler in enumerate(candidates(narrow))
    ]
    return candidates(narrow)[min(ends)[1]]


def candidates(narrow: Batch) -> Sequence[Any]:
    """Return what is tried."""
    if isinstance(narrow, np.ndarray):
        flat = [np.full_like(narrow[0], level) for level in (0, 255)]
        return [*narrow[:_CANDIDATES], *flat]
    return [
        " ".join(narrow[at : at + _QUESTIONS])
        for at in range(0, min(len(narrow), _QUESTIONS * _CANDIDATES), _QUESTIONS)
    ]
