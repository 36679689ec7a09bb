"""Exact nulls: a planted key is one of many that one committed seed could have given."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError

DECOYS = 9999
"""Default number of decoys: the smallest p-value is then 1 in 10,000."""

FEWEST_DECOYS = 99
"""Below, no p-value can reach 1%."""

PATIENCE = 100
"""Decoys at least as large as the planted key after which `decoy_test` has seen enough."""

SEED_BYTES = 16
"""A shorter secret could be guessed, and a guessed key be planted by anyone."""


class Draws:
    """Numbers of one key, the same on every machine and with every version of numpy.

    Only the raw words of PCG64 are used, whose stream numpy promises never to change; it does not
    promise so for the distributions of `numpy.random.Generator`.
    """

    def __init__(self, seed: int) -> None:
        """Start at the beginning of the stream of `seed`."""
        self._words = np.random.PCG64(seed)

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return (count,) uniform 64-bit words."""
        return np.asarray(self._words.random_raw(count), np.uint64)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Return numbers of [0, 1) in this shape, multiples of 2^-53."""
        count = int(np.prod(shape, dtype=np.int64))
        # Not a shift by a plain integer, which older versions of numpy turn into a float.
        whole = (self.words(count) >> np.uint64(11)).astype(np.float64)
        return whole.reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> NDArray[np.float64]:
        """Return standard normal numbers in this shape (Box and Muller 1958).

        They are rounded to multiples of 2^-24, so that the last digit of a machine's logarithm
        does not show.
        """
        first, second = self.uniform(2, *shape)
        drawn = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
        return np.asarray(np.round(drawn * 2**24) * 2.0**-24)

    def choose(self, population: int, count: int) -> NDArray[np.intp]:
        """Return `count` different positions below `population`, in random order.

        Raises:
            ConfigurationError: there are not so many.
        """
        if not 0 <= count <= population:
            raise ConfigurationError(f"expected at most {population} to choose, got {count}")
        return np.argsort(self.words(population), kind="stable")[:count]


@dataclass(frozen=True, slots=True)
class KeyStream:
    """The keys of a committed seed: number 0 is planted, all others are decoys.

    A suspect that never met the marked encoder or its answers cannot tell number 0 from the
    others, so that the statistic of number 0 is exchangeable with theirs, whatever the suspect is
    and on whatever inputs. This needs the seed to be committed before the suspect existed:
    otherwise the accuser tries seeds until one fits.

    Attributes:
        seed: secret, at least 16 bytes.
        label: what the keys are for; another label gives other keys.
    """

    seed: bytes
    label: str

    def __post_init__(self) -> None:
        """Refuse a seed that can be guessed.

        Raises:
            ConfigurationError: the seed is too short.
        """
        if len(self.seed) < SEED_BYTES:
            raise ConfigurationError(
                f"expected a secret seed of at least {SEED_BYTES} bytes, got {len(self.seed)}; "
                "take secrets.token_bytes(32)"
            )

    @classmethod
    def opened(cls, seed: bytes, label: str, *, commitment: str) -> KeyStream:
        """Return the keys of a seed that is the committed one.

        Args:
            seed: as the accuser reveals it.
            label: what the keys are for.
            commitment: what `commitment_of` gave when it was published.

        Raises:
            EvidenceError: another seed was committed.
        """
        if not hmac.compare_digest(commitment_of(seed), commitment):
            raise EvidenceError(
                f"the seed of {label!r} is not the committed one: expected digest {commitment}, "
                f"got {commitment_of(seed)}; only keys of the committed seed count"
            )
        return cls(seed, label)

    def draws(self, index: int) -> Draws:
        """Return the numbers of key `index`, by HMAC-SHA256 of label and index under the seed."""
        message = f"{self.label}\0{index}".encode()
        return Draws(int.from_bytes(hmac.digest(self.seed, message, "sha256"), "big"))

    def planted(self) -> Draws:
        """Return the numbers of the key that is planted."""
        return self.draws(0)

    def decoys(self, count: int) -> Iterator[Draws]:
        """Yield the numbers of `count` keys that were never planted."""
        return (self.draws(index) for index in range(1, count + 1))


def commitment_of(seed: bytes) -> str:
    """Return the SHA-256 of a seed in hex: what is published before the suspect exists.

    A seed is secret and random, so that its digest needs no salt.
    """
    return hashlib.sha256(b"tollkeeper key seed\0" + seed).hexdigest()


def mixed(seed: bytes, beacon: bytes) -> bytes:
    """Return a seed that the owner could not choose: theirs, and a beacon issued after it.

    Args:
        seed: committed before the beacon was issued.
        beacon: public value that nobody could foresee, for example of a randomness beacon.

    Returns:
        32 bytes.
    """
    return hmac.digest(seed, b"tollkeeper beacon\0" + beacon, "sha256")


@dataclass(frozen=True, slots=True)
class Commitment:
    """What was published of a key, and when.

    Attributes:
        digest: `commitment_of` the seed of a drawn key, or the digest of a learned one.
        committed_at: UTC seconds of its time stamp.
        suspect_seen_at: UTC seconds of the suspect's first known appearance.
    """

    digest: str
    committed_at: float
    suspect_seen_at: float

    def check(self) -> None:
        """Refuse a key that may have been chosen to fit the suspect.

        Raises:
            EvidenceError: the commitment is not older than the suspect.
        """
        require_earlier(self.committed_at, self.suspect_seen_at)


def require_earlier(committed_at: float, suspect_seen_at: float) -> None:
    """Refuse a key that may have been chosen to fit the suspect.

    Args:
        committed_at: UTC seconds of the commitment's time stamp.
        suspect_seen_at: UTC seconds of the suspect's first known appearance.

    Raises:
        EvidenceError: the commitment is not older.
    """
    if not committed_at < suspect_seen_at:
        raise EvidenceError(
            f"the key was committed at {committed_at:.0f}, not before the suspect was first seen "
            f"at {suspect_seen_at:.0f} (UTC seconds): it may have been made to fit the suspect"
        )


def decoy_p(true: float, decoys: ArrayLike) -> float:
    """Return (1 + #{decoys >= true}) / (1 + B), exact if all B + 1 are exchangeable.

    Args:
        true: statistic of the planted key, larger is more like a copy.
        decoys: (B,) of decoys, on the same inputs and answers. Ties count against the accuser.

    Returns:
        In (0, 1], uniform or above under the null.

    Raises:
        AuditRefused: too few decoys to reach 1%, or a statistic is not finite.
    """
    values = np.asarray(decoys, np.float64).ravel()
    _require_enough(values.size)
    _require_finite(true, values)
    return float((1 + np.count_nonzero(values >= true)) / (1 + values.size))


def decoy_test(
    true: float,
    statistic: Callable[[Draws], float],
    stream: KeyStream,
    *,
    count: int = DECOYS,
    patience: int = PATIENCE,
) -> tuple[float, NDArray[np.float64]]:
    """Return the exact p-value of a planted key, and the statistics of the decoys looked at.

    An honest suspect is soon seen to be one: after `patience` decoys at least as large as the
    planted key, p = patience / decoys so far, which is exact too.

    Source: Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika 1991, section 2.

    Args:
        true: statistic of the planted key, larger is more like a copy.
        statistic: of a decoy, from its numbers, on the same inputs and answers.
        stream: the keys.
        count: most decoys.
        patience: at least 1.

    Raises:
        AuditRefused: too few decoys to reach 1%, or a statistic is not finite.
    """
    _require_enough(count)
    values, larger = [], 0
    for draws in stream.decoys(count):
        values.append(statistic(draws))
        larger += values[-1] >= true
        if larger == patience:
            break
    found = np.array(values)
    _require_finite(true, found)
    if larger == patience:
        return patience / len(found), found
    return float((1 + larger) / (1 + count)), found


def direction_p(found: ArrayLike, key: ArrayLike) -> float:
    """Return the chance that a random direction is as close to `found` as the planted `key` is.

    The limit of infinitely many decoys, for a key of independent normal numbers and a statistic
    that rises with cos(found, key): the cosine c of two directions in k dimensions, one of them
    uniform, has t = c sqrt((k - 1) / (1 - c^2)) of Student's distribution with k - 1 degrees.

    Args:
        found: (k,) computed without knowing the key.
        key: (k,) of the planted key.

    Raises:
        AuditRefused: nothing was found, or it is not finite.
    """
    a, b = np.asarray(found, np.float64), np.asarray(key, np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not (np.isfinite(length) and length > 0):
        raise AuditRefused("the direction to compare with the key is zero, NaN or infinite")
    cosine = float(np.clip(a @ b / length, -1, 1))
    # Rounding leaves no more of 1 - c^2 than this.
    spread = max(1 - cosine**2, 1e-15)
    return max(float(special.stdtr(a.size - 1, -cosine * np.sqrt((a.size - 1) / spread))), 1e-300)


def _require_enough(count: int) -> None:
    if count < FEWEST_DECOYS:
        raise AuditRefused(
            f"expected at least {FEWEST_DECOYS} decoys, got {count}; fewer reach no 1%"
        )


def _require_finite(true: float, values: NDArray[np.float64]) -> None:
    if not (np.isfinite(true) and np.isfinite(values).all()):
        raise AuditRefused("a statistic of the planted key or of a decoy is NaN or infinite")
