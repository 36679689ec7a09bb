"""What an epoch of InfoNCE theft costs beside the scheme that asks the victim again each time.

The reference scheme (Dziedzic et al., ICML 2022, and most code since) puts every batch through
the victim in every epoch, in float32. Here the victim was asked before, and the surrogate runs
in bfloat16 where the hardware multiplies it. Both train the same network in the same loop on the
same images in the same batches, the victim being of the same architecture as the surrogate.
`epoch_over_reference` is thus of two savings at once, kept answers and the fast precision;
`epoch_over_reference.same_precision` is of kept answers alone.

All schemes take turns in one process of one thread; every turn gives one ratio. On a CPU the
clock counts the thread's own seconds, since nobody waits here for anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.bench.experiment import Metric, Progress
from tollkeeper.bench.stats import ratio_metric
from tollkeeper.bench.theft.variants import NETWORKS
from tollkeeper.lab.fit import Schedule, fit, run_network
from tollkeeper.lab.progress import silent
from tollkeeper.lab.torching import device

TOLERANCE = 0.15
DIM, SIDE = 512, 32


@dataclass(frozen=True, slots=True)
class Timing:
    """What is timed.

    Attributes:
        network: of surrogate and victim alike, a key of `NETWORKS`.
        images: in an epoch.
        batch: inputs per step.
        turns: timed epochs of each scheme.
    """

    network: str
    images: int
    batch: int
    turns: int


def epoch_metrics(found: Mapping[str, Any], *, rng: np.random.Generator) -> dict[str, Metric]:
    """Turn the times of `take_times` into metrics."""
    seconds = found["seconds"]
    metrics = {
        name: ratio_metric(
            seconds[scheme], seconds["reference"], direction="lower", tolerance=TOLERANCE, rng=rng
        )
        for name, scheme in _RATIOS.items()
    }
    if found["peak_rss_mb"] is not None:
        metrics["peak_rss_mb"] = Metric(found["peak_rss_mb"], "MB", "lower", tolerance=0.10)
    return metrics


_RATIOS = {"epoch_over_reference": "kept", "epoch_over_reference.same_precision": "kept_float32"}


# -- the child process -------------------------------------------------------------


def take_times(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Take all times; runs in a child with one thread."""
    timing = msgspec.convert(payload["timing"], Timing)
    return time_epochs(
        timing, clock=_clock, rng=np.random.default_rng(payload["seed"]), progress=progress
    )


def time_epochs(
    timing: Timing, *, clock: Callable[[], float], rng: np.random.Generator, progress: Progress
) -> dict[str, Any]:
    """Let all schemes take turns.

    Returns:
        `seconds`: scheme to seconds per epoch; `peak_rss_mb`: the largest resident set before
        the first victim was asked, None off Linux; `bfloat16`: whether it was used.
    """
    schemes, surrogate = _schemes(timing, rng)
    schedule = Schedule(epochs=1, batch=timing.batch)

    def epoch(scheme: str) -> float:
        began = clock()
        loss = schemes[scheme]
        fit([surrogate], timing.images, loss, schedule=schedule, rng=rng, progress=silent)
        return clock() - began

    epoch("kept")
    peak = peak_memory_mb()
    for scheme in schemes:
        epoch(scheme)
    seconds: dict[str, list[float]] = {scheme: [] for scheme in schemes}
    for turn in range(timing.turns):
        progress(turn, timing.turns, "timing epochs")
        # The order turns round each time, so that nobody always runs on warm caches.
        for scheme in list(schemes)[:: 1 if turn % 2 else -1]:
            seconds[scheme].append(epoch(scheme))
    return {"seconds": seconds, "peak_rss_mb": peak, "bfloat16": _uses_bfloat16()}


def _schemes(
    timing: Timing, rng: np.random.Generator
) -> tuple[dict[str, Callable[[Tensor], Tensor]], Any]:
    """Return the losses of a batch, and the surrogate that they train."""
    surrogate, victim = (NETWORKS[timing.network].build(DIM, rng) for _ in range(2))
    victim.eval()
    shape = (timing.images, 3, SIDE, SIDE)
    images = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(device())
    kept = torch.from_numpy(rng.standard_normal((timing.images, DIM), dtype=np.float32))
    answers, objective = kept.to(device()), InfoNCE()

    def ask_again(index: Tensor) -> Tensor:
        with torch.no_grad():
            fresh = victim(images[index])
        return objective(surrogate(images[index]), fresh)

    schemes: dict[str, Callable[[Tensor], Tensor]] = {
        "kept": lambda index: objective(run_network(surrogate, images[index]), answers[index]),
        "kept_float32": lambda index: objective(surrogate(images[index]), answers[index]),
        "reference": ask_again,
    }
    return schemes, surrogate


def _uses_bfloat16() -> bool:
    """Return whether `run_network` computes in bfloat16 on this hardware."""
    layer = torch.nn.Linear(1, 1).to(device())
    seen: list[torch.dtype] = []
    layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    run_network(layer, torch.ones(1, 1, device=device()))
    return seen == [torch.bfloat16]


def _clock() -> float:
    """Return the thread's processor seconds, or the time when the GPU is done."""
    if device().type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_mb() -> float | None:
    """Return this process's largest resident set so far in MB (10^6 bytes), None off Linux."""
    # Not getrusage: its peak is inherited from the parent process.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 / 1e6 if found else None
