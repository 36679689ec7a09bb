"""Experiment `guard-windows`: a year of traffic, by how much coverage is carried from month to month.

Twelve windows of thirty days. Honest accounts ask one subject all year, one subject with some
stray inputs of everything, or another subject every month. A thief asks a broad pool, at random
or region by region, whichever gives it more, and leaves for the month at its first price. Each
turns from window to window as the gateway does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import Context, Experiment, Measurement
from tollkeeper.bench.figures.subjects import scenes, subjects
from tollkeeper.bench.figures.traffic import Stage
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.windows import DAY_S, Windows
from tollkeeper.types import Embeddings

_DAYS = 30.0
_STRAY = 0.02


@dataclass(frozen=True, slots=True)
class Setting:
    """What is lived through.

    Attributes:
        encoders: names of `encoders.MODALITY`.
        secrets: deployment secrets, each with its own order of inputs.
        limit: inputs of a task or pool at most.
        months: windows.
        monthly: inputs of an honest account in each.
        shares: of the marks that are carried over, in hundredths.
    """

    encoders: tuple[str, ...] = ("builtin:text", "lsa", "builtin:image", "patches")
    secrets: int = 3
    limit: int = 12_000
    months: int = 12
    monthly: int = 500
    shares: tuple[int, ...] = (0, 25, 50, 75, 100)


def measure(setting: Setting, context: Context) -> Measurement:
    """Live through a year with every encoder, secret and share.

    Raises:
        ConfigurationError: an unknown encoder.
        DataError: a data set is missing or damaged.
    """
    samples, data = Samples(), dict[str, str]()
    for scene in scenes(setting.encoders, setting.secrets, setting.limit, context, data):
        encoder, guard = scene.stage.encoder, scene.guard
        for account, year in _years(scene.stage, setting, scene.rng):
            for share in setting.shares:
                named = f"{encoder}.{account}.c{share}"
                paid, end = _live(guard, year, Windows(_DAYS, share / 100))
                samples.add(f"paid.{named}", paid, "lower")
                samples.add(f"coverage.{named}", end, "lower")
        orders = list(scene.orders())
        for share in setting.shares:
            windows = Windows(_DAYS, share / 100)
            free = max(_steal(guard, pool, windows, setting.months) for pool in orders)
            samples.add(f"free_thief.{encoder}.c{share}", float(free), "lower", "inputs")
    return Measurement(samples.metrics(), data=data)


def _years(
    stage: Stage, setting: Setting, rng: np.random.Generator
) -> Iterator[tuple[str, list[Embeddings]]]:
    """Yield kinds of honest accounts: a name, and what is asked in each month."""
    cut = [one.embeddings for one in subjects(stage, rng=rng)]
    pool, count = stage.pool.embeddings, setting.monthly
    one = stage.narrow[0].embeddings

    def some(rows: Embeddings, number: int) -> Embeddings:
        # With repetition, as customers ask.
        return rows[rng.integers(0, len(rows), number)]

    months = range(setting.months)
    yield "steady", [some(one, count) for _ in months]
    stray = round(_STRAY * count)
    yield (
        "stray",
        [np.concatenate([some(one, count - stray), some(pool, stray)]) for _ in months],
    )
    yield "drifting", [some(cut[month % len(cut)], count) for month in months]


def _live(guard: Guard, year: list[Embeddings], windows: Windows) -> tuple[float, float]:
    """Return the share of a year's inputs that pay, and the highest coverage."""
    sketch, since = guard.empty(), 0.0
    paid, asked, highest = 0, 0, 0.0
    for month, rows in enumerate(year):
        at = month * _DAYS * DAY_S
        sketch = windows.turned(sketch, guard.profile.layout, key=b"experiment", since=since, at=at)
        signal = guard.signal(sketch, rows)
        sketch, since = guard.mark(sketch, rows), at
        paid += int(np.count_nonzero(signal > guard.profile.price.free_until))
        asked += len(rows)
        highest = max(highest, float(signal[-1]))
    return paid / asked, highest


def _steal(guard: Guard, pool: Embeddings, windows: Windows, months: int) -> int:
    """Return the free inputs of a thief who waits for the next month whenever it would pay."""
    sketch, start, total = guard.empty(), 0, 0
    for month in range(months):
        since, at = max(0, month - 1) * _DAYS * DAY_S, month * _DAYS * DAY_S
        sketch = windows.turned(sketch, guard.profile.layout, key=b"experiment", since=since, at=at)
        signal = guard.signal(sketch, pool[start:])
        free = int(np.searchsorted(signal, guard.profile.price.free_until, side="right"))
        # The first answer that it would pay for is asked too: that is how it knows.
        sketch = guard.mark(sketch, pool[start : start + free + 1])
        total, start = total + free, min(len(pool), start + free + 1)
    return total


EXPERIMENT = Experiment(
    id="guard-windows",
    title="a year of honest traffic and of a patient thief, by what is carried over",
    scales={
        "smoke": Setting(
            encoders=("builtin:text",),
            secrets=1,
            limit=1200,
            months=3,
            monthly=60,
            shares=(0, 100),
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=("paid.*", "coverage.*", "free_thief.*"),
    covers=("recommended",),
)
