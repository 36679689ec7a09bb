"""Exact nulls: a planted key is one of many that one committed seed could have given."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError

DECOYS = 9999
"""Default number of decoys: the smallest p-value is then 1 in 10,000."""

FEWEST_DECOYS = 99
"""Below, no p-value can reach 1%."""

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
    if values.size < FEWEST_DECOYS:
        raise AuditRefused(
            f"expected at least {FEWEST_DECOYS} decoys, got {values.size}; fewer reach no 1%"
        )
    if not (np.isfinite(true) and np.isfinite(values).all()):
        raise AuditRefused("a statistic of the planted key or of a decoy is NaN or infinite")
    return float((1 + np.count_nonzero(values >= true)) / (1 + values.size))
