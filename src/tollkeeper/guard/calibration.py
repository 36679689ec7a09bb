"""What the guard knows of an encoder before the first request."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import CalibrationError
from tollkeeper.types import Embeddings

_MIN_COUNT = 32
_HEADER = struct.Struct("<8sIIQd")
"""Magic, width d, sample rows m, embeddings counted, feature std; float32 arrays follow."""
_MAGIC = b"TKCALIB1"
_MAGIC_WITH_KNEE = b"TKCALIB2"
"""Then a float64, the knee, follows the header."""
_KNEE = struct.Struct("<d")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """An encoder's embeddings in summary.

    Attributes:
        mean: (d,) float32 mean embedding.
        feature_std: root mean square of the d per-coordinate standard deviations,
            in the units of the embeddings.
        sample: (m, d) float32 embeddings kept for medians; m may be 0.
        count: embeddings the statistics were computed from; 0 for `identity`.
        knee: price signal up to which nothing is paid, chosen from honest traffic; None leaves
            it to the profile.
    """

    mean: NDArray[np.float32]
    feature_std: float
    sample: Embeddings
    count: int
    knee: float | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.mean.ndim != 1 or self.mean.size < 1:
            raise CalibrationError(f"expected a mean of shape (d,), got {self.mean.shape}")
        if self.sample.ndim != 2 or self.sample.shape[1] != self.dim:
            raise CalibrationError(
                f"expected a sample of shape (m, {self.dim}), got {self.sample.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.sample).all()):
            raise CalibrationError("the calibration holds NaN or infinity; fit it again")
        if self.knee is not None and not 0 <= self.knee <= 1:
            raise CalibrationError(f"expected a knee in [0, 1], got {self.knee}")
        if not (np.isfinite(self.feature_std) and self.feature_std > 0):
            raise CalibrationError(
                f"expected a positive feature standard deviation, got {self.feature_std}"
            )

    @property
    def dim(self) -> int:
        """Embedding width d."""
        return int(self.mean.size)

    @classmethod
    def fit(cls, embeddings: Embeddings, *, rng: np.random.Generator, keep: int = 512) -> Self:
        """Summarize a provider's own sample of ordinary inputs.

        Args:
            embeddings: (n, d), n at least 32.
            rng: chooses the rows that are kept.
            keep: at most this many rows are kept for the medians.

        Raises:
            CalibrationError: wrong shape, too few rows, NaN or infinity, or no variation.
        """
        rows = _checked(embeddings)
        mean = rows.mean(axis=0, dtype=np.float64)
        feature_std = float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean()))
        # Relative to the size of the numbers: a constant column leaves rounding residue.
        if feature_std <= 1e-6 * float(np.abs(rows).max()):
            raise CalibrationError(
                "expected embeddings that differ, got a constant; give different inputs"
            )
        chosen = np.sort(rng.permutation(len(rows))[:keep])
        return cls(mean.astype(np.float32), feature_std, rows[chosen], len(rows))

    @classmethod
    def identity(cls, dim: int) -> Self:
        """Return the calibration of raw features: mean 0, standard deviation 1, no sample.

        Raises:
            CalibrationError: the width is not positive.
        """
        if dim < 1:
            raise CalibrationError(f"expected a width of at least 1, got {dim}")
        return cls(np.zeros(dim, np.float32), 1.0, np.zeros((0, dim), np.float32), 0)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Build one from arrays `mean`, `feature_std`, `sample` and `count`, as an npz holds.

        An array `knee` of one number may be there too.

        Raises:
            CalibrationError: an array is missing, is not numbers or does not fit.
        """
        try:
            return cls(
                np.asarray(arrays["mean"], np.float32),
                float(arrays["feature_std"]),
                np.ascontiguousarray(arrays["sample"], np.float32),
                int(arrays["count"]),
                float(arrays["knee"]) if "knee" in arrays else None,
            )
        except KeyError as error:
            raise CalibrationError(
                f"expected arrays mean, feature_std, sample and count; {error} is missing"
            ) from error
        except (TypeError, ValueError) as error:
            raise CalibrationError(f"the calibration arrays are not numbers: {error}") from error

    def to_bytes(self) -> bytes:
        """Return a self-describing form that `from_bytes` reads, 28 + 4 d (m + 1) bytes or so."""
        magic = _MAGIC if self.knee is None else _MAGIC_WITH_KNEE
        header = _HEADER.pack(magic, self.dim, len(self.sample), self.count, self.feature_std)
        if self.knee is not None:
            header += _KNEE.pack(self.knee)
        return header + self.mean.astype("<f4").tobytes() + self.sample.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            CalibrationError: not a calibration, cut short, or damaged.
        """
        magic = data[: len(_MAGIC)]
        least = _HEADER.size + (_KNEE.size if magic == _MAGIC_WITH_KNEE else 0)
        if len(data) < least or magic not in {_MAGIC, _MAGIC_WITH_KNEE}:
            raise CalibrationError("expected a calibration file, got something else; fit it again")
        _, dim, kept, count, feature_std = _HEADER.unpack_from(data)
        knee, start = None, _HEADER.size
        if magic == _MAGIC_WITH_KNEE:
            (knee,), start = _KNEE.unpack_from(data, start), start + _KNEE.size
        expected = start + 4 * dim * (kept + 1)
        if len(data) != expected:
            raise CalibrationError(
                f"expected a calibration of {expected} bytes, got {len(data)}; fit it again"
            )
        numbers = np.frombuffer(data, "<f4", offset=start).astype(np.float32)
        return cls(numbers[:dim], feature_std, numbers[dim:].reshape(kept, dim), count, knee)

    def thresholds(self, hyperplanes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where to split each projection so that half of the sample lies on each side.

        Computed in float64, so that replicas with different BLAS agree.

        Args:
            hyperplanes: (d, h).

        Returns:
            (h,) medians of the sample's projections; without a sample, the projected mean.
        """
        if len(self.sample) == 0:
            return (self.mean.astype(np.float64) @ hyperplanes).astype(np.float32)
        projections = self.sample.astype(np.float64) @ hyperplanes
        return np.median(projections, axis=0).astype(np.float32)


def _checked(embeddings: Embeddings) -> Embeddings:
    """Return a sample as (n, d) float32, or say what is wrong with it."""
    try:
        rows = np.array(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"expected a sample of numbers: {error}") from error
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise CalibrationError(f"expected a sample of shape (n, d), got {rows.shape}")
    if len(rows) < _MIN_COUNT:
        raise CalibrationError(
            f"expected at least {_MIN_COUNT} embeddings to calibrate on, got {len(rows)}"
        )
    if not np.isfinite(rows).all():
        raise CalibrationError("the sample holds NaN or infinity; embed the inputs again")
    return rows
