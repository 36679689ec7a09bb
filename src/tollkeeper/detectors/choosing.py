"""Which detector of a file is used, and accounts followed by that one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tollkeeper.detectors.builtin import builtin_bundle_path
from tollkeeper.detectors.bundle import Bundle
from tollkeeper.detectors.history import History
from tollkeeper.detectors.packing import pack
from tollkeeper.errors import ConfigurationError

NO_DETECTOR = "none"


def chosen(bundle: Bundle, name: str = "") -> Bundle:
    """Return a bundle that recommends a detector, whose scores its history follows.

    Args:
        bundle: as it was read.
        name: of one of its detectors; empty means the one that it recommends.

    Raises:
        ConfigurationError: no such detector, or too few honest scores for a history.
    """
    name = name or bundle.recommended
    if name not in bundle.detectors:
        raise ConfigurationError(
            f"expected a detector of {', '.join(bundle.detectors)}, got {name!r}"
        )
    account, detector = bundle.account, bundle.detectors[name]
    if isinstance(account, History) and pack(account.detector) != pack(detector):
        account = History(detector, bundle.honest[name], slack=account.slack)
    return replace(bundle, recommended=name, account=account)


def located(spec: str) -> tuple[Path, str]:
    """Return the file that `FILE` or `FILE#NAME` names, and the detector in it.

    FILE may be the SPEC of a built-in classifier; without `#NAME` the name is empty.
    """
    file, _, name = spec.rpartition("#") if "#" in spec else (spec, "", "")
    return builtin_bundle_path(file) or Path(file), name
