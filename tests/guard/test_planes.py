"""Hyperplanes are secret, split the sample, and structured ones hash as Gaussian ones do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.planes import Gaussian, GaussianPlanes, PlaneFamily, Rotated, RotatedPlanes
from tollkeeper.types import Embeddings

KEY = bytes(range(32))
FAMILIES = [Gaussian(), Rotated()]


def rows(n: int, dim: int, seed: int = 0) -> Embeddings:
    """Return (n, dim) standard normal rows."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def test_gaussian_planes_are_secret_and_standard_normal() -> None:
    """Another key gives other planes; their entries have mean 0 and variance 1."""
    identity = Calibration.identity(100)
    one = Gaussian().draw(bytes(32), identity, 240, centered=False).matrix
    other = Gaussian().draw(KEY, identity, 240, centered=False).matrix
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    assert abs(one.mean()) < 0.03
    assert abs(one.var() - 1) < 0.03


@pytest.mark.parametrize("dim", [256, 257, 384, 768, 1000, 1536])
def test_rotated_planes_are_a_slow_oracle(dim: int) -> None:
    """The fast projection equals H P H D written as plain loops over groups."""
    planes = Rotated().draw(KEY, Calibration.identity(dim), 240, centered=False)
    assert isinstance(planes, RotatedPlanes)
    x = rows(3, dim)
    width = -(-dim // 16) * 16
    hadamard = np.array([[(-1) ** (i & j).bit_count() for j in range(16)] for i in range(16)]) / 4
    expected = []
    for row in x.astype(np.float64):
        padded = np.zeros(width)
        padded[:dim] = row
        padded *= planes.signs
        mixed = np.concatenate([padded[i : i + 16] @ hadamard for i in range(0, width, 16)])
        chosen = mixed[planes.order]
        expected.append(np.concatenate([chosen[i : i + 16] @ hadamard for i in range(0, 240, 16)]))
    np.testing.assert_allclose(planes.project(x), expected, atol=1e-4)


@pytest.mark.parametrize("dim", [257, 384, 1536])
def test_rotated_normals_are_orthogonal_and_secret(dim: int) -> None:
    """The normals of distinct planes are orthogonal, of one length, and unrelated under another key."""
    eye = np.eye(dim, dtype=np.float32)
    identity = Calibration.identity(dim)
    one, other = (Rotated().draw(k, identity, 240, centered=False) for k in (bytes(32), KEY))
    assert isinstance(one, RotatedPlanes)
    assert isinstance(other, RotatedPlanes)
    mine, theirs = one.project(eye), other.project(eye)
    gram = mine.T @ mine
    if dim % 16 == 0:
        np.testing.assert_allclose(gram, np.eye(240), atol=1e-5)
    assert np.abs(mine.T @ theirs).max() < 0.6
    assert not np.array_equal(one.order, other.order)


@pytest.mark.parametrize("dim", [256, 257, 384, 768, 1000, 1536, 4096])
@pytest.mark.parametrize("count", [24, 240])
def test_normals_have_256_entries_of_equal_size(dim: int, count: int) -> None:
    """Each entry is 0 or 1/16 in size, 256 are not 0; only in padded groups some are lost."""
    planes = Rotated().draw(KEY, Calibration.identity(dim), count, centered=False)
    assert isinstance(planes, RotatedPlanes)
    sizes = np.abs(planes.project(np.eye(dim, dtype=np.float32)))
    assert sizes.shape == (dim, count)
    assert set(np.unique(sizes)) <= {0, np.float32(1 / 16)}
    pads = -dim % 16
    assert set((sizes > 0).sum(axis=0)) <= {256, 256 - pads}


@pytest.mark.parametrize("dim", [256, 257, 384, 768, 1000, 1536, 3840, 4096])
@pytest.mark.parametrize("count", [24, 240])
def test_coordinates_are_used_evenly(dim: int, count: int) -> None:
    """No coordinate goes on twice, no second group meets a first one twice, all serve alike."""
    planes = Rotated().draw(KEY, Calibration.identity(dim), count, centered=False)
    assert isinstance(planes, RotatedPlanes)
    assert len(set(planes.order)) == len(planes.order) == -(-count // 16) * 16
    sources = planes.order // 16
    assert all(len(set(group)) == 16 for group in sources.reshape(-1, 16))
    uses = np.bincount(sources, minlength=-(-dim // 16))
    assert uses.max() - uses.min() <= 1
    seen = np.abs(planes.project(np.eye(dim, dtype=np.float32))).any(axis=1)
    # 240 planes have room for 240 first groups, 24 planes for 32.
    assert seen.all() == (len(uses) <= len(planes.order))


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 33, 255, 256, 700])
@pytest.mark.parametrize("dim", [256, 384, 1000, 1536])
def test_sides_do_not_depend_on_the_batch(dim: int, n: int) -> None:
    """A row's projections are the same bytes whatever batch it comes in."""
    planes = Rotated().draw(KEY, Calibration.identity(dim), 240, centered=False)
    assert isinstance(planes, RotatedPlanes)
    x = rows(700, dim)
    whole = planes.project(x)
    np.testing.assert_array_equal(planes.project(x[:n]), whole[:n])
    np.testing.assert_array_equal(planes(x[-n:]), whole[-n:] > planes.thresholds)


@pytest.mark.parametrize("dim", [384, 768])
def test_collisions_follow_the_angle(dim: int) -> None:
    """Two vectors at angle t differ in t/pi of their bits, as with Gaussian planes."""
    rng = np.random.default_rng(0)
    families = (Rotated(), Gaussian())
    identity = Calibration.identity(dim)
    draws = [
        [family.draw(bytes([i]) * 32, identity, 240, centered=False) for i in range(12)]
        for family in families
    ]
    for angle in (0.1, 0.4, 0.8, 1.2):
        one = rng.standard_normal((60, dim))
        one /= np.linalg.norm(one, axis=1, keepdims=True)
        aside = rng.standard_normal((60, dim))
        aside -= (aside * one).sum(axis=1, keepdims=True) * one
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        other = (math.cos(angle) * one + math.sin(angle) * aside).astype(np.float32)
        for drawn in draws:
            differ = [np.mean(p(one.astype(np.float32)) != p(other)) for p in drawn]
            assert np.mean(differ) == pytest.approx(angle / math.pi, rel=0.06)


@pytest.mark.parametrize("family", FAMILIES)
def test_centered_planes_halve_the_sample(family: PlaneFamily) -> None:
    """With a calibration, half of its sample lies above each plane, however off-center it is."""
    sample = np.abs(rows(400, 384)) + np.float32(1)
    calibration = Calibration.fit(sample, rng=np.random.default_rng(0), keep=400)
    above = family.draw(KEY, calibration, 240, centered=True)(calibration.sample)
    np.testing.assert_allclose(above.mean(axis=0), 0.5, atol=0.01)


def test_small_widths_fall_back_to_gaussian_planes() -> None:
    """Below 256 dimensions there is too little to choose from."""
    drawn = Rotated().draw(KEY, Calibration.identity(255), 240, centered=False)
    assert isinstance(drawn, GaussianPlanes)
