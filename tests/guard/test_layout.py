"""Layouts read sketches without the guard's secrets; samples tell shared inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.errors import GuardError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.layout import Layout
from tollkeeper.types import Embeddings, Sketch

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((4000, 16)).astype(np.float32)
GUARD = Guard(profiles.RECOMMENDED, Calibration.fit(ROWS, rng=RNG), secret=b"s" * 32)
LAYOUT = GUARD.profile.layout


def sketch_of(rows: Embeddings) -> Sketch:
    """The sketch of an account that asked these."""
    return GUARD.mark(GUARD.empty(), rows)


@pytest.mark.parametrize("name", profiles.NAMES)
def test_a_layout_agrees_with_the_guard(name: str) -> None:
    """Loading, merging and coverage are those of the guard that wrote."""
    profile = profiles.get(name)
    guard = Guard(profile, GUARD.calibration, secret=b"s" * 32)
    one, other = (guard.mark(guard.empty(), part) for part in (ROWS[:40], ROWS[30:70]))
    layout = profile.layout
    union = layout.merge(layout.from_bytes(one.tobytes()), layout.from_bytes(other.tobytes()))
    assert union.tobytes() == guard.merge(one, other).tobytes()
    assert union.tobytes() == guard.mark(one, ROWS[30:70]).tobytes()
    assert layout.fraction(union) == guard.fraction(union)
    assert layout.from_bytes(b"").tobytes() == guard.empty().tobytes()


def test_foreign_bytes_are_refused() -> None:
    """Bytes that are not a sketch of the profile are an error, not a coverage."""
    with pytest.raises(GuardError, match="expected a sketch of 11296 bytes, got shape"):
        LAYOUT.from_bytes(bytes(5))


@given(
    parts=st.lists(st.lists(st.integers(0, 399), max_size=60), min_size=2, max_size=4),
    seed=st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_samples_merge_like_sets(parts: list[list[int]], seed: int) -> None:
    """Whatever the order and the repetitions, the union has one sketch."""
    sketches = [sketch_of(ROWS[np.array(part, np.intp)]) for part in parts]
    whole = sketch_of(ROWS[np.array([at for part in parts for at in part], np.intp)])
    union = LAYOUT.empty()
    for at in np.random.default_rng(seed).integers(0, len(parts), 3 * len(parts)):
        union = LAYOUT.merge(sketches[at], union)
    for sketch in sketches:
        union = LAYOUT.merge(union, sketch)
    assert union.tobytes() == whole.tobytes()


def test_a_sample_holds_the_largest_hashes() -> None:
    """Of many hashes the largest different ones stay, rising; of few, zeros come before them."""
    layout = Layout(1, 4, samples=5)
    hashes = np.array([9, 2, 2, 7, 30, 11, 5], np.uint32)
    assert layout.largest(hashes[:4]).tolist() == [0, 0, 2, 7, 9]
    assert layout.largest(hashes[:4], hashes[3:]).tolist() == [5, 7, 9, 11, 30]


@pytest.mark.parametrize("common", [0, 100, 500, 1000])
def test_the_share_of_common_inputs_is_estimated(common: int) -> None:
    """The estimate is within three standard errors of inputs in both over inputs in either."""
    one, other = ROWS[:1000], ROWS[1000 - common : 2000 - common]
    share, seen = LAYOUT.shared(sketch_of(one), sketch_of(other))
    true = common / (2000 - common)
    error = 3 * np.sqrt(max(true, 1 / 256) * (1 - true) / 256)
    assert abs(share - true) <= error
    assert share == pytest.approx(seen / 256)


def test_near_duplicates_are_mostly_shared_and_strangers_never() -> None:
    """A copy of each input at cosine .999 is seen as the same input in most cases."""
    rows = ROWS[:1000]
    away = RNG.standard_normal(rows.shape).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    twins = rows + away / np.linalg.norm(away, axis=1, keepdims=True) * norms * 0.0447
    share, _ = LAYOUT.shared(sketch_of(rows), sketch_of(twins))
    assert share > 0.25  # were half of them the same, it would be a third
    assert LAYOUT.shared(sketch_of(rows), sketch_of(ROWS[1000:2000]))[1] <= 2


@pytest.mark.parametrize("tables", [1, 2, 3])
@pytest.mark.parametrize("landmarks", [0, 8])
def test_few_tables_name_a_fine_cell_too(tables: int, landmarks: int) -> None:
    """Whatever there is of three tables names the cell; landmarks have no part in it."""
    profile = replace(profiles.RECOMMENDED, tables=tables, landmarks=landmarks, samples=16)
    guard = Guard(profile, GUARD.calibration, secret=b"s" * 32)
    sketch = guard.mark(guard.empty(), ROWS[:9])
    layout = profile.layout
    assert np.count_nonzero(layout.sample(sketch)) == 9
    assert layout.shared(sketch, guard.mark(guard.empty(), ROWS[3:9])) == (6 / 9, 6)


def test_a_fingerprint_knows_the_size_of_a_sketch_with_a_sample() -> None:
    """Sketches of another size belong to another guard; without a sample nothing has changed."""
    found = {
        samples: Guard(
            replace(profiles.RECOMMENDED, samples=samples), GUARD.calibration, secret=b"s" * 32
        ).fingerprint
        for samples in (0, 128, 256)
    }
    assert len(set(found.values())) == 3
