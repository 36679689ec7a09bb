"""The encoder SPECs that need torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.lab import checkpoints, hubs

LOADERS: Mapping[str, Callable[[str], Encoder]] = {
    "lab": checkpoints.lab,
    "simsiam": checkpoints.simsiam,
    "dino": checkpoints.dino,
    "timm": hubs.timm_encoder,
    "st": hubs.SentenceEncoder,
}
"""By scheme: from what follows the colon to an encoder."""
