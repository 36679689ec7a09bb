"""An encoder gets the calibration that belongs to it, or the operator reads why not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.encoders.cached import answer_to_probe
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.gateway.calibrations import calibration_for, check_model, read_calibration
from tollkeeper.guard.calibration import Calibration
from tollkeeper.testing.encoders import hash_encoder

SPEC = "python:models:embed"
ENCODER = hash_encoder(16)
FITTED = Calibration.fit(ENCODER.embed([str(i) for i in range(64)]), rng=np.random.default_rng(0))
PROBED = replace(FITTED, probe=answer_to_probe(ENCODER))


def test_given_files_are_read(tmp_path: Path) -> None:
    """What was written is found, in both forms."""
    made, shipped = tmp_path / "x.cal", tmp_path / "x.npz"
    made.write_bytes(FITTED.to_bytes())
    arrays: dict[str, Any] = {
        name: getattr(FITTED, name) for name in ("mean", "feature_std", "sample", "count")
    }
    np.savez(shipped, **arrays)
    for path in (made, shipped):
        found = calibration_for(SPEC, 16, given=path, required=True)
        assert found.to_bytes() == FITTED.to_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.cal", b"", "got something else"),
        ("x.cal", b"some text\n" * 9, "got something else"),
        ("x.cal", FITTED.to_bytes()[:-1], "fit it again"),
        ("x.cal", b"TKCALIB9" + FITTED.to_bytes()[8:], "newer Tollkeeper"),
        ("x.cal", struct.pack("<8sIIQd", b"TKCALIB1", 0, 0, 9, 1.0), "mean of shape"),
        ("x.npz", b"", "x.npz"),
        ("x.npz", b"PK\x03\x04 cut", "x.npz"),
        ("x.npz", b"no archive", "x.npz"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Empty, foreign, cut, newer and impossible files end in one sentence with their name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=name) as refused:
        read_calibration(path)
    assert said in str(refused.value)


def test_no_file_and_no_calibration(tmp_path: Path) -> None:
    """A path that leads nowhere and a profile without its calibration say what to run."""
    for path in (tmp_path / "gone.cal", tmp_path):
        with pytest.raises(ConfigurationError, match=r"cannot read .* `tollkeeper calibrate`"):
            read_calibration(path)
    with pytest.raises(ConfigurationError, match=f"run `tollkeeper calibrate --encoder {SPEC}"):
        calibration_for(SPEC, 16, given=None, required=True)
    assert calibration_for(SPEC, 16, given=None, required=False).count == 0


def test_another_width_is_refused(tmp_path: Path) -> None:
    """The message names both widths."""
    path = tmp_path / "x.cal"
    path.write_bytes(FITTED.to_bytes())
    with pytest.raises(ConfigurationError, match=r"width 16, but .* has width 8; calibrate again"):
        calibration_for(SPEC, 8, given=path, required=True)


def like(function: Callable[[Any], Any]) -> CallableEncoder:
    """Return an encoder of the same name, width and inputs that answers otherwise."""
    return CallableEncoder(
        lambda inputs: function(ENCODER.embed(inputs)),
        dim=16,
        name=ENCODER.name,
        accepts=ENCODER.accepts,
    )


def bytewise(rows: Any) -> Any:
    """Return rows as eight-bit numbers would hold them."""
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / step) * step


def test_another_model_is_noticed() -> None:
    """A model of the same name and width that answers otherwise is not served."""
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 16)))[0]
    for swapped in (like(lambda rows: rows @ turned), like(lambda rows: 2 * rows)):
        with pytest.raises(ConfigurationError, match=r"another model .* at most 0.1 .* calibrate"):
            check_model(PROBED, swapped)
        check_model(FITTED, swapped)  # made from embeddings alone: nothing to compare with


def test_rounding_is_the_same_model() -> None:
    """The same numbers, whole, in half precision or in eight bits, are not another model."""
    check_model(PROBED, ENCODER)
    for rounded in (like(bytewise), like(lambda rows: rows.astype(np.float16))):
        check_model(PROBED, rounded)


def test_a_model_that_fails_is_not_served() -> None:
    """NaN instead of an answer is the encoder's error."""
    with pytest.raises(EncoderError, match="NaN"):
        check_model(PROBED, like(lambda rows: rows * np.nan))


def test_no_server_starts_with_another_model(start_gateway: Any, tmp_path: Path) -> None:
    """A model swapped for another of its name and width ends the start, before any answer."""
    path = tmp_path / "x.cal"
    path.write_bytes(PROBED.to_bytes())
    start_gateway(ENCODER, calibration=path).stop()
    with pytest.raises(ConfigurationError, match="another model"):
        start_gateway(like(lambda rows: -rows), calibration=path)
