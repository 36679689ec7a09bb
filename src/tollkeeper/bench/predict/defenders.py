"""The detectors under comparison: each fitted from nothing, and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from tollkeeper.bench.predict.scene import Scene
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.edm import Edm
from tollkeeper.detectors.lab.edm import fit_edm
from tollkeeper.detectors.lab.mae import MaeLayout
from tollkeeper.detectors.lab.mae_fit import MaeRecipe
from tollkeeper.detectors.lab.outlier_exposure import fit_outlier_exposure
from tollkeeper.detectors.lab.same import SameRecipe, fit_same
from tollkeeper.detectors.outlier_exposure import OutlierExposure
from tollkeeper.detectors.same import RESTORED, Same
from tollkeeper.lab.conv3 import conv3
from tollkeeper.lab.fit import AdamW, Schedule
from tollkeeper.lab.progress import silent
from tollkeeper.types import Images, Probabilities

SAME_FORMS: Mapping[str, float] = {"same": 0.99, "same-x": 1.0, "same-y": 0.0}
"""Names to alpha."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """How long detectors are trained, and how large they are.

    Attributes:
        width: of the first layer of OE's victim, EDM's members and SAME's auxiliary model.
        mae_epochs: of the autoencoder.
        mae_warmup: of these.
        mae_rate: its learning rate.
        mae_width: of its tokens.
        mae_patch: pixels a side.
        mae_encoder: blocks.
        mae_decoder: blocks.
        mae_heads: of attention.
        mae_ratios: mask ratios of its batches.
        auxiliary_epochs: of SAME's auxiliary model.
        oe_epochs: of OE's victim.
        edm_members: of EDM's ensemble.
        edm_epochs: of each of them.
    """

    width: int = 16
    mae_epochs: int = 40
    mae_warmup: int = 3
    mae_rate: float = 2e-3
    mae_width: int = 64
    mae_patch: int = 4
    mae_encoder: int = 3
    mae_decoder: int = 1
    mae_heads: int = 4
    mae_ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    auxiliary_epochs: int = 6
    oe_epochs: int = 6
    edm_members: int = 3
    edm_epochs: int = 5

    def recipe(self) -> SameRecipe:
        """Return how SAME is fitted."""
        layout = MaeLayout(
            patch=self.mae_patch,
            width=self.mae_width,
            encoder=self.mae_encoder,
            decoder=self.mae_decoder,
            heads=self.mae_heads,
        )
        schedule = Schedule(
            epochs=self.mae_epochs,
            batch=128,
            rate=self.mae_rate,
            optimizer=AdamW(),
            warmup=self.mae_warmup,
        )
        return SameRecipe(
            mae=MaeRecipe(layout=layout, ratios=self.mae_ratios, schedule=schedule),
            schedule=Schedule(epochs=self.auxiliary_epochs, batch=128, rate=1e-3),
        )


@dataclass(slots=True)
class Defense:
    """Fitted detectors of one victim.

    Attributes:
        detectors: by name.
        seconds: that each took to train, from nothing; those that share networks share them.
        own: what answers where a detector brings a victim of its own, by its name.
    """

    detectors: dict[str, Detector] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    own: dict[str, Callable[[Images], Probabilities]] = field(default_factory=dict)

    @property
    def same(self) -> Same:
        """Return SAME as published."""
        found = self.detectors["same"]
        assert isinstance(found, Same)
        return found

    def restore(self, images: Images) -> Images:
        """Return (n, c, h, w) images as SAME's autoencoder restores them three times over."""
        for _ in range(3):
            parts = [images[start : start + 256] for start in range(0, len(images), 256)]
            made = [self.same.reconstruction.run(part)[RESTORED] for part in parts]
            images = np.clip(np.concatenate(made), 0, 1)
        return images
