"""The knee leaves a stated share of honest accounts unpaid, and travels with the calibration."""

from dataclasses import replace

import numpy as np
import pytest

from tollkeeper.errors import CalibrationError
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.guard.knee import MARGIN, Customer, choose, follow
from tollkeeper.guard.price import Geometric

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((40, 64))
SAMPLE = (CENTERS[RNG.integers(0, 40, 800)] + 0.4 * RNG.standard_normal((800, 64))).astype(
    np.float32
)
CALIBRATION = Calibration.fit(SAMPLE, rng=RNG)


def customers(*ends: float) -> list[Customer]:
    """Return accounts that end at these signals, rising evenly."""
    return [Customer(f"c{number}", np.linspace(0, end, 11)) for number, end in enumerate(ends)]


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, 0.9), (0.19, 0.9), (0.2, 0.5), (0.5, 0.4), (0.99, 0.1)]
)
def test_the_knee_is_the_smallest_that_keeps_the_rate(rate: float, expected: float) -> None:
    """At most the stated share ends above it, and one step lower would break that."""
    found = customers(0.3, 0.9, 0.1, 0.5, 0.4)
    knee = choose(found, false_penalty=rate)
    assert knee == pytest.approx(expected + MARGIN)
    assert np.mean([customer.end > knee for customer in found]) <= rate


def test_free_inputs_are_those_up_to_the_knee() -> None:
    """A signal at the knee costs nothing; the next one above does."""
    (customer,) = customers(1.0)
    assert customer.free(0.5) == 6
    assert customer.free(0.49) == 5
    assert customer.free(1.0) == 11


def test_accounts_are_followed_under_several_secrets() -> None:
    """The curve is what any guard reads at most: no single secret is above it everywhere."""
    rows = SAMPLE[:200]
    (found,) = follow(profiles.RECOMMENDED, CALIBRATION, [("one", rows)], rng=RNG)
    guard = Guard(profiles.RECOMMENDED, CALIBRATION, secret=bytes(32))
    single = guard.signal(guard.empty(), rows)
    assert len(found.curve) == 200
    assert np.all(np.diff(found.curve) >= 0)
    assert abs(found.end - single[-1]) < 0.15


def test_a_guard_uses_the_knee_of_its_calibration() -> None:
    """Prices, fingerprint and ceiling follow it; profiles without levels do not care."""
    lower = replace(CALIBRATION, knee=0.25)
    plain, moved = (
        Guard(profiles.RECOMMENDED, one, secret=bytes(32)) for one in (CALIBRATION, lower)
    )
    assert plain.profile.price.free_until == 0.84
    assert moved.profile.price.free_until == 0.25
    assert plain.fingerprint != moved.fingerprint
    rng = np.random.default_rng(1)
    verdicts = [
        guard.admit(guard.empty(), SAMPLE[:300], key=bytes(32), rng=rng) for guard in (plain, moved)
    ]
    assert not verdicts[0].noise_scale.any()
    assert verdicts[1].noise_scale.any()
    assert profiles.B4B_2023.with_knee(0.3) is profiles.B4B_2023


def test_a_high_knee_lifts_the_ceiling() -> None:
    """It moves to where the last level ends, and no further than all of the space."""
    moved = profiles.RECOMMENDED.with_knee(0.9)
    assert isinstance(moved.price, Geometric)
    assert moved.ceiling == 1.0
    assert profiles.RECOMMENDED.with_knee(0.3).ceiling == profiles.RECOMMENDED.ceiling


def test_a_calibration_keeps_its_knee() -> None:
    """Bytes and arrays carry it; a calibration without one is written as ever."""
    moved = replace(CALIBRATION, knee=0.625)
    assert Calibration.from_bytes(moved.to_bytes()).knee == 0.625
    assert Calibration.from_bytes(CALIBRATION.to_bytes()).knee is None
    assert CALIBRATION.to_bytes()[:8] == b"TKCALIB1"
    for smallest in (Calibration.identity(1), replace(Calibration.identity(1), knee=0.5)):
        assert Calibration.from_bytes(smallest.to_bytes()).knee == smallest.knee
    arrays = {
        "mean": moved.mean,
        "feature_std": moved.feature_std,
        "sample": moved.sample,
        "count": 800,
    }
    assert Calibration.from_arrays(arrays).knee is None
    assert Calibration.from_arrays({**arrays, "knee": 0.5}).knee == 0.5
    with pytest.raises(CalibrationError, match="knee in"):
        replace(CALIBRATION, knee=1.5)
    with pytest.raises(CalibrationError, match="expected a calibration of"):
        Calibration.from_bytes(moved.to_bytes()[:-1])


def test_what_cannot_be_chosen_is_refused() -> None:
    """No account, no inputs, an impossible rate, a profile without a signal."""
    for found, rate in (([], 0.1), (customers(0.5), 1.0), (customers(0.5), -0.1)):
        with pytest.raises(CalibrationError, match="false-penalty rate"):
            choose(found, false_penalty=rate)
    with pytest.raises(CalibrationError, match="inputs of shop, got none"):
        follow(profiles.RECOMMENDED, CALIBRATION, [("shop", SAMPLE[:0])], rng=RNG)
    with pytest.raises(CalibrationError, match="measures nothing"):
        follow(profiles.NONE, CALIBRATION, [("shop", SAMPLE)], rng=RNG)
