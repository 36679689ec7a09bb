"""Calibrations summarize a sample, survive storage, and refuse bad samples."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.errors import CalibrationError
from tollkeeper.guard import Calibration

RNG = np.random.default_rng(3)
SAMPLE = (RNG.standard_normal((200, 6)) * [1, 2, 3, 4, 5, 6] + 7).astype(np.float32)


def test_fit_measures_mean_and_feature_std() -> None:
    """Mean and root-mean-square standard deviation agree with a plain computation."""
    calibration = Calibration.fit(SAMPLE, rng=np.random.default_rng(0), keep=50)
    columns = [[float(row[j]) for row in SAMPLE] for j in range(6)]
    means = [sum(column) / 200 for column in columns]
    variances = [
        sum((x - mean) ** 2 for x in column) / 200
        for column, mean in zip(columns, means, strict=True)
    ]
    np.testing.assert_allclose(calibration.mean, means, rtol=1e-5)
    assert calibration.feature_std == pytest.approx((sum(variances) / 6) ** 0.5, rel=1e-5)
    assert calibration.count == 200
    assert calibration.sample.shape == (50, 6)
    assert all(row.tolist() in SAMPLE.tolist() for row in calibration.sample)


def test_fit_keeps_all_rows_of_a_small_sample() -> None:
    """A sample below the limit is kept whole."""
    calibration = Calibration.fit(SAMPLE[:40], rng=np.random.default_rng(0))
    assert np.array_equal(calibration.sample, SAMPLE[:40])


def test_thresholds_split_the_sample_in_half() -> None:
    """Half of the kept sample lies above each hyperplane's threshold."""
    calibration = Calibration.fit(SAMPLE, rng=np.random.default_rng(0))
    planes = RNG.standard_normal((6, 9)).astype(np.float32)
    above = SAMPLE @ planes > calibration.thresholds(planes)
    assert np.array_equal(above.sum(axis=0), np.full(9, 100))


def test_without_a_sample_thresholds_are_the_projected_mean() -> None:
    """Mean alone still centers."""
    mean = np.arange(4, dtype=np.float32)
    calibration = Calibration(mean, 1.0, np.zeros((0, 4), np.float32), 10)
    planes = np.eye(4, dtype=np.float32)
    assert np.array_equal(calibration.thresholds(planes), mean)
    assert not Calibration.identity(4).thresholds(planes).any()


def test_bytes_round_trip() -> None:
    """A stored calibration reads back unchanged."""
    calibration = Calibration.fit(SAMPLE, rng=np.random.default_rng(0), keep=5)
    again = Calibration.from_bytes(calibration.to_bytes())
    assert np.array_equal(again.mean, calibration.mean)
    assert np.array_equal(again.sample, calibration.sample)
    assert (again.feature_std, again.count) == (calibration.feature_std, calibration.count)


def test_from_arrays_reads_half_precision_samples() -> None:
    """The shipped arrays, with a float16 sample, make a float32 calibration."""
    calibration = Calibration.from_arrays(
        {
            "mean": np.zeros(3),
            "feature_std": np.float64(0.5),
            "sample": np.ones((2, 3), np.float16),
            "count": np.int64(9),
        }
    )
    assert calibration.sample.dtype == np.float32
    assert (calibration.feature_std, calibration.count) == (0.5, 9)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.ones((100, 4)), "constant"),
        (np.full((100, 4), 1e6) + RNG.standard_normal((100, 1)) * 1e-3, "constant"),
        (np.full((100, 4), np.nan), "NaN"),
        (np.full((100, 4), np.inf), "NaN or infinity"),
        (np.ones(100), r"shape \(n, d\), got \(100,\)"),
        (np.ones((100, 0)), r"shape \(n, d\)"),
        (RNG.standard_normal((31, 4)), "at least 32 different .* got 31; give more"),
        (np.tile(RNG.standard_normal((31, 4)), (9, 1)), "at least 32 different .* got 31"),
        (np.ones((0, 4)), "got none"),
        (RNG.standard_normal((40, 4)) * 1e39, "NaN or infinity"),
        (np.array([["a"] * 3] * 40), "numbers"),
    ],
)
def test_unusable_samples_are_refused(sample: NDArray[np.float32], message: str) -> None:
    """Each bad sample is refused in one clear sentence."""
    with pytest.raises(CalibrationError, match=message):
        Calibration.fit(sample, rng=np.random.default_rng(0))


def test_repeats_count_once() -> None:
    """A log full of one input says the same as a log without it."""
    log = np.concatenate([SAMPLE[:60], np.repeat(SAMPLE[:1], 5000, axis=0), SAMPLE[60:]])
    once, often = (Calibration.fit(rows, rng=np.random.default_rng(0)) for rows in (SAMPLE, log))
    assert often.to_bytes() == once.to_bytes()
    assert often.count == 200


@pytest.mark.parametrize("knee", [None, 0.0, 0.625])
def test_a_probe_survives_storage(knee: float | None) -> None:
    """The answer that an encoder is recognized by is kept, with and without a knee."""
    fitted = Calibration.fit(SAMPLE, rng=np.random.default_rng(0), keep=5)
    probed = replace(fitted, knee=knee, probe=SAMPLE[7])
    again = Calibration.from_bytes(probed.to_bytes())
    assert again.probe is not None
    assert np.array_equal(again.probe, SAMPLE[7])
    assert (again.knee, again.count, again.feature_std) == (knee, 200, fitted.feature_std)
    assert np.array_equal(again.sample, fitted.sample)
    assert np.array_equal(again.mean, fitted.mean)
    assert Calibration.from_bytes(fitted.to_bytes()).probe is None


def test_a_probe_must_fit() -> None:
    """An answer of another width, or one that is no number, is refused."""
    fitted = Calibration.fit(SAMPLE, rng=np.random.default_rng(0), keep=5)
    with pytest.raises(CalibrationError, match=r"probe of shape \(6,\), got \(5,\)"):
        replace(fitted, probe=SAMPLE[7, :5])
    with pytest.raises(CalibrationError, match="NaN"):
        replace(fitted, probe=np.full(6, np.nan, np.float32))


def test_the_first_form_is_read_to_the_byte() -> None:
    """A file of the first version, written out here by hand, is read as it always was."""
    numbers = np.arange(9, dtype="<f4")
    data = struct.pack("<8sIIQd", b"TKCALIB1", 3, 2, 77, 0.25) + numbers.tobytes()
    read = Calibration.from_bytes(data)
    assert (read.dim, read.count, read.feature_std) == (3, 77, 0.25)
    assert (read.knee, read.probe) == (None, None)
    assert read.mean.tolist() == [0, 1, 2]
    assert read.sample.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert read.to_bytes() == data


def test_damaged_bytes_are_refused() -> None:
    """Cut, foreign, newer and corrupted files do not become calibrations."""
    data = Calibration.fit(SAMPLE, rng=np.random.default_rng(0), keep=5).to_bytes()
    with pytest.raises(CalibrationError, match="got something else"):
        Calibration.from_bytes(b"PK\x03\x04" + data)
    with pytest.raises(CalibrationError, match="newer Tollkeeper"):
        Calibration.from_bytes(b"TKCALIB9" + data[8:])
    with pytest.raises(CalibrationError, match=f"of {len(data)} bytes, got {len(data) - 1}"):
        Calibration.from_bytes(data[:-1])
    with pytest.raises(CalibrationError, match="NaN"):
        Calibration.from_bytes(data[:-4] + b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": [0.0]}, "'feature_std' is missing"),
        ({"mean": [0.0], "feature_std": 0, "sample": [[0.0]], "count": 1}, "positive"),
        ({"mean": [0.0], "feature_std": "x", "sample": [[0.0]], "count": 1}, "not numbers"),
        ({"mean": [0.0], "feature_std": 1, "sample": [[0.0, 1.0]], "count": 1}, r"\(m, 1\)"),
        ({"mean": 0.0, "feature_std": 1, "sample": [[0.0]], "count": 1}, r"shape \(d,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, object], message: str) -> None:
    """Arrays from a file are checked like everything else."""
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_arrays(arrays)


def test_identity_needs_a_width() -> None:
    """Raw features have at least one coordinate."""
    with pytest.raises(CalibrationError, match="at least 1, got 0"):
        Calibration.identity(0)
