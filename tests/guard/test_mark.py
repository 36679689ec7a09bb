"""Marks: a tenant's own, alike for repeats, harmless to neighbors, bent, and off by default."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest

from tollkeeper.bench.theft.scoring import recall_at_10
from tollkeeper.errors import GuardError
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.guard.mark import Mark, Marker
from tollkeeper.guard.terms import Terms
from tollkeeper.guard.transform import Unchanged
from tollkeeper.types import Embeddings

DIM = 48
SECRET = b"secret of the tests' deployment"
SPREAD = np.geomspace(3, 0.05, DIM)


def inputs(seed: int, n: int) -> Embeddings:
    """Return (n, 48) embeddings whose directions differ by a factor of sixty."""
    rng = np.random.default_rng(seed)
    return (0.3 + rng.standard_normal((n, DIM)) * SPREAD).astype(np.float32)


CALIBRATION = Calibration.fit(inputs(0, 400), rng=np.random.default_rng(0))
GUARD = Guard(profiles.CHEAPEST, CALIBRATION, secret=SECRET)
KEY, OTHER = GUARD.tenant_key("acme"), GUARD.tenant_key("other")
MARKED = Terms(marked=True)
ROWS = inputs(1, 60)


def admit(guard: Guard, rows: Embeddings, share: int = 0, **options: Any) -> Embeddings:
    """Return what is answered to a new or to a full pool."""
    sketch = np.full(guard.sketch_bytes, 255 * share, np.uint8)
    rng = np.random.default_rng(0)
    return guard.admit(sketch, rows, rng=rng, **{"key": KEY, **options}).embeddings


def displaced(key: bytes = KEY, rows: Embeddings = ROWS) -> Embeddings:
    """Return a tenant's displacements."""
    return GUARD.marker(rows, key=key)


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("dimensions", [None, 20])
def test_marked_repeats_are_the_same_bytes(share: int, dimensions: int | None) -> None:
    """Alone, among others or on another replica, below and above the knee."""
    options: dict[str, Any] = {"terms": MARKED, "dimensions": dimensions}
    whole = admit(GUARD, ROWS, share, **options)
    replica = Guard(profiles.CHEAPEST, CALIBRATION, secret=SECRET)
    for i in (0, 31, 59):
        # Each alone is at a full pool too, for the price level names the noise.
        alone = admit(replica, ROWS[i : i + 1], share, **options)
        if share:
            assert alone.tobytes() == whole[i].tobytes()
        again = replica.view(ROWS[i : i + 1], key=KEY, dimensions=dimensions, marked=True)
        everyone = GUARD.view(ROWS, key=KEY, dimensions=dimensions, marked=True)
        assert again.tobytes() == everyone[i].tobytes()


def test_nothing_changes_for_tenants_without_a_mark() -> None:
    """Unmarked answers below and above the knee are those of the guard before there were marks."""
    assert not Terms().marked
    digest = hashlib.sha256(admit(GUARD, ROWS, 1).tobytes()).hexdigest()[:16]
    plain = Guard(
        dataclasses.replace(profiles.CHEAPEST, mark=Mark(folds=8, exchanged=0.01)),
        CALIBRATION,
        secret=SECRET,
    )
    assert hashlib.sha256(admit(plain, ROWS, 1).tobytes()).hexdigest()[:16] == digest
    assert plain.fingerprint == GUARD.fingerprint
    assert plain.version == GUARD.version


def test_a_mark_is_the_tenants_own() -> None:
    """Displacements of two tenants are hardly alike, and those of one tenant are its own again."""
    one, other = displaced(), displaced(OTHER)
    assert np.array_equal(one, displaced())
    cosine = np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    assert abs(cosine) < 0.5
    rotated = dataclasses.replace(profiles.CHEAPEST, version=2)
    assert not np.allclose(one, Guard(rotated, CALIBRATION, secret=SECRET).marker(ROWS, key=KEY))


def test_neighbors_stay() -> None:
    """Fresh inputs keep 999 of 1,000 neighbors, and their norms."""
    rows = inputs(2, 1000)
    answers = GUARD.view(rows, key=KEY, marked=True)
    assert recall_at_10(rows, answers) >= 0.999
    np.testing.assert_allclose(
        np.linalg.norm(answers, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-5
    )


def test_a_mark_is_bent() -> None:
    """No affine map of the clean embeddings explains a quarter of it."""
    rows = inputs(3, 1500)
    moved = displaced(rows=rows)
    basis = np.c_[np.ones(len(rows)), rows]
    left = moved - basis @ np.linalg.lstsq(basis, moved, rcond=None)[0]
    assert np.square(left).sum() > 0.25 * np.square(moved - moved.mean(axis=0)).sum()


def test_most_of_a_mark_is_where_embeddings_differ_little() -> None:
    """The direction of least variance carries more of it than that of most, relative to either."""
    relative = displaced(rows=inputs(4, 1500)).std(axis=0) / SPREAD
    assert relative[-1] > 5 * relative[0]
    assert relative.max() <= Mark().most * 1.5


def test_a_share_of_noise_is_the_tenants_own() -> None:
    """Above the knee tenants' answers differ by marks of a quarter of the noise's variance."""
    unmoved = Guard(
        dataclasses.replace(profiles.CHEAPEST, transform=Unchanged()), CALIBRATION, secret=SECRET
    )
    rows = inputs(5, 800)
    plain = admit(unmoved, rows, 1) - rows
    one, other = (admit(unmoved, rows, 1, key=key, terms=MARKED) - rows for key in (KEY, OTHER))
    noise = np.square(plain).mean()
    # Norms are put back, which takes the radial part of noise and mark away.
    assert np.square(one).mean() == pytest.approx(noise, rel=0.25)
    assert np.square(one - other).mean() > 0.2 * noise


def test_paid_marks_scale_with_the_noise() -> None:
    """A displacement at noise of 1 has a quarter of its variance; none is paid without noise."""
    rows, marker = inputs(6, 800), GUARD.marker
    free = marker(rows, key=KEY)
    for scale in (0.5, 1.0):
        paid = marker(rows, key=KEY, noise=np.full(len(rows), scale)) - free
        size = np.sqrt(np.square(paid).mean()) / CALIBRATION.feature_std
        assert size == pytest.approx(0.5 * scale, rel=0.4)
    assert np.array_equal(marker(rows, key=KEY, noise=np.zeros(len(rows))), free)


@pytest.mark.parametrize(
    ("dim", "count"), [(15, 400), (DIM, 0)], ids=["narrow", "without a sample"]
)
def test_what_cannot_be_marked_is_refused(dim: int, count: int) -> None:
    """Too narrow embeddings or no sample are refused with what to do, and cost nothing."""
    calibration = (
        Calibration.fit(inputs(0, count)[:, :dim], rng=np.random.default_rng(0))
        if count
        else Calibration.identity(dim)
    )
    guard = Guard(profiles.NONE, calibration, secret=SECRET)
    with pytest.raises(GuardError, match="to mark tenants, got"):
        admit(guard, ROWS[:, :dim].copy(), terms=MARKED)
    admit(guard, ROWS[:, :dim].copy())


def test_sizes_do_not_hang_on_the_last_bit() -> None:
    """Calibrations that differ by rounding get directions that differ by rounding."""
    nudged = dataclasses.replace(CALIBRATION, sample=CALIBRATION.sample * np.float32(1 + 1e-6))
    one, other = (
        Mark().of(calibration, SECRET, "a/1").directions for calibration in (CALIBRATION, nudged)
    )
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-7)


def test_zeros_stay_zeros() -> None:
    """Embeddings of zeros have no norm to keep, and stay zeros."""
    marker: Marker = Mark().of(CALIBRATION, SECRET, "a/1")
    zeros = np.zeros((2, DIM), np.float32)
    assert not marker.apply(zeros, zeros, key=KEY).any()
