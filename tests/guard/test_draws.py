"""Keyed random numbers have the right law and never change."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from tollkeeper.guard import draws

KEY = b"key of the draws"


def test_normals_are_standard_normal() -> None:
    """Mean, variance, tails and the distribution function agree with N(0, 1)."""
    sample = np.sort(draws.normals(KEY, 200_000).astype(np.float64))
    assert abs(sample.mean()) < 0.01
    assert abs(sample.var() - 1) < 0.01
    grid = np.linspace(-4, 4, 33)
    empirical = np.searchsorted(sample, grid) / sample.size
    assert np.abs(empirical - [NormalDist().cdf(x) for x in grid]).max() < 0.005
    assert 4.0 < np.abs(sample).max() < 4.4


def test_uniforms_stay_inside_and_fill_the_range() -> None:
    """Uniform draws lie strictly inside (low, high), evenly in ten bins."""
    sample = draws.uniforms(KEY, 100_000, low=-1, high=1)
    assert sample.min() > -1
    assert sample.max() < 1
    counts, _ = np.histogram(sample, bins=10, range=(-1, 1))
    assert np.abs(counts - 10_000).max() < 500


@pytest.mark.parametrize("count", [1, 2, 77, 1536])
def test_permutations_hold_every_index_once(count: int) -> None:
    """A drawn order is an order."""
    assert sorted(draws.permutation(KEY, count)) == list(range(count))


def test_rows_of_normals_are_the_single_draws() -> None:
    """Drawing many keys at once changes nothing."""
    keys = [b"a", b"b", b"a"]
    rows = draws.normal_rows(keys, 17)
    assert np.array_equal(rows, np.stack([draws.normals(key, 17) for key in keys]))
    assert draws.normal_rows([], 17).shape == (0, 17)


def test_draws_never_change_between_releases() -> None:
    """Pinned digests: no numpy, processor or release may change what a key yields."""
    drawn = [
        draws.integers(KEY, 9, bits=32),
        (draws.normals(KEY, 4096) * 2**20).astype(np.int32),
        draws.permutation(KEY, 300).astype(np.int32),
        draws.uniforms(KEY, 300, low=-1, high=1),
    ]
    digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in drawn]
    assert digests == [
        "18e26ab2822a8cfa",
        "52966ead643d6961",
        "60568c9dcd6438a4",
        "de7c97f1aef5da25",
    ]
