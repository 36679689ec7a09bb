"""Tenants of a guarded encoder who leak: copies of their answers, alone or together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.surrogate import Surrogate
from tollkeeper.bench.ownership.obfuscations import Change
from tollkeeper.bench.ownership.scene import Scene
from tollkeeper.bench.ownership.thieves import Means, steal
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.encoders.base import Encoder
from tollkeeper.gateway.admission import ALL
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.price import Free
from tollkeeper.guard.profiles import Profile
from tollkeeper.types import Batch, Embeddings

QUIET: Final[Profile] = replace(
    profiles.RECOMMENDED, price=Free(), ceiling=None, landmarks=0, samples=0
)
"""`recommended` without noise and refusals, so that a thief gets what a customer gets."""

DEFENSES: Final[Mapping[str, Profile]] = {"below": QUIET, "above": profiles.RECOMMENDED}
"""Whether a thief is kept below the knee, or goes above it and meets noise and refusals. Keys make
the same of both: they hang on the profile's name and version alone."""

_SHARED = 500
"""Public images that colluders ask of all accounts, to bring answers into one space."""


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """A guarded encoder and its images.

    Attributes:
        scene: the images.
        victim: trained on the first claim's private images.
        calibration: of the victim.
        secret: of the guard.
    """

    scene: Scene
    victim: Surrogate
    calibration: Calibration
    secret: bytes

    def guard(self) -> Guard:
        """Return the guard, whose keys are the same every time."""
        return Guard(QUIET, self.calibration, secret=self.secret)


class Averaged:
    """Several accounts as one: the mean of their answers, brought into the first one's space.

    Attributes:
        name: of the first account.
        dim: of the first account.
        accepts: of the first account.
    """

    def __init__(self, accounts: Sequence[Encoder], shared: Batch) -> None:
        """Fit an affine map from each account's answers to shared inputs to the first one's."""
        first = accounts[0]
        self.name, self.dim, self.accepts = first.name, first.dim, first.accepts
        self._accounts = tuple(accounts)
        wanted = first.embed(shared)
        self._maps = [
            np.linalg.lstsq(_design(one.embed(shared)), wanted, rcond=None)[0] for one in accounts
        ]

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs: (n, d) float32."""
        parts = [
            _design(one.embed(inputs)) @ slopes
            for one, slopes in zip(self._accounts, self._maps, strict=True)
        ]
        joined: Embeddings = np.mean(parts, axis=0).astype(np.float32)
        return joined


def copy_of(
    deployment: Deployment,
    tenants: Sequence[str],
    attack: str,
    *,
    defense: str,
    budget: int,
    means: Means,
    rng: np.random.Generator,
) -> Encoder:
    """Return a copy made from the marked answers to one tenant, or to several together.

    Args:
        deployment: who answers.
        tenants: who asks; several ask every query each and average.
        attack: of `thieves.THIEVES`.
        defense: of `DEFENSES`.
        budget: queries of each.
        means: of the thief.
        rng: all randomness.
    """
    with GuardedVictim(
        deployment.victim,
        DEFENSES[defense],
        deployment.calibration,
        secret=deployment.secret,
        clock=lambda: 0.0,
        rng=rng,
        marked=(ALL,),
    ) as victim:
        accounts = [victim.account(tenant) for tenant in tenants]
        pool = deployment.scene.pool.images
        asked = accounts[0] if len(accounts) == 1 else Averaged(accounts, pool[:_SHARED])
        return steal(attack, asked, pool, budget=budget, rng=rng, means=means)


@dataclass(frozen=True, slots=True)
class Truncation:
    """Keeps the principal directions that hold a share of the variance, and drops the others.

    Attributes:
        share: that is kept.
    """

    share: float

    def __call__(self, seen: Embeddings, rng: np.random.Generator) -> Change:
        """Fit to (n, d) own embeddings."""
        del rng
        middle = seen.mean(axis=0, dtype=np.float64)
        _, sizes, directions = np.linalg.svd(seen - middle, full_matrices=False)
        held = np.cumsum(np.square(sizes)) / np.square(sizes).sum()
        kept = directions[: int(np.searchsorted(held, self.share)) + 1]
        return lambda rows: (rows - middle) @ kept.T @ kept


def _design(rows: Embeddings) -> NDArray[np.float64]:
    return np.concatenate([rows.astype(np.float64), np.ones((len(rows), 1))], axis=1)
