"""Coverage counts the published buckets, merges by union and charges in order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import GuardError
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.coverage import Coverage
from tollkeeper.guard.planes import Gaussian, GaussianPlanes
from tollkeeper.types import Embeddings, Sketch

DIM, TABLES, BITS = 5, 3, 4
SEEDS = st.integers(0, 2**32 - 1)


def small(dim: int = DIM, *, tables: int = TABLES, bits: int = BITS) -> Coverage:
    """Return a coverage with few buckets, so that collisions are common."""
    count = tables * bits
    drawn = Gaussian().draw(b"a secret of tests", Calibration.identity(dim), count, centered=False)
    thresholds = np.linspace(-0.5, 0.5, count).astype(np.float32)
    return Coverage(GaussianPlanes(drawn.matrix, thresholds), tables, bits)


def planes_of(coverage: Coverage) -> GaussianPlanes:
    """Return the planes of `small`."""
    assert isinstance(coverage.planes, GaussianPlanes)
    return coverage.planes


def inputs(seed: int, n: int, dim: int = DIM) -> Embeddings:
    """Return (n, dim) embeddings, some of them repeated."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return rows[rng.integers(0, max(1, n), n)]


def sketch_of(seed: int) -> Sketch:
    """Return the sketch of a few random inputs."""
    return small().visit(small().empty(), inputs(seed, seed % 9)).sketch


def oracle(
    coverage: Coverage, embeddings: Embeddings
) -> tuple[list[set[tuple[int, ...]]], list[float]]:
    """B4B's routine as its method spec describes it: sets of tuples of sign bits per table.

    Returns:
        the visited buckets of each table, and the mean coverage after each input.
    """
    visited: list[set[tuple[int, ...]]] = [set() for _ in range(coverage.tables)]
    curve = []
    for x in embeddings:
        for table, buckets in enumerate(visited):
            columns = range(table * coverage.bits, (table + 1) * coverage.bits)
            bits = []
            for j in columns:
                plane = planes_of(coverage).matrix[:, j]
                product = sum(float(a) * float(b) for a, b in zip(x, plane, strict=True))
                bits.append(int(product > float(planes_of(coverage).thresholds[j])))
            buckets.add(tuple(bits))
        curve.append(sum(len(b) / 2**coverage.bits for b in visited) / coverage.tables)
    return visited, curve


@given(seed=SEEDS, n=st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_buckets_and_coverage_agree_with_sets_of_tuples(seed: int, n: int) -> None:
    """The bitmaps hold exactly the buckets of the published routine, input by input."""
    coverage, embeddings = small(), inputs(seed, n)
    visited, curve = oracle(coverage, embeddings)
    visit = coverage.visit(coverage.empty(), embeddings)
    np.testing.assert_allclose(visit.fractions, curve, atol=1e-12)
    bitmap = np.unpackbits(visit.sketch).reshape(TABLES, 2**BITS)
    for row, buckets in zip(bitmap, visited, strict=True):
        numbers = {int("".join(map(str, bits)), 2) for bits in buckets}
        assert set(np.flatnonzero(row).tolist()) == numbers


def test_published_size_agrees_with_sets_of_tuples() -> None:
    """Twenty tables of twelve raw-feature bits at d = 32 agree with the slow routine."""
    planes = Gaussian().draw(b"another", Calibration.identity(32), 240, centered=False)
    coverage = Coverage(planes, 20, 12)
    embeddings = inputs(1, 12, 32)
    _, curve = oracle(coverage, embeddings)
    visit = coverage.visit(coverage.empty(), embeddings)
    np.testing.assert_allclose(visit.fractions, curve, atol=1e-12)
    assert coverage.sketch_bytes == 10_240


@given(a=SEEDS, b=SEEDS, c=SEEDS)
def test_merge_is_a_union(a: int, b: int, c: int) -> None:
    """Merging is commutative, associative and idempotent, and empty is neutral."""
    merge = small().merge
    one, two, three = sketch_of(a), sketch_of(b), sketch_of(c)
    assert np.array_equal(merge(one, two), merge(two, one))
    assert np.array_equal(merge(merge(one, two), three), merge(one, merge(two, three)))
    assert np.array_equal(merge(one, one), one)
    assert np.array_equal(merge(one, small().empty()), one)


@given(seed=SEEDS, n=st.integers(0, 40), cut=st.integers(0, 40))
def test_a_batch_is_its_two_halves(seed: int, n: int, cut: int) -> None:
    """Split anywhere, one after the other or merged, the sketch and the charge are the same."""
    coverage, embeddings = small(), inputs(seed, n)
    whole = coverage.visit(coverage.empty(), embeddings)
    first = coverage.visit(coverage.empty(), embeddings[:cut])
    then = coverage.visit(first.sketch, embeddings[cut:])
    apart = coverage.visit(coverage.empty(), embeddings[cut:])
    assert np.array_equal(whole.sketch, then.sketch)
    assert np.array_equal(whole.sketch, coverage.merge(first.sketch, apart.sketch))
    assert np.array_equal(whole.opened, np.concatenate([first.opened, then.opened]))
    assert np.array_equal(whole.fractions, np.concatenate([first.fractions, then.fractions]))


@given(before=SEEDS, seed=SEEDS, n=st.integers(1, 40))
def test_coverage_never_falls(before: int, seed: int, n: int) -> None:
    """From a sketch on, and within a batch, coverage only grows."""
    coverage, sketch = small(), sketch_of(before)
    fractions = coverage.visit(sketch, inputs(seed, n)).fractions
    assert fractions[0] >= coverage.fraction(sketch)
    assert (np.diff(fractions) >= 0).all()


@given(seed=SEEDS, n=st.integers(1, 30), others=SEEDS)
def test_repeats_open_nothing(seed: int, n: int, others: int) -> None:
    """Known inputs, alone or among others in any order, open no bucket the second time."""
    coverage, embeddings = small(), inputs(seed, n)
    sketch = coverage.visit(coverage.empty(), embeddings).sketch
    again = coverage.visit(sketch, embeddings[::-1])
    assert not again.opened.any()
    assert np.array_equal(again.sketch, sketch)
    mixed = np.concatenate([embeddings, inputs(others, 3)])
    assert not coverage.visit(sketch, mixed).opened[:n].any()


@pytest.mark.parametrize("n", [1, 2, 3, 31, 32, 33, 254, 255, 256, 700])
def test_bits_do_not_depend_on_the_batch(n: int) -> None:
    """An input far from or near to a hyperplane falls into one bucket at any batch size."""
    coverage = small(384, tables=20, bits=12)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((700, 384)).astype(np.float32)
    # Push every row to within rounding error of one of its 240 hyperplanes.
    for i, row in enumerate(rows.astype(np.float64)):
        plane = planes_of(coverage).matrix[:, i % 240].astype(np.float64)
        gap = row @ plane - planes_of(coverage).thresholds[i % 240]
        rows[i] = row - plane * gap / (plane @ plane)
    exact = rows.astype(np.float64) @ planes_of(coverage).matrix > planes_of(coverage).thresholds
    weights = 2 ** np.arange(11, -1, -1)
    expected = (exact.reshape(700, 20, 12) * weights).sum(axis=2)
    assert np.array_equal(coverage.buckets(rows[:n]), expected[:n])
    assert np.array_equal(coverage.buckets(rows[-n:]), expected[-n:])


@pytest.mark.parametrize("n", [254, 255, 256, 300])
def test_long_batches_charge_the_first_visitor(n: int) -> None:
    """Beyond 255 inputs the first of several visitors still is the one charged."""
    coverage, row = small(), inputs(3, 1)
    visit = coverage.visit(coverage.empty(), np.repeat(row, n, axis=0))
    assert visit.opened.tolist() == [TABLES] + [0] * (n - 1)


def test_a_sketch_survives_bytes() -> None:
    """Bytes read back to the same sketch; none at all mean a pool that never asked."""
    coverage, sketch = small(), sketch_of(5)
    assert np.array_equal(coverage.from_bytes(sketch.tobytes()), sketch)
    assert not coverage.from_bytes(b"").any()


@pytest.mark.parametrize(
    "sketch",
    [np.zeros(5, np.uint8), np.zeros((6, 1), np.uint8), np.zeros(6, np.int8), bytes(6), None],
)
def test_foreign_sketches_are_refused(sketch: Sketch) -> None:
    """A sketch of another size, shape or type is an error, not coverage."""
    coverage = small()
    for use in (
        coverage.fraction,
        lambda s: coverage.merge(coverage.empty(), s),
        lambda s: coverage.visit(s, inputs(1, 2)),
    ):
        with pytest.raises(GuardError, match="sketch"):
            use(sketch)
    with pytest.raises(GuardError, match="6 bytes"):
        coverage.from_bytes(bytes(7))
