"""Where numpy's randomness and the machine's abilities become torch's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

_SEEDS = 2**63 - 1


def generator(rng: np.random.Generator) -> torch.Generator:
    """Return a CPU generator seeded by one draw from `rng`.

    Draws are made on the CPU and then moved, so they do not depend on the device.
    """
    return torch.Generator().manual_seed(int(rng.integers(_SEEDS)))


def device() -> torch.device:
    """Return the device to train on: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> AbstractContextManager[None]:
    """Compute convolutions and products in bfloat16 inside, where the hardware does so natively.

    Elsewhere bfloat16 is emulated and slower than float32, so nothing changes.
    """
    if not _multiplies_bfloat16(where):
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(where.type, torch.bfloat16)
    return context


def _multiplies_bfloat16(where: torch.device) -> bool:
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # An older torch does not tell what the CPU can do; float32 is always right.
    abilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return where.type == "cpu" and bool(abilities.get("avx512_bf16", False))


@contextmanager
def seeded_init(rng: np.random.Generator) -> Iterator[None]:
    """Let networks built inside on the CPU draw their weights from `rng`.

    Torch initializes layers from its global CPU generator; it is seeded by one draw from `rng`
    inside and left as it was found.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the GPUs too, which nobody restores.
        torch.default_generator.manual_seed(int(rng.integers(_SEEDS)))
        yield
