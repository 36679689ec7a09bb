"""Finding the calibration that belongs to an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tollkeeper.encoders.load import builtin_calibration_path
from tollkeeper.errors import CalibrationError, ConfigurationError
from tollkeeper.guard.calibration import Calibration


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file, as `tollkeeper calibrate` writes it or as built-ins ship it.

    Raises:
        ConfigurationError: the file cannot be read or is not a calibration.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return Calibration.from_arrays(dict(arrays))
        return Calibration.from_bytes(path.read_bytes())
    except (OSError, ValueError, KeyError, CalibrationError) as error:
        raise ConfigurationError(f"cannot use the calibration file {path}: {error}") from error


def calibration_for(spec: str, dim: int, *, given: Path | None, required: bool) -> Calibration:
    """Return the calibration of an encoder: the given file, the built-in's own, or none.

    Args:
        spec: encoder SPEC.
        dim: its width.
        given: the operator's calibration file.
        required: whether the profile is meaningless without one.

    Raises:
        ConfigurationError: none is at hand but one is required, or its width differs.
    """
    path = given or builtin_calibration_path(spec)
    if path is None:
        if required:
            raise ConfigurationError(
                f"this profile needs a calibration of {spec}: run `tollkeeper calibrate "
                f"--encoder {spec} INPUTS -o FILE` and pass `--calibration FILE`"
            )
        return Calibration.identity(dim)
    calibration = read_calibration(path)
    if calibration.dim != dim:
        raise ConfigurationError(
            f"the calibration {path.name} is for width {calibration.dim}, but {spec} has width "
            f"{dim}; calibrate again"
        )
    return calibration
