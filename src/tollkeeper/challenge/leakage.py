"""What answers tell about the training data: Rényi privacy loss, kept per account.

Teachers trained on disjoint shards vote on each input, and the loss is that of announcing the
winner under Gaussian noise (GNMax). No noise is added to any answer: the loss is only a meter of
how much a query asks for. An account's loss is kept as a vector over Rényi orders, which adds up
over queries, and converted to one number when it is read.

References:
    Papernot et al., "Scalable Private Learning with PATE", ICLR 2018, Theorem 6, Propositions 7
    and 10. Dziedzic et al., "Increasing the Cost of Model Extraction with Calibrated Proof of
    Work", ICLR 2022.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import ConfigurationError, GuardError

ORDERS: NDArray[np.float64] = np.concatenate([np.arange(2, 100, 0.5), np.geomspace(100, 1000, 200)])
"""Rényi orders λ at which losses are kept, those of the reference; (396,)."""
ORDERS.setflags(write=False)

_ROWS = 2048
"""Queries at a time, so that a long walk needs a few MB."""

_HEAD = struct.Struct("<4sdQ")
_MAGIC = b"TKL1"
_SIZE = _HEAD.size + 8 * len(ORDERS)

_FAR = 30.0
"""Standard deviations from which the tail is a series; `erfc` underflows at 38."""

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def log_q(votes: ArrayLike, *, sigma: float) -> NDArray[np.float64]:
    """Return a bound of log Pr[the noisy winner is not the winner], by the union bound.

    Args:
        votes: (n, k) teachers' votes for k classes; only gaps between them count.
        sigma: standard deviation of the noise on each count.

    Returns:
        (n,), at most log(1 - 1/k).

    Raises:
        ConfigurationError: sigma is not positive.
        ValueError: not (n, k >= 2) finite counts from 0 up.

    References:
        PATE 2018, Proposition 7.
    """
    _check_sigma(sigma)
    counts = _checked(votes)
    gaps = counts.max(axis=1, keepdims=True) - counts
    tails = _log_tail(gaps / (math.sqrt(2) * sigma))
    # The winner is no rival of itself; of several, one is the winner.
    tails[np.arange(len(counts)), counts.argmax(axis=1)] = -np.inf
    wrong: NDArray[np.float64] = np.logaddexp.reduce(tails, axis=1)
    return np.minimum(wrong, math.log1p(-1 / counts.shape[1]))


def renyi(votes: ArrayLike, *, sigma: float) -> NDArray[np.float64]:
    """Return the Rényi privacy loss of each query at every order.

    The data-dependent bound where it applies, and never above the data-independent λ/σ².

    Args:
        votes: (n, k) teachers' votes for k classes.
        sigma: standard deviation of the noise on each count.

    Returns:
        (n, 396), in the order of `ORDERS`.

    Raises:
        ConfigurationError: sigma is not positive.
        ValueError: not (n, k >= 2) finite counts from 0 up.

    References:
        PATE 2018, Theorem 6 with the orders of Proposition 10.
    """
    log_wrong = log_q(votes, sigma=sigma)
    variance = sigma * sigma
    loss = np.repeat(ORDERS[np.newaxis] / variance, len(log_wrong), axis=0)
    second = sigma * np.sqrt(-log_wrong)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Orders at most 1 give NaN, which compares as False; such rows are not `usable`.
        limit = (second - 1) * second / variance
        limit -= second * (np.log1p(1 / second) + np.log1p(1 / (second - 1)))
        usable = (second > 1) & (-log_wrong > second / variance) & (log_wrong <= limit)
    bound = _data_dependent(log_wrong[usable], second[usable], variance)
    loss[usable] = np.minimum(loss[usable], bound)
    return loss


def _data_dependent(
    log_wrong: NDArray[np.float64], second: NDArray[np.float64], variance: float
) -> NDArray[np.float64]:
    """Return the bound of Theorem 6, infinite at orders from μ1 on; (n, 396)."""
    wrong, mu2 = log_wrong[:, np.newaxis], second[:, np.newaxis]
    mu1 = mu2 + 1
    log_right = np.log1p(-np.exp(wrong))
    log_a = log_right - np.log(-np.expm1((wrong + mu2 / variance) * (1 - 1 / mu2)))
    log_b = mu1 / variance - wrong / (mu1 - 1)
    above = ORDERS - 1
    found = np.logaddexp(log_right + above * log_a, wrong + above * log_b) / above
    return np.where(mu1 > ORDERS, found, np.inf)


def converted(loss: NDArray[np.float64], *, delta: float) -> NDArray[np.float64]:
    """Return ε of (ε, δ)-differential privacy: min over λ of loss + log(1/δ) / (λ - 1).

    Args:
        loss: (..., 396) Rényi losses.
        delta: δ, in (0, 1).

    Returns:
        (...).

    Raises:
        ConfigurationError: delta is not in (0, 1).

    References:
        PATE 2018, Theorem 5 (Mironov 2017).
    """
    if not 0 < delta < 1:
        raise ConfigurationError(f"expected a delta in (0, 1), got {delta}")
    found: NDArray[np.float64] = (loss - math.log(delta) / (ORDERS - 1)).min(axis=-1)
    return found


def converted_each(votes: ArrayLike, *, sigma: float, delta: float) -> NDArray[np.float64]:
    """Return each query's own ε; the reference's cost of an account is their sum.

    That sum pays the δ term once per query, so a thousand clear votes cost it over a hundred times
    what they leak together; it is here to compare with.

    Args:
        votes: (n, k) teachers' votes for k classes.
        sigma: standard deviation of the noise on each count.
        delta: δ, in (0, 1).

    Returns:
        (n,).

    Raises:
        ConfigurationError: sigma is not positive or delta not in (0, 1).
        ValueError: not (n, k >= 2) finite counts from 0 up.
    """
    parts = [converted(renyi(part, sigma=sigma), delta=delta) for part in _parts(_checked(votes))]
    return np.concatenate(parts) if parts else np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Leakage:
    """What one account's answers told; a value that grows by `after` and pools by `merge`.

    Attributes:
        sigma: standard deviation of the noise on each count.
        queries: votes that were added.
        loss: (396,) Rényi loss of all of them together, at the orders of `ORDERS`; copied, and
            read-only.
    """

    sigma: float
    queries: int = 0
    loss: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(ORDERS)))

    def __post_init__(self) -> None:
        """Refuse what is no state.

        Raises:
            ConfigurationError: sigma is not positive.
            GuardError: not 396 finite losses from 0 up, a negative count, or losses of no query.
        """
        _check_sigma(self.sigma)
        loss = np.array(self.loss, np.float64)
        whole = loss.shape == ORDERS.shape and self.queries >= 0
        if not whole or not np.isfinite(loss).all() or (loss < 0).any():
            raise GuardError(
                f"expected {len(ORDERS)} finite losses from 0 up and a count of queries, got "
                f"{loss.shape} and {self.queries}; the state is damaged"
            )
        # It would read as nothing spent.
        if not self.queries and loss.any():
            raise GuardError("expected no loss of 0 queries, got some; the state is damaged")
        loss.setflags(write=False)
        object.__setattr__(self, "loss", loss)

    def after(self, votes: ArrayLike) -> Leakage:
        """Return the state after more queries.

        Args:
            votes: (n, k) teachers' votes for k classes.

        Raises:
            ValueError: not (n, k >= 2) finite counts from 0 up.
        """
        counts = _checked(votes)
        added = sum(
            (renyi(part, sigma=self.sigma).sum(axis=0) for part in _parts(counts)),
            start=np.zeros(len(ORDERS)),
        )
        return Leakage(self.sigma, self.queries + len(counts), self.loss + added)

    def spent(self, delta: float) -> float:
        """Return ε of everything so far; 0 before the first query.

        Raises:
            ConfigurationError: delta is not in (0, 1).
        """
        found = float(converted(self.loss, delta=delta))
        return found if self.queries else 0.0

    def walk(self, votes: ArrayLike, *, delta: float) -> NDArray[np.float64]:
        """Return (n,) what will have been spent after each of n more queries.

        Args:
            votes: (n, k) teachers' votes for k classes.
            delta: δ, in (0, 1).

        Raises:
            ConfigurationError: delta is not in (0, 1).
            ValueError: not (n, k >= 2) finite counts from 0 up.
        """
        loss, found = self.loss, []
        for part in _parts(_checked(votes)):
            sums = loss + np.cumsum(renyi(part, sigma=self.sigma), axis=0)
            found.append(converted(sums, delta=delta))
            loss = sums[-1]
        return np.concatenate(found) if found else np.zeros(0)

    def merge(self, other: Leakage) -> Leakage:
        """Return what two accounts of one pool were told together: the sum.

        Raises:
            GuardError: they were measured with different noise.
        """
        if other.sigma != self.sigma:
            raise GuardError(f"expected a loss at sigma {self.sigma}, got one at {other.sigma}")
        return Leakage(self.sigma, self.queries + other.queries, self.loss + other.loss)

    def to_bytes(self) -> bytes:
        """Return 3,188 bytes for `from_bytes`."""
        return _HEAD.pack(_MAGIC, self.sigma, self.queries) + self.loss.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, state: bytes) -> Leakage:
        """Return the state that `to_bytes` wrote.

        Raises:
            GuardError: truncated, damaged or of another kind.
        """
        if len(state) != _SIZE or state[: len(_MAGIC)] != _MAGIC:
            raise GuardError(
                f"expected {_SIZE} bytes of a leakage state, got {len(state)}; was it written by "
                "another version?"
            )
        _, sigma, queries = _HEAD.unpack_from(state)
        loss = np.frombuffer(state, "<f8", offset=_HEAD.size).astype(np.float64)
        try:
            return cls(sigma, queries, loss)
        except ConfigurationError as error:
            raise GuardError(f"the leakage state is damaged: {error}") from error


def neighbor_votes(
    references: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    neighbors: int,
    classes: int,
) -> NDArray[np.int64]:
    """Return votes without teachers: each query's nearest training points vote with true labels.

    The variant of private kNN (Zhu et al., CVPR 2020) that the reference uses with σ = 28.

    Args:
        references: (n, d) features of training points.
        labels: (n,) their classes, from 0 up.
        queries: (m, d) features of the inputs asked.
        neighbors: that vote on each query, by Euclidean distance.
        classes: k.

    Returns:
        (m, k) votes, each row summing to `neighbors`.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, labels outside the
            classes, or more neighbors than points.
    """
    fits = references.ndim == queries.ndim == 2 and references.shape[1] == queries.shape[1]
    if not fits or labels.shape != references.shape[:1]:
        raise ValueError(
            "expected (n, d) references, (n,) labels and (m, d) queries, got "
            f"{references.shape}, {labels.shape}, {queries.shape}"
        )
    if not (np.isfinite(references).all() and np.isfinite(queries).all()):
        raise ValueError("expected finite features, got NaN or infinity")
    if not 1 <= neighbors <= len(references):
        raise ValueError(f"expected 1 to {len(references)} neighbors, got {neighbors}")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    votes = np.zeros((len(queries), classes), np.int64)
    # |r|² - 2 q·r cancels where features share an offset; centered in double precision, little.
    middle = references.mean(axis=0, dtype=np.float64)
    points = references - middle
    lengths = (points * points).sum(axis=1)
    for start in range(0, len(queries), _ROWS // 8):
        part = queries[start : start + _ROWS // 8] - middle
        near = np.argpartition(lengths - 2 * part @ points.T, neighbors - 1, axis=1)
        rows = np.arange(start, start + len(part))[:, np.newaxis]
        np.add.at(votes, (rows, labels[near[:, :neighbors]]), 1)
    return votes


def _log_tail(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log Pr[N(0, 1) > z] for z from 0 up, precise however far out."""
    near = np.log(0.5 * _erfc(np.minimum(z, _FAR) / math.sqrt(2)))
    far = np.maximum(z, _FAR)
    square = far * far
    series = np.log1p(-1 / square + 3 / square**2 - 15 / square**3)
    tail = -0.5 * square - np.log(far * math.sqrt(2 * math.pi)) + series
    return np.where(z < _FAR, near, tail)


def _parts(counts: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(counts), _ROWS):
        yield counts[start : start + _ROWS]


def _checked(votes: ArrayLike) -> NDArray[np.float64]:
    """Return votes as float64.

    Raises:
        ValueError: not (n, k >= 2) finite counts from 0 up.
    """
    counts = np.asarray(votes, np.float64)
    if counts.ndim != 2 or counts.shape[1] < 2 or not np.isfinite(counts).all():
        raise ValueError(f"expected (n, k) finite votes for k >= 2 classes, got {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"expected counts of votes from 0 up, got {counts.min()}")
    return counts


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < math.inf:
        raise ConfigurationError(f"expected a positive finite sigma, got {sigma}")
