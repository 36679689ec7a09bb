"""The detectors that are shipped with the built-in classifier."""

from __future__ import annotations

from pathlib import Path

DIGITS = Path(__file__).parent / "weights" / "digits.tkd"
"""Of `builtin:digits`; `training/digits.py` made both."""


def builtin_bundle_path(spec: str) -> Path | None:
    """Return where the detectors of a built-in classifier lie; None if `spec` names another."""
    return DIGITS if spec == "builtin:digits" else None
