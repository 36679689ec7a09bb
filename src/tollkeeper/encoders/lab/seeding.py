"""Random initial weights that leave no trace in the global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let modules that are made inside the block draw their weights from a seed.

    Modules draw on the CPU, so only that generator is borrowed and put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
