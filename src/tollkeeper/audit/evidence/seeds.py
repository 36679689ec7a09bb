"""Secrets that are committed first and shown later: seals, salts, coins and generators.

Everything random in an audit comes from a sealed seed, so nobody can look for a lucky draw, and
the other side can make the same draw once the seed is shown.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.canonical import unhex
from tollkeeper.errors import AuditRefused, EvidenceError

SEED_BYTES = 32


def seal(secret: bytes, *, name: str) -> str:
    """Return the hash that commits to a secret, and does not fit it under another name.

    Args:
        secret: 32 bytes from a random source; fewer could be found by trying.
        name: what it is for, for example `coins`.

    Raises:
        AuditRefused: the secret has another size.
    """
    _sized(secret, name)
    return hashlib.sha256(b"tollkeeper seal\0" + name.encode() + b"\0" + secret).hexdigest()


def unseal(secret: bytes, sealed: str, *, name: str) -> None:
    """Check a secret against its seal.

    Raises:
        EvidenceError: it is not the one that was committed.
    """
    if not hmac.compare_digest(
        unhex(sealed, what=f"the seal of {name}").hex(), seal(secret, name=name)
    ):
        raise EvidenceError(f"the seed of {name} does not match its commitment")


def derive(seed: bytes, label: str) -> bytes:
    """Return 32 bytes for one purpose: HMAC-SHA256 of the label under the seed.

    Raises:
        AuditRefused: the seed has another size than 32 bytes.
    """
    _sized(seed, label)
    return hmac.digest(seed, label.encode(), "sha256")


def generator(seed: bytes, label: str) -> np.random.Generator:
    """Return the random generator of one purpose, the same wherever the seed is known."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(derive(seed, label), "big")))


def salts(secret: bytes, count: int) -> list[bytes]:
    """Return salts for the leaves of a tree; to show some tells nothing of the others.

    Args:
        secret: 32 bytes, never shown. Not the seed of the coins, which is.
        count: how many.
    """
    return [derive(secret, f"salt {index}") for index in range(count)]


def coins(seed: bytes, beacon: str, count: int) -> NDArray[np.bool_]:
    """Toss one fair coin per pair: HMAC-SHA256 under (seed xor SHA-256(beacon)).

    The seed alone was chosen by the owner and the beacon alone is public; neither was free to be
    chosen after the other was known, so nobody can look for a lucky toss (methods, 10.2, 10.6).

    Args:
        seed: 32 secret bytes, sealed before the beacon's value was issued.
        beacon: the public value, as its issuer prints it.
        count: of pairs, m.

    Returns:
        (m,) whether the first item of each pair is the trained one.

    Raises:
        AuditRefused: the seed has another size, or the beacon is empty.
    """
    _sized(seed, "coins")
    if not beacon.strip():
        raise AuditRefused("expected the public value of a beacon, got an empty one")
    issued = hashlib.sha256(beacon.strip().encode()).digest()
    key = bytes(mine ^ theirs for mine, theirs in zip(seed, issued, strict=True))
    return np.array([derive(key, f"coin {pair}")[0] & 1 for pair in range(count)], dtype=np.bool_)


def _sized(secret: bytes, name: str) -> None:
    if len(secret) != SEED_BYTES:
        raise AuditRefused(f"the seed of {name}: expected {SEED_BYTES} bytes, got {len(secret)}")
