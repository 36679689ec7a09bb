"""What the guard knows of an encoder before the first request."""

from __future__ import annotations

import math
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
_FAMILY = b"TKCALIB"
_MAGIC = _FAMILY + b"1"
_MAGIC_WITH_KNEE = _FAMILY + b"2"
"""Then a float64, the knee, follows the header."""
_MAGIC_WITH_PROBE = _FAMILY + b"3"
"""Then the knee follows too, NaN for none, and the (d,) probe comes last."""
_KNEE = struct.Struct("<d")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """An encoder's embeddings in summary.

    Attributes:
        mean: (d,) float32 mean embedding.
        feature_std: root mean square of the d per-coordinate standard deviations,
            in the units of the embeddings.
        sample: (m, d) float32 embeddings kept for medians; m may be 0.
        count: different embeddings the statistics were computed from; 0 for `identity`.
        knee: price signal up to which nothing is paid, chosen from honest traffic; None leaves
            it to the profile.
        probe: (d,) the encoder's answer to a fixed input, to recognize it by; None where the
            encoder was not asked.
    """

    mean: NDArray[np.float32]
    feature_std: float
    sample: Embeddings
    count: int
    knee: float | None = None
    probe: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.mean.ndim != 1 or self.mean.size < 1:
            raise CalibrationError(f"expected a mean of shape (d,), got {self.mean.shape}")
        if self.sample.ndim != 2 or self.sample.shape[1] != self.dim:
            raise CalibrationError(
                f"expected a sample of shape (m, {self.dim}), got {self.sample.shape}"
            )
        probe = self.mean if self.probe is None else self.probe
        if probe.shape != self.mean.shape:
            raise CalibrationError(f"expected a probe of shape ({self.dim},), got {probe.shape}")
        if not all(np.isfinite(part).all() for part in (self.mean, self.sample, probe)):
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

        Rows that repeat count once: a log full of one health check would otherwise put the
        middle of the space there and take the spread away.

        Args:
            embeddings: (n, d), at least 32 different ones.
            rng: chooses the rows that are kept.
            keep: at most this many rows are kept for the medians.

        Raises:
            CalibrationError: wrong shape, too few rows, NaN or infinity, or no variation.
        """
        rows = _different(_checked(embeddings))
        mean = rows.mean(axis=0, dtype=np.float64)
        feature_std = float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean()))
        # Relative to the size of the numbers: a constant column leaves rounding residue.
        if feature_std <= 1e-6 * float(np.abs(rows).max()):
            raise CalibrationError(
                "expected embeddings that differ, got a constant; give different inputs"
            )
        if len(rows) < _MIN_COUNT:
            raise CalibrationError(
                f"expected at least {_MIN_COUNT} different embeddings to calibrate on, got "
                f"{len(rows)}; give more inputs"
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
        parts = [self.mean, self.sample]
        if self.probe is not None:
            magic = _MAGIC_WITH_PROBE
            parts.append(self.probe)
        header = _HEADER.pack(magic, self.dim, len(self.sample), self.count, self.feature_std)
        if magic != _MAGIC:
            header += _KNEE.pack(math.nan if self.knee is None else self.knee)
        return header + b"".join(part.astype("<f4").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            CalibrationError: not a calibration, cut short, or damaged.
        """
        magic = data[: len(_MAGIC)]
        start = _HEADER.size + (0 if magic == _MAGIC else _KNEE.size)
        if len(data) < start or not magic.startswith(_FAMILY):
            raise CalibrationError("expected a calibration file, got something else; fit it again")
        if magic not in {_MAGIC, _MAGIC_WITH_KNEE, _MAGIC_WITH_PROBE}:
            raise CalibrationError(
                "a newer Tollkeeper wrote this calibration; upgrade or fit it again"
            )
        _, dim, kept, count, feature_std = _HEADER.unpack_from(data)
        rows = 1 + kept + (magic == _MAGIC_WITH_PROBE)
        expected = start + 4 * dim * rows
        if len(data) != expected:
            raise CalibrationError(
                f"expected a calibration of {expected} bytes, got {len(data)}; fit it again"
            )
        numbers = np.frombuffer(data, "<f4", offset=start).astype(np.float32).reshape(rows, dim)
        knee: float | None = None
        if magic != _MAGIC:
            (knee,) = _KNEE.unpack_from(data, _HEADER.size)
        if magic != _MAGIC_WITH_PROBE:
            return cls(numbers[0], feature_std, numbers[1:], count, knee)
        knee = None if knee is None or math.isnan(knee) else knee
        return cls(numbers[0], feature_std, numbers[1:-1], count, knee, numbers[-1])

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
        with np.errstate(over="ignore"):  # too large becomes infinity, refused below
            rows = np.array(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"expected a sample of numbers: {error}") from error
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise CalibrationError(f"expected a sample of shape (n, d), got {rows.shape}")
    if not len(rows):
        raise CalibrationError("expected a sample of inputs, got none")
    if not np.isfinite(rows).all():
        raise CalibrationError("the sample holds NaN or infinity; embed the inputs again")
    return rows


def _different(rows: Embeddings) -> Embeddings:
    """Return (n, d) rows without those that repeat an earlier one."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(row.tobytes(), index)
    return rows[list(first.values())]
