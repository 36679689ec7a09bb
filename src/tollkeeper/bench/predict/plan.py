"""How large the prediction experiments are: one plan for each data set and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tollkeeper.bench.predict.defenders import Fitting
from tollkeeper.bench.predict.scene import CASTS, Sizes
from tollkeeper.bench.predict.streams import Copying
from tollkeeper.bench.predict.victims import Training
from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one data set's part of an experiment.

    Attributes:
        sizes: images of each part.
        training: of the victim.
        fitting: of the detectors.
        copying: of the copies.
        budgets: queries at which thieves are judged, ascending.
        adaptive: queries of the thieves who know the detector.
        resamples: of the bootstrap.
    """

    sizes: Sizes
    training: Training
    fitting: Fitting
    copying: Copying
    budgets: tuple[int, ...]
    adaptive: int
    resamples: int = 1000

    def check(self, dataset: str) -> None:
        """Refuse budgets without honest users of the same number.

        Raises:
            ConfigurationError: names what is expected.
        """
        most, sizes = max(self.budgets), self.sizes
        if dataset not in CASTS:
            raise ConfigurationError(f"no scene of {dataset!r}; choose from {', '.join(CASTS)}")
        if most > sizes.honest or min(self.budgets) <= sizes.seeds or most > sizes.pool:
            raise ConfigurationError(
                f"expected budgets above {sizes.seeds} seeds and up to {sizes.honest} honest and "
                f"{sizes.pool} pool images, got {self.budgets} for {dataset}"
            )


Plans = Mapping[str, Plan]

_TINY = Plan(
    Sizes(
        train=300,
        honest=80,
        reference=800,
        calibration=500,
        seeds=20,
        insider=60,
        pool=80,
        outside=120,
    ),
    Training(width=8, epochs=8, batch=32),
    Fitting(
        mae_epochs=2,
        mae_warmup=1,
        mae_width=16,
        mae_encoder=1,
        anchors=5,
    ),
    Copying(width=4, epochs=2, rounds=1),
    budgets=(40, 80),
    adaptive=40,
    resamples=50,
)

SMOKE: Plans = {
    "mnist": _TINY,
    "cifar10": replace(_TINY, fitting=replace(_TINY.fitting, fused_patch=8)),
}

_DIGITS = Plan(
    Sizes(
        train=7000,
        honest=4000,
        reference=4000,
        calibration=2000,
        seeds=200,
        insider=1000,
        pool=4000,
        outside=7000,
    ),
    Training(),
    Fitting(),
    Copying(),
    budgets=(1000, 4000),
    adaptive=1000,
)

_PHOTOS = Plan(
    Sizes(
        train=10_000,
        honest=10_000,
        reference=4000,
        calibration=2000,
        seeds=200,
        insider=1000,
        pool=10_000,
        outside=7000,
    ),
    Training(epochs=10, batch=64, augment=True),
    Fitting(
        mae_epochs=16,
        mae_warmup=2,
        fused_patch=8,
    ),
    Copying(),
    budgets=(6000, 10_000),
    adaptive=1000,
)

CPU: Plans = {"mnist": _DIGITS, "cifar10": _PHOTOS}

_PAPER = Fitting(
    mae_epochs=500,
    mae_warmup=50,
    mae_rate=1e-3,
    mae_width=192,
    mae_patch=2,
    mae_encoder=12,
    mae_decoder=4,
    mae_heads=3,
    edm_members=5,
)

GPU: Plans = {
    "mnist": replace(
        _DIGITS,
        sizes=replace(_DIGITS.sizes, train=50_000),
        training=Training(width=32, epochs=20),
        fitting=_PAPER,
        copying=Copying(width=32, epochs=50),
    ),
    "cifar10": replace(
        _PHOTOS,
        sizes=replace(_PHOTOS.sizes, train=12_000),
        training=Training(network="resnet18", epochs=20, rate=0.1, augment=True),
        fitting=replace(_PAPER, fused_patch=8),
        copying=Copying(width=32, epochs=50),
    ),
}
"""The paper's networks, and its epochs but for the auxiliary model, which has the victim's; of
CIFAR-10 30,000 images are at hand, not 60,000, and what honest users ask leaves 12,000. Masks are
drawn as at the other scales, and the rate is a tenth of the paper's, at which it learned nothing
in a small run."""
