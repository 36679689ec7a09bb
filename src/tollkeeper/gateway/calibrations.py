"""Finding the calibration that belongs to an encoder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.cached import answer_to_probe
from tollkeeper.encoders.load import builtin_calibration_path
from tollkeeper.errors import CalibrationError, ConfigurationError
from tollkeeper.guard.calibration import Calibration

SAME_MODEL = 0.1
"""How far an encoder's answer to the probe may lie from its calibration's, in feature standard
deviations: more than rounding on another machine, less than the first noise of `recommended`."""


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file, as `tollkeeper calibrate` writes it or as built-ins ship it.

    Raises:
        ConfigurationError: the file cannot be read or is not a calibration.
    """
    try:
        if path.suffix == ".npz":
            # Opened here: of a damaged archive numpy would leave its own file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return Calibration.from_arrays(dict(arrays))
        return Calibration.from_bytes(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the calibration file {path}: {error.strerror or error}; expected what "
            "`tollkeeper calibrate` wrote"
        ) from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, CalibrationError) as error:
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


def check_model(calibration: Calibration, encoder: Encoder) -> None:
    """Return unless the encoder is another one than was calibrated, as far as a probe tells.

    Nothing else shows that a model was swapped for another of the same name and width: its
    answers look fine, but no tenant's stored embeddings fit them, and sketches mean nothing.
    A calibration that was made without its encoder, from embeddings, holds no probe.

    Raises:
        ConfigurationError: its answer to the probe is another.
        EncoderError: it cannot answer.
    """
    if calibration.probe is None:
        return
    gap = answer_to_probe(encoder) - calibration.probe
    moved = float(np.sqrt(np.square(gap, dtype=np.float64).mean())) / calibration.feature_std
    if moved > SAME_MODEL:
        raise ConfigurationError(
            f"the calibration is of another model than {encoder.name} is now: expected answers to "
            f"one input to be at most {SAME_MODEL} feature standard deviations apart, got "
            f"{moved:.2g}; restore the former model or its calibration, or calibrate again"
        )
