"""The guarded victim: live, per account, per input, and the same as the gateway's service."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.bench.theft.guarded import GuardedVictim, scaled_b4b
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import ConfigurationError, GuardError, LedgerError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.transform import Unchanged
from tollkeeper.testing.encoders import hash_encoder

ENCODER = hash_encoder(16)
CALIBRATION = Calibration.fit(
    3 * ENCODER.embed([f"sample {i}" for i in range(256)]), rng=np.random.default_rng(0)
)


def victim(profile: Profile = profiles.CHEAPEST, seed: int = 0) -> GuardedVictim:
    """A guarded toy encoder."""
    return GuardedVictim(
        ENCODER,
        profile,
        CALIBRATION,
        secret=bytes(32),
        clock=lambda: 0.0,
        rng=np.random.default_rng(seed),
    )


def texts(start: int, stop: int) -> list[str]:
    """Distinct inputs."""
    return [f"text {i}" for i in range(start, stop)]


def test_charged_input_by_input_like_the_guard_itself() -> None:
    """After every input, coverage and noise are those of `Guard.admit` on one input."""
    guard = Guard(profiles.CHEAPEST, CALIBRATION, secret=bytes(32))
    sketch = guard.empty()
    with victim() as guarded:
        account = guarded.account("thief")
        for text in texts(0, 60):
            verdict = guard.admit(
                sketch,
                ENCODER.embed([text]),
                key=guard.tenant_key("thief"),
                rng=np.random.default_rng(0),
            )
            sketch = verdict.sketch
            account.embed([text])
            assert guarded.coverage("thief") == verdict.coverage
            expected = verdict.noise_scale[0] / CALIBRATION.feature_std
            assert guarded.noise("thief") == pytest.approx(expected)
        assert guarded.noise("thief") > 0


def test_accounts_pay_for_themselves() -> None:
    """One account's crawl costs another nothing, and repeats cost nobody anything."""
    with victim() as guarded:
        thief, honest = guarded.account("thief"), guarded.account("honest")
        thief.embed(texts(0, 200))
        assert guarded.coverage("honest") == guarded.noise("honest") == 0
        honest.embed(texts(0, 3))
        before = guarded.coverage("honest")
        guarded.account("honest").embed(texts(0, 3))
        assert 0 < guarded.coverage("honest") == before < guarded.coverage("thief")


def test_spaces_of_accounts_differ() -> None:
    """Below the knee angles are the clean ones, but two accounts' answers are not comparable."""
    with victim() as guarded:
        one, other = (guarded.account(name).embed(texts(0, 2)) for name in ("a", "b"))
    clean = ENCODER.embed(texts(0, 2))
    for rows in (one, other):
        assert float(rows[0] @ rows[1]) == pytest.approx(float(clean[0] @ clean[1]), abs=1e-3)
    assert not np.allclose(one, other, atol=0.1)


def test_an_account_is_an_encoder_that_can_be_metered() -> None:
    """Attacks ask it through a meter like any victim."""
    with victim() as guarded:
        metered = MeteredEncoder(guarded.account("thief"), budget=5)
        assert metered.embed(texts(0, 5)).shape == (5, 16)
        assert metered.remaining == 0


def test_nothing_answers_after_closing() -> None:
    """Accounts of a closed deployment fail."""
    with victim() as guarded:
        account = guarded.account("thief")
    with pytest.raises(LedgerError, match="closed"):
        account.embed(["a"])


def test_short_secrets_are_refused() -> None:
    """A secret of fewer than 16 bytes is an error at once."""
    with pytest.raises(GuardError):
        GuardedVictim(
            ENCODER,
            profiles.CHEAPEST,
            CALIBRATION,
            secret=b"short",
            clock=lambda: 0.0,
            rng=np.random.default_rng(0),
        )


def test_absolute_noise_is_told_in_feature_std() -> None:
    """For B4B as published, the scale is divided by the encoder's feature deviation."""
    with victim(replace(profiles.B4B_2023, bits=2)) as guarded:
        guarded.account("thief").embed(texts(0, 100))
        price = profiles.B4B_2023.price(np.array([guarded.coverage("thief")]))[0]
        assert price > 1
        assert guarded.noise("thief") == pytest.approx(price / CALIBRATION.feature_std)


def test_scaled_b4b_adds_noise_in_feature_std() -> None:
    """What an account gets is the clean answer plus the price's noise, times the deviation."""
    profile = scaled_b4b(bits=2, projections=8, transform=Unchanged())
    with victim(profile) as guarded:
        account = guarded.account("thief")
        account.embed(texts(0, 300))
        assert guarded.coverage("thief") == 1
        noise = account.embed(texts(0, 300)) - ENCODER.embed(texts(0, 300))
        expected = guarded.noise("thief") * CALIBRATION.feature_std
        assert guarded.noise("thief") == pytest.approx(31.6, rel=0.01)
        assert float(noise.std()) == pytest.approx(expected, rel=0.05)


def test_scaled_b4b_is_b4b_but_for_scale() -> None:
    """Only the hash's middle and size and the unit of noise differ; operators cannot choose it."""
    profile = scaled_b4b()
    same = replace(profile, name="b4b-2023", bits=12, centered=False, in_feature_std=False)
    assert same == profiles.B4B_2023
    assert profile.name not in profiles.NAMES
    assert (profile.bits, profile.tables) == (10, 20)
    with pytest.raises(ConfigurationError, match="bits"):
        scaled_b4b(bits=17)
