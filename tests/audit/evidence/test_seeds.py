"""Promises of seeds, salts and coins."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest

from tollkeeper.audit.evidence.seeds import coins, derive, generator, salts, seal, unseal
from tollkeeper.errors import AuditRefused, EvidenceError

SEED = bytes(range(32))


def test_a_seal_fits_one_secret_under_one_name() -> None:
    """Another secret, another name or a changed seal is refused."""
    unseal(SEED, seal(SEED, name="coins"), name="coins")
    for secret, sealed, name in (
        (b"x" * 32, seal(SEED, name="coins"), "coins"),
        (SEED, seal(SEED, name="coins"), "views"),
        (SEED, seal(SEED, name="coins").upper(), "coins"),
        (SEED, "", "coins"),
    ):
        with pytest.raises(EvidenceError):
            unseal(secret, sealed, name=name)


def test_a_short_secret_is_refused() -> None:
    """One that could be found by trying is no seed."""
    for act in (
        lambda: seal(b"7", name="coins"),
        lambda: derive(b"7", "views"),
        lambda: coins(b"7", "beacon", 4),
    ):
        with pytest.raises(AuditRefused, match="expected 32 bytes, got 1"):
            act()


def test_coins_are_what_the_page_says() -> None:
    """HMAC-SHA256 under seed xor SHA-256(beacon): anyone can toss them anew."""
    key = bytes(a ^ b for a, b in zip(SEED, hashlib.sha256(b"round 7").digest(), strict=True))
    expected = [
        bool(hmac.digest(key, f"coin {pair}".encode(), "sha256")[0] & 1) for pair in range(50)
    ]
    assert coins(SEED, "round 7", 50).tolist() == expected
    assert coins(SEED, " round 7\n", 50).tolist() == expected  # Blanks of a copied line.


def test_coins_are_fair_and_neither_side_knows_them_alone() -> None:
    """Half are heads, and another seed or another beacon gives unrelated ones."""
    first = coins(SEED, "a", 4000)
    assert abs(first.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    for other in (coins(SEED, "b", 4000), coins(bytes(32), "a", 4000)):
        assert abs((first == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_an_empty_beacon_is_refused() -> None:
    """Without one the owner alone would choose the coins."""
    with pytest.raises(AuditRefused, match="public value of a beacon"):
        coins(SEED, " \n", 4)


def test_generators_repeat_and_differ_by_label() -> None:
    """The same seed and label draw the same; another label draws something else."""
    first = generator(SEED, "views").normal(size=8)
    assert np.array_equal(first, generator(SEED, "views").normal(size=8))
    assert not np.array_equal(first, generator(SEED, "decoys").normal(size=8))


def test_salts_differ() -> None:
    """Each leaf has its own."""
    made = salts(SEED, 1000)
    assert len(set(made)) == 1000
    assert {len(salt) for salt in made} == {32}
