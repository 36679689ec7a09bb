"""What a thief's accounts get for free, whatever it does to look harmless."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.figures.signals import Signal
from tollkeeper.bench.theft.probes import unit
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings

HARMLESS = 0.1
"""Noise in feature standard deviations that a thief does not mind (`noise-sweep`)."""

_REGIONS = 64
_SLOW_START = 1000
_FILLERS = 3
_NEAR = 0.99


def auroc(narrow: NDArray[np.float64], broad: NDArray[np.float64]) -> float:
    """Return how often a broad account's signal is above a narrow one's; ties count half."""
    above = (broad[:, None] > narrow[None]).mean()
    return float(above + (broad[:, None] == narrow[None]).mean() / 2)


def disguises(
    pool: Embeddings, filler: Embeddings, *, rng: np.random.Generator
) -> Iterator[tuple[str, Embeddings, NDArray[np.bool_]]]:
    """Yield ways to ask a pool: a name, what is asked in order, and which of it is the pool.

    Each input with a near-duplicate of it, three fillers before each input, a near-duplicate of
    one and the same filler before each, and a thousand fillers before all.

    Args:
        pool: (n, d) what the thief is after.
        filler: (m, d) inputs of one harmless subject.
        rng: of near-duplicates.
    """
    count = len(pool)
    yield "plain", pool, np.ones(count, np.bool_)
    away = rng.standard_normal(pool.shape).astype(np.float32)
    away *= math.sqrt(1 - _NEAR**2) / np.linalg.norm(away, axis=1, keepdims=True)
    twins = _NEAR * pool + away * np.linalg.norm(pool, axis=1, keepdims=True)
    doubled = np.stack([pool, twins], axis=1).reshape(2 * count, -1)
    yield "doubling", doubled, np.tile([True, False], count)
    some = filler[np.arange(_FILLERS * count) % len(filler)].reshape(count, _FILLERS, -1)
    padded = np.concatenate([some, pool[:, None]], axis=1).reshape((_FILLERS + 1) * count, -1)
    yield "padding", padded, np.tile([*[False] * _FILLERS, True], count)
    still = _NEAR * filler[:1] + away * np.linalg.norm(filler[0])
    diluted = np.stack([still, pool], axis=1).reshape(2 * count, -1)
    yield "diluting", diluted, np.tile([False, True], count)
    start = filler[:_SLOW_START]
    slow = np.concatenate([start, pool])
    yield "slow_start", slow, np.arange(len(slow)) >= len(start)


def free_at(signal: Signal, ceiling: float, asked: Embeddings, wanted: NDArray[np.bool_]) -> int:
    """Return how many wanted inputs are asked before a signal is above a ceiling."""
    above = np.flatnonzero(signal(asked) > ceiling)
    return int(wanted[: above[0]].sum()) if above.size else int(wanted.sum())


def accounts_needed(guard: Guard, embeddings: Embeddings) -> float:
    """Return how many accounts get (n, d) embeddings answered, each leaving when it pays.

    Infinity where not even the first answer is harmless.
    """
    unit_std = 1.0 if guard.profile.in_feature_std else guard.calibration.feature_std
    accounts, start = 0, 0
    while start < len(embeddings):
        rows = embeddings[start:]
        scales = guard.profile.price(guard.signal(guard.empty(), rows)) / unit_std
        paying = np.flatnonzero(scales > HARMLESS)
        free = int(paying[0]) if paying.size else len(rows)
        if free == 0:
            return math.inf
        start += free
        accounts += 1
    return accounts


def by_region(embeddings: Embeddings, *, seed: int) -> NDArray[np.intp]:
    """Return an order that goes through the space region by region, each next to the last.

    The regions are k-means clusters of the victim's own clean embeddings, which is more than
    a thief knows.
    """
    from sklearn.cluster import KMeans

    rows = unit(embeddings - embeddings.mean(axis=0))
    clusters = min(_REGIONS, len(rows))
    fitted = KMeans(clusters, n_init=1, max_iter=20, random_state=seed).fit(rows)
    rank = np.empty(clusters, np.intp)
    rank[_chain(fitted.cluster_centers_)] = np.arange(clusters)
    return np.argsort(rank[fitted.labels_], kind="stable")


def _chain(centers: NDArray[np.float64]) -> list[int]:
    """Return centers in an order in which each is the nearest one left to the one before."""
    left, chain = set(range(1, len(centers))), [0]
    while left:
        here = centers[chain[-1]]
        nearest = min(left, key=lambda one: float(np.square(centers[one] - here).sum()))
        left.remove(nearest)
        chain.append(nearest)
    return chain


def price(guard: Guard, pool: Embeddings, *, seed: int) -> Mapping[str, float]:
    """Return the accounts that a thief of a pool needs, by the order in which it asks."""
    return {
        "random": accounts_needed(guard, pool),
        "sharded": accounts_needed(guard, pool[by_region(pool, seed=seed)]),
    }
