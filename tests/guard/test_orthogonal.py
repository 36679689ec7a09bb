"""The structured rotation keeps geometry, mixes coordinates and is small."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tollkeeper.guard.orthogonal import Orthogonal
from tollkeeper.types import Embeddings

DIMS = [1, 2, 3, 4, 15, 16, 17, 77, 384, 512, 768, 1000, 1536]
KEY = b"the key of one tenant"


def cosines(rows: Embeddings) -> NDArray[np.float64]:
    """Return the (n, n) cosines in float64."""
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide @ wide.T


@pytest.mark.parametrize("dim", DIMS)
def test_cosines_and_norms_are_kept(dim: int) -> None:
    """Cosines agree to 1e-5 and norms to one part in 1e5, also for spiky embeddings."""
    rng = np.random.default_rng(dim)
    x = rng.standard_normal((60, dim)).astype(np.float32)
    x[:20] += 3
    x[20:40, 0] *= 100
    y = Orthogonal().for_tenant(KEY, dim)(x)
    assert np.abs(cosines(y) - cosines(x)).max() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)


@given(dim=st.integers(1, 70), seed=st.integers(0, 2**32 - 1), exponent=st.integers(-15, 12))
@settings(max_examples=60, deadline=None)
def test_it_is_orthogonal_at_any_width_and_scale(dim: int, seed: int, exponent: int) -> None:
    """The matrix of the map, read off from scaled unit vectors, has orthonormal rows."""
    key = seed.to_bytes(4, "big") * 4
    scale = np.float32(10.0**exponent)
    matrix = Orthogonal().for_tenant(key, dim)(scale * np.eye(dim, dtype=np.float32)) / scale
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5)


@pytest.mark.parametrize("dim", [64, 77, 384, 512, 768, 1000, 1536])
def test_every_coordinate_is_mixed_into_many(dim: int) -> None:
    """From 64 dimensions on, each input reaches 16 outputs, and each output has 16 inputs."""
    matrix = Orthogonal().for_tenant(KEY, dim)(np.eye(dim, dtype=np.float32))
    reached = np.abs(matrix) > 1e-6
    assert reached.sum(axis=1).min() >= 16
    assert reached.sum(axis=0).min() >= 16
    if dim >= 384 and dim % 16 == 0:
        assert reached.sum(axis=1).min() >= 100


def test_tenants_share_no_coordinates() -> None:
    """No output coordinate of one tenant follows one of another tenant closely."""
    x = np.random.default_rng(0).standard_normal((2000, 384)).astype(np.float32)
    one = Orthogonal().for_tenant(KEY, 384)(x)
    other = Orthogonal().for_tenant(b"another tenant's key", 384)(x)
    correlation = np.corrcoef(one.T, other.T)[:384, 384:]
    assert np.abs(correlation).max() < 0.6


@pytest.mark.parametrize("dim", DIMS)
def test_its_memory_is_three_bytes_per_coordinate(dim: int) -> None:
    """With a 10,240-byte sketch a tenant stays under 16 KB at 1,536 dimensions."""
    transform = Orthogonal().for_tenant(KEY, dim)
    assert transform.nbytes == 3 * dim
    assert transform.nbytes + 10_240 <= 16 * 1024


def test_very_wide_embeddings_have_an_order_too() -> None:
    """Beyond 65,536 coordinates the order still holds every index once."""
    order = Orthogonal().for_tenant(KEY, 70_000).order
    assert np.array_equal(np.sort(order), np.arange(70_000))


def test_a_tenants_rotation_never_changes_between_releases() -> None:
    """A pinned digest of answers: changing it would void every tenant's index."""
    x = (np.arange(2 * 77).reshape(2, 77) % 19).astype(np.float32)
    y = Orthogonal().for_tenant(KEY, 77)(x)
    assert hashlib.sha256(y.tobytes()).hexdigest()[:16] == "af2795a22be3456a"
