"""The sketch reader: what a guard says of a sketch, without the guard's secrets."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.errors import GuardError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.reading import SketchReader


@pytest.mark.parametrize("name", profiles.NAMES)
def test_agrees_with_the_guard(name: str) -> None:
    """Loading, merging, coverage, price and version are those of the guard that wrote."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 16)).astype(np.float32)
    profile = profiles.get(name)
    guard = Guard(profile, Calibration.fit(rows, rng=rng), secret=b"s" * 32)
    reader = SketchReader(profile)
    one, other = (
        guard.admit(guard.empty(), part, key=bytes(32), rng=rng).sketch
        for part in (rows[:40], rows[30:])
    )
    union = reader.merge(reader.load(one.tobytes()), reader.load(other.tobytes()))
    assert union.tobytes() == guard.merge(one, other).tobytes()
    assert reader.fraction(union) == guard.fraction(union)
    assert reader.load(b"").tobytes() == guard.empty().tobytes()
    assert (reader.version, reader.tracks) == (guard.version, guard.tracks)
    for coverage in (0.0, reader.fraction(union), 1.0):
        assert reader.price(coverage) == profile.price(np.array([coverage]))[0]


def test_foreign_bytes_are_refused() -> None:
    """Bytes that are not a sketch of the profile are an error, not a coverage."""
    reader = SketchReader(profiles.get("recommended"))
    with pytest.raises(GuardError, match="expected a sketch of 10272 bytes, got shape"):
        reader.load(bytes(5))
