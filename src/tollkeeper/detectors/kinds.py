"""Where the detectors lie that a bundle may hold; nothing else is ever imported for a file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "same": "tollkeeper.detectors.same:Same",
        "max-softmax": "tollkeeper.detectors.floors:MaxSoftmax",
        "energy": "tollkeeper.detectors.floors:Energy",
        "pixel-share": "tollkeeper.detectors.floors:PixelShare",
        "color-detail": "tollkeeper.detectors.floors:ColorDetail",
        "oe": "tollkeeper.detectors.outlier_exposure:OutlierExposure",
        "edm": "tollkeeper.detectors.edm:Edm",
        "fdinet": "tollkeeper.detectors.fdinet:FdiNet",
        "prada": "tollkeeper.detectors.prada:Prada",
        "seat": "tollkeeper.detectors.seat:Seat",
        "fused": "tollkeeper.detectors.fused:Fused",
        "history": "tollkeeper.detectors.history:History",
    }
)
"""Kind to `module:Class`; a class is imported when a bundle holds one of its kind."""
