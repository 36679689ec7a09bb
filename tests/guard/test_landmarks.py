"""Landmarks are the nearest directions, chosen in secret; narrow accounts visit few of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.errors import CalibrationError
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.guard.landmarks import Landmarks

KEY = bytes(32)


def margins(seed: int, n: int, width: int = 24) -> NDArray[np.float32]:
    """Return (n, width) margins."""
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def nearest(landmarks: Landmarks, rows: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the landmarks of margins that no batch has rounded."""
    doubts = np.zeros(len(rows), np.float32)
    return landmarks.nearest(rows, doubts=doubts, exact=lambda row: rows[row].astype(np.float64))


def oracle(sample: NDArray[np.float32], row: NDArray[np.float32]) -> int:
    """Return the sample's row of the largest cosine, one product at a time."""
    best, at = -2.0, -1
    for index, one in enumerate(sample.astype(float)):
        cosine = sum(a * b for a, b in zip(one, row.astype(float), strict=True))
        cosine /= float(np.linalg.norm(one))
        if cosine / float(np.linalg.norm(row)) > best:
            best, at = cosine / float(np.linalg.norm(row)), index
    return at


def test_the_nearest_direction_wins() -> None:
    """The landmark of a row is the sample row that a slow search finds."""
    sample = margins(0, 40)
    landmarks = Landmarks.choose(KEY, sample, 40)
    unit = sample / np.linalg.norm(sample, axis=1, keepdims=True)
    places = [int(np.argmax(unit @ column)) for column in landmarks.directions.T]
    rows = margins(1, 25)
    found = nearest(landmarks, rows)
    assert [places[at] for at in found] == [oracle(sample, row) for row in rows]


def test_a_row_has_one_landmark_in_every_batch() -> None:
    """Ties that float32 cannot call are decided alike, alone and in company."""
    landmarks = Landmarks.choose(KEY, margins(0, 64), 64)
    first, second = landmarks.directions.T[:2]
    # On the border of two cells, in any scale.
    rows = np.stack([(first + second) * scale for scale in np.geomspace(1e-3, 1e3, 50)])
    rows = np.concatenate([rows, margins(2, 150)]).astype(np.float32)
    whole = nearest(landmarks, rows)
    for size in (1, 7, 64):
        parts = [nearest(landmarks, rows[at : at + size]) for at in range(0, len(rows), size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert nearest(landmarks, rows[:0]).shape == (0,)


@pytest.mark.parametrize("dim", [32, 128, 384])
def test_a_repeat_on_a_border_is_free(dim: int) -> None:
    """Inputs between two cells are charged once, whatever batch they come in next."""
    rng = np.random.default_rng(4)
    calibration = Calibration.fit(rng.standard_normal((600, dim)).astype(np.float32), rng=rng)
    guard = Guard(profiles.RECOMMENDED, calibration, secret=bytes(32))
    one, other = rng.standard_normal((2, 200, dim)).astype(np.float32)

    def cells(rows: NDArray[np.float32]) -> NDArray[np.intp]:
        return guard._coverage.places(rows)[:, -1]

    for _ in range(40):  # halve the way between two cells until float32 has no middle
        middle = ((one.astype(np.float64) + other) / 2).astype(np.float32)
        left = cells(middle) == cells(one)
        one, other = (
            np.where(left[:, None], middle, one),
            np.where(left[:, None], other, middle),
        )
    rows = np.concatenate([one, other])
    alone = np.concatenate([cells(row[None]) for row in rows])
    assert np.array_equal(cells(rows), alone)
    first = guard.admit(guard.empty(), rows, key=KEY, rng=rng)
    sketch = first.sketch
    for at in range(0, len(rows), 7):
        assert guard.admit(sketch, rows[at : at + 7], key=KEY, rng=rng).charge == 0


def test_the_choice_is_secret_and_repeats() -> None:
    """One key chooses the same landmarks, another key others."""
    sample = margins(0, 100)
    one, again, other = (Landmarks.choose(key, sample, 20) for key in (KEY, KEY, b"x" * 32))
    assert np.array_equal(one.directions, again.directions)
    shared = (one.directions.T[:, None] == other.directions.T[None]).all(axis=2).sum()
    assert shared < 12


def test_a_sample_of_repeats_is_too_small() -> None:
    """Equal rows and rows at the middle are no further landmarks; the error says what to do."""
    sample = np.concatenate([margins(0, 10), margins(0, 10), np.zeros((5, 24), np.float32)])
    assert Landmarks.choose(KEY, sample, 10).count == 10
    with pytest.raises(CalibrationError, match=r"at least 11 .* got 10; calibrate with more"):
        Landmarks.choose(KEY, sample, 11)


def test_rounding_makes_no_landmarks() -> None:
    """Rows that differ by rounding alone, and rows on one line, are not different directions."""
    sample = margins(0, 100)
    rounded = np.concatenate([sample, sample.astype(np.float16).astype(np.float32)])
    assert Landmarks.choose(KEY, rounded, 100).count == 100
    line = margins(0, 300, 1) @ margins(1, 1)
    for few, found in ((rounded, 100), (line, 2)):
        with pytest.raises(CalibrationError, match=rf"got {found}; calibrate with more"):
            Landmarks.choose(KEY, few, 101)


def test_a_narrow_account_stays_among_few_landmarks() -> None:
    """Ten times as many inputs on one subject reach fewer landmarks than a broad account."""
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((40, 96))

    def around(which: NDArray[np.intp]) -> NDArray[np.float32]:
        rows = centers[which] + 0.5 * rng.standard_normal((len(which), 96))
        return rows.astype(np.float32)

    calibration = Calibration.fit(around(rng.integers(0, 40, 600)), rng=rng)
    guard = Guard(profiles.RECOMMENDED, calibration, secret=bytes(32))

    def signal(rows: NDArray[np.float32]) -> float:
        return guard.admit(guard.empty(), rows, key=KEY, rng=rng).coverage

    narrow = signal(around(rng.integers(0, 4, 4000)))
    broad = signal(around(rng.integers(0, 40, 400)))
    assert narrow < 0.3
    assert broad > 0.5
