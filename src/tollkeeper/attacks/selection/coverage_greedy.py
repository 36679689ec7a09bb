"""Much to learn for little coverage: inputs that a committee disputes, in buckets already open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.selection.base import Ask, check_count
from tollkeeper.attacks.selection.features import Features, thumbnails
from tollkeeper.attacks.sybil.mappers import AffineMap, RidgeMapper
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

_ROWS = 4096
"""Inputs predicted at once, which bounds memory."""


@dataclass(frozen=True, slots=True)
class CoverageGreedy:
    """Maximizes disagreement less a price for buckets that a coverage meter would count as new.

    In rounds: a committee of ridge regressions from cheap features to the answers so far, each
    fitted on its own two thirds of them, predicts every input left. Disagreement u(x) is the
    variance of the predicted directions; the mean prediction is hashed by hyperplanes of the
    attacker's own, since the defender's are secret, through the mean of the first answers.
    Inputs are taken one by one, always the one of largest

        rank of u(x) - price * (share of hash tables in which x would open a bucket),

    with ranks from 0 to 1, since disagreements differ by orders of magnitude.

    Ours, not published: aimed at meters like that of B4B (Dubiński et al., NeurIPS 2023).

    Attributes:
        features: what the committee sees of an input.
        price: at 1, opening a bucket in every table outweighs any disagreement; 0 chooses by
            disagreement alone.
        first: inputs chosen at random to start from, at least 3.
        rounds: times that the committee is refitted.
        members: regressions in the committee, at least 2.
        tables: hash tables; as many as B4B has.
        bits: hyperplanes of a table; as many as B4B has.
    """

    features: Features = thumbnails
    price: float = 1.0
    first: int = 200
    rounds: int = 5
    members: int = 3
    tables: int = 20
    bits: int = 12

    def __post_init__(self) -> None:
        """Refuse settings without a meaning."""
        if min(self.first - 2, self.rounds, self.members - 1, self.tables, self.bits) < 1:
            raise ConfigurationError(
                "expected first >= 3, members >= 2 and at least one round, table and bit, got "
                f"{self.first}, {self.members}, {self.rounds}, {self.tables}, {self.bits}"
            )
        if not (self.price >= 0 and self.bits <= 16):
            raise ConfigurationError(
                f"expected price >= 0 and bits <= 16, got {self.price} and {self.bits}"
            )

    def choose(
        self, queries: Batch, count: int, *, ask: Ask, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Choose `count` positions, asking for those of all rounds but the last."""
        check_count(count, queries)
        chosen = rng.permutation(len(queries))[: min(self.first, count)]
        if count <= self.first:
            return chosen
        features = self.features(queries)
        buckets: _Buckets | None = None
        for amount in _shares(count - len(chosen), self.rounds):
            answers = ask(chosen)
            buckets = buckets or _Buckets.draw(answers, self.tables, self.bits, rng)
            committee = self._committee(features[chosen], answers, rng)
            disagreement, codes = _predict(committee, features, buckets)
            disagreement[chosen] = -np.inf
            seen = buckets.seen(buckets(answers))
            more = _take(disagreement, codes, seen, amount=amount, price=self.price)
            chosen = np.concatenate([chosen, more])
        return chosen

    def _committee(
        self, features: NDArray[np.float32], answers: Embeddings, rng: np.random.Generator
    ) -> list[AffineMap]:
        """Fit each member on two thirds of the answers, drawn without replacement."""
        most = -(-2 * len(answers) // 3)
        parts = [rng.permutation(len(answers))[:most] for _ in range(self.members)]
        return [RidgeMapper().fit(features[part], answers[part], rng=rng) for part in parts]


@dataclass(frozen=True, slots=True, eq=False)
class _Buckets:
    """The attacker's own hash.

    Attributes:
        origin: (d,) where all hyperplanes meet.
        normals: (d, tables * bits).
        tables: how many tables there are.
    """

    origin: NDArray[np.float32]
    normals: NDArray[np.float32]
    tables: int

    @classmethod
    def draw(
        cls, answers: Embeddings, tables: int, bits: int, rng: np.random.Generator
    ) -> _Buckets:
        """Draw hyperplanes through the mean of (n, d) answers."""
        shape = (answers.shape[1], tables * bits)
        return cls(answers.mean(axis=0), rng.standard_normal(shape, dtype=np.float32), tables)

    def __call__(self, embeddings: Embeddings) -> NDArray[np.intp]:
        """Return the (n, tables) buckets of embeddings (n, d)."""
        above = (embeddings - self.origin) @ self.normals > 0
        bits = above.reshape(len(embeddings), self.tables, -1)
        codes: NDArray[np.intp] = bits @ (1 << np.arange(bits.shape[2]))
        return codes

    def seen(self, codes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return (tables, buckets): which of them (n, tables) codes open."""
        seen = np.zeros((self.tables, 1 << self.normals.shape[1] // self.tables), dtype=bool)
        seen[np.arange(self.tables), codes] = True
        return seen


def _predict(
    committee: Sequence[AffineMap], features: NDArray[np.float32], buckets: _Buckets
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return disagreement (n,) in [0, 1] and predicted buckets (n, tables) of all inputs."""
    disagreement, codes = [], []
    for start in range(0, len(features), _ROWS):
        votes = np.stack([member(features[start : start + _ROWS]) for member in committee])
        lengths = np.linalg.norm(votes, axis=2, keepdims=True)
        mean = (votes / np.maximum(lengths, np.finfo(np.float32).tiny)).mean(axis=0)
        # Directions have length 1, so their variance is what the mean's square lacks.
        disagreement.append(1 - np.square(mean, dtype=np.float64).sum(axis=1))
        codes.append(buckets(votes.mean(axis=0)))
    return np.concatenate(disagreement), np.concatenate(codes)


def _take(
    disagreement: NDArray[np.float64],
    codes: NDArray[np.intp],
    seen: NDArray[np.bool_],
    *,
    amount: int,
    price: float,
) -> NDArray[np.intp]:
    """Take inputs one by one, each opening its buckets for those after it.

    Args:
        disagreement: (n,), -inf for inputs that are out.
        codes: (n, tables) predicted buckets.
        seen: (tables, buckets) which are open; changed.
        amount: how many to take.
        price: of one new bucket in every table; the largest disagreement is worth 1.

    Returns:
        (amount,) positions.
    """
    tables = np.arange(codes.shape[1])
    left = np.flatnonzero(np.isfinite(disagreement))
    score = np.full(len(disagreement), -np.inf)
    score[left[disagreement[left].argsort()]] = np.linspace(0, 1, len(left))
    score -= price * (~seen[tables, codes]).mean(axis=1)
    taken = np.empty(amount, dtype=np.intp)
    for place in range(amount):
        best = taken[place] = int(score.argmax())
        score[best] = -np.inf
        for table in tables[~seen[tables, codes[best]]]:
            seen[table, codes[best, table]] = True
            score[codes[:, table] == codes[best, table]] += price / len(tables)
    return taken


def _shares(total: int, parts: int) -> list[int]:
    """Split a total into at most `parts` positive shares, as even as they go."""
    return [len(part) for part in np.array_split(np.arange(total), min(parts, total))]
