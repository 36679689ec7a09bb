"""B4B's transforms against slow oracles written from the method spec, section 8.3."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.guard.orthogonal import Orthogonal
from tollkeeper.guard.transform import (
    AffinePadShuffle,
    Binary,
    BinaryMap,
    DenseAffine,
    DenseAffineMap,
    DiagonalAffine,
    DiagonalAffineMap,
    PadShuffle,
    PadShuffleMap,
    TransformFamily,
    Unchanged,
)
from tollkeeper.types import Embeddings

DIM, PADS = 7, 11
KEY = b"the key of one tenant"
FAMILIES = [
    Unchanged(),
    DiagonalAffine(),
    DenseAffine(),
    PadShuffle(PADS),
    AffinePadShuffle(PADS),
    Binary(),
    Orthogonal(),
]


def inputs(n: int, dim: int = DIM) -> Embeddings:
    """Return (n, dim) embeddings between about -1 and 3."""
    rng = np.random.default_rng(n)
    return (1 + rng.standard_normal((n, dim))).astype(np.float32)


def slow_affine(x: list[float], t: DiagonalAffineMap) -> list[float]:
    """Return s_i x_i + t_i."""
    return [float(t.scale[i]) * x[i] + float(t.shift[i]) for i in range(len(x))]


def slow_pad_shuffle(x: list[float], t: PadShuffleMap) -> list[float]:
    """Return P [x ; u]."""
    padded = x + [float(u) for u in t.pad]
    return [padded[i] for i in t.order]


def slow_dense(x: list[float], t: DenseAffineMap) -> list[float]:
    """Return sum_i x_i A_ij + b_j."""
    width = len(x)
    return [
        math.fsum(x[i] * float(t.matrix[i, j]) for i in range(width)) + float(t.shift[j])
        for j in range(width)
    ]


def slow_binary(x: list[float], t: BinaryMap, points: NDArray[np.float64]) -> list[float]:
    """Return 1 where x . w_j > w_j . p_j, else 0."""
    bits = []
    for w, p in zip(t.normals, points, strict=True):
        left = math.fsum(float(a) * b for a, b in zip(w, x, strict=True))
        right = math.fsum(float(a) * float(b) for a, b in zip(w, p, strict=True))
        bits.append(float(left > right))
    return bits


def test_diagonal_affine_agrees_with_the_spec() -> None:
    """Scaling and shifting happen coordinate by coordinate, s and t in (-1, 1)."""
    transform = DiagonalAffine().for_tenant(KEY, DIM)
    x = inputs(5)
    expected = [slow_affine(row, transform) for row in x.tolist()]
    np.testing.assert_allclose(transform(x), expected, rtol=1e-5, atol=1e-6)
    assert max(np.abs(transform.scale).max(), np.abs(transform.shift).max()) < 1
    assert not np.array_equal(transform.scale, transform.shift)


def test_pad_shuffle_agrees_with_the_spec() -> None:
    """The same pads are in every answer, and every coordinate is there once."""
    transform = PadShuffle(PADS).for_tenant(KEY, DIM)
    x = inputs(5)
    expected = [slow_pad_shuffle(row, transform) for row in x.tolist()]
    assert transform(x).tolist() == expected
    assert sorted(transform.order) == list(range(DIM + PADS))
    assert PadShuffle().for_tenant(KEY, 2048).out_dim == 3584


def test_affine_pad_shuffle_agrees_with_the_spec() -> None:
    """The affine part comes first and leaves the pads alone."""
    transform = AffinePadShuffle(PADS).for_tenant(KEY, DIM)
    assert isinstance(transform.first, DiagonalAffineMap)
    assert isinstance(transform.second, PadShuffleMap)
    x = inputs(5)
    expected = [
        slow_pad_shuffle(slow_affine(row, transform.first), transform.second) for row in x.tolist()
    ]
    np.testing.assert_allclose(transform(x), expected, rtol=1e-5, atol=1e-6)


def test_dense_affine_agrees_with_the_spec() -> None:
    """The end-to-end transform is x A + b with entries in (-1, 1)."""
    transform = DenseAffine().for_tenant(KEY, DIM)
    x = inputs(5)
    expected = [slow_dense(row, transform) for row in x.tolist()]
    np.testing.assert_allclose(transform(x), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(transform.matrix).max() < 1
    assert np.abs(transform.shift).max() < 1
    uniform = DenseAffine().for_tenant(KEY, 128).matrix
    assert abs(uniform.mean()) < 0.02
    assert abs(uniform.var() - 1 / 3) < 0.01


def test_binary_agrees_with_the_spec() -> None:
    """2 d bits, from hyperplanes through grid points of the unit cube."""
    transform = Binary().for_tenant(KEY, DIM)
    # One point of each hyperplane, from its offset: p = w (w . p) / (w . w).
    squares = (transform.normals**2).sum(axis=1, keepdims=True)
    points = transform.normals * transform.offsets[:, None] / squares
    x = inputs(50)
    expected = [slow_binary(row, transform, points) for row in x.tolist()]
    assert transform(x).tolist() == expected
    assert transform.out_dim == 2 * DIM
    assert 0.1 < transform(x).mean() < 0.9


def test_binary_hyperplanes_are_drawn_as_published() -> None:
    """Last entries are 1, the others Cauchy; the points lie on a 1,000-level grid."""
    transform = Binary().for_tenant(KEY, 64)
    assert (transform.normals[:, -1] == 1).all()
    # A standard Cauchy number is within (-1, 1) half of the time.
    assert abs((np.abs(transform.normals[:, :-1]) < 1).mean() - 0.5) < 0.03
    narrow = Binary().for_tenant(KEY, 1)
    assert np.allclose(narrow.offsets * 999, np.round(narrow.offsets * 999))
    assert ((narrow.offsets >= 0) & (narrow.offsets <= 1)).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: type(family).__name__)
@pytest.mark.parametrize("dim", [1, 3, 77, 384])
def test_rows_do_not_depend_on_the_batch(family: TransformFamily, dim: int) -> None:
    """A row's bytes are the same alone, among 33 and among 600, wherever it stands."""
    transform = family.for_tenant(KEY, dim)
    x = inputs(600, dim)
    untouched = x.copy()
    whole = transform(x)
    assert whole.shape == (600, transform.out_dim)
    assert whole.dtype == np.float32
    assert np.array_equal(x, untouched)
    assert not np.shares_memory(whole, x)
    for start, stop in [(0, 1), (7, 8), (599, 600), (3, 36), (100, 355)]:
        assert transform(x[start:stop]).tobytes() == whole[start:stop].tobytes()
    assert transform(x[:0]).shape == (0, transform.out_dim)


@pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: type(family).__name__)
def test_tenants_have_transforms_of_their_own(family: TransformFamily) -> None:
    """The same key gives the same transform, another key another one."""
    x = inputs(4, 32)
    one = family.for_tenant(KEY, 32)(x)
    assert np.array_equal(one, family.for_tenant(KEY, 32)(x))
    assert not np.array_equal(one, family.for_tenant(b"another tenant's key", 32)(x))
