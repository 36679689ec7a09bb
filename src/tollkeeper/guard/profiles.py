"""Guard profiles: named sets of constants, each with its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard.field import Field
from tollkeeper.guard.layout import Layout
from tollkeeper.guard.noise import Fresh, Keyed, Noise
from tollkeeper.guard.orthogonal import Orthogonal
from tollkeeper.guard.planes import Gaussian, PlaneFamily, Rotated
from tollkeeper.guard.price import Exponential, Free, Geometric, PriceCurve
from tollkeeper.guard.transform import DenseAffine, TransformFamily, Unchanged


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything a guard decides by, except secrets and calibration.

    Attributes:
        name: what the operator writes.
        version: grows when a constant changes; derived secrets change with it.
        tables: hash tables per sketch; 0 measures nothing and charges nothing.
        bits: hyperplanes per table, 1 to 16.
        planes: how hyperplanes are drawn.
        landmarks: calibration embeddings whose cells the price reads; 0 reads the tables.
        samples: hashes of fine cells that a sketch keeps, as evidence of shared inputs.
        ceiling: price signal from which on inputs that open a bucket are refused; None never.
        centered: split at the calibration sample's medians; otherwise at 0 (raw features).
        price: coverage to noise scale.
        in_feature_std: the price is in units of the encoder's feature std; otherwise absolute.
        noise: how noise is drawn.
        keeps_norm: noisy answers get the clean embedding's norm, which would otherwise
            tell the noise scale.
        transform: family of per-tenant transforms.
    """

    name: str
    version: int
    tables: int
    bits: int
    planes: PlaneFamily
    centered: bool
    price: PriceCurve
    in_feature_std: bool
    noise: Noise
    keeps_norm: bool
    transform: TransformFamily
    landmarks: int = 0
    ceiling: float | None = None
    samples: int = 0

    def with_knee(self, knee: float | None) -> Profile:
        """Return this profile with the knee of a calibration; itself where there is none to set.

        A ceiling moves up where the last price level would begin above it.
        """
        if knee is None or not isinstance(self.price, Geometric):
            return self
        price = replace(self.price, knee=knee)
        ceiling = self.ceiling
        if ceiling is not None:
            ceiling = min(1.0, max(ceiling, knee + price.levels * price.step))
        return replace(self, price=price, ceiling=ceiling)

    @property
    def layout(self) -> Layout:
        """How sketches are laid out."""
        return Layout(self.tables, self.bits, self.landmarks, self.samples)

    @property
    def needs_calibration(self) -> bool:
        """Whether the constants mean nothing without the encoder's statistics."""
        return self.centered or self.in_feature_std or self.landmarks > 0

    def __post_init__(self) -> None:
        """Refuse impossible settings, all of them in one message."""
        wrong = []
        if not self.name:
            wrong.append("name: expected some text")
        if self.version < 1:
            wrong.append(f"version: expected at least 1, got {self.version}")
        if not 0 <= self.tables <= 256:
            wrong.append(f"tables: expected 0 to 256, got {self.tables}")
        if not 1 <= self.bits <= 16:
            wrong.append(f"bits: expected 1 to 16, got {self.bits}")
        wrong.extend(self._wrong_parts())
        if self.ceiling is not None and not 0 < self.ceiling <= 1:
            wrong.append(f"ceiling: expected a share in (0, 1] or None, got {self.ceiling}")
        if self.tables << max(0, self.bits) > 1 << 24:
            wrong.append("tables and bits: expected at most 2**24 buckets in all")
        if isinstance(self.noise, Keyed | Field) and isinstance(self.price, Exponential):
            wrong.append("noise: keyed noise needs a price with levels, or each answer differs")
        if wrong:
            raise ConfigurationError(f"profile {self.name!r}: " + "; ".join(wrong))

    def _wrong_parts(self) -> list[str]:
        return [
            f"{name}: expected 0 to 4,096, with tables to tell new inputs by, got {count}"
            for name, count in (("landmarks", self.landmarks), ("samples", self.samples))
            if not 0 <= count <= 4096 or (count and not self.tables)
        ]


B4B_2023: Final = Profile(
    name="b4b-2023",
    version=1,
    # 20 projections of 12 random signs, 4,096 buckets each: paper section 3.1, and
    # `end2end-stealing/buckets.py` of the released code.
    tables=20,
    bits=12,
    planes=Gaussian(),
    # The code hashes the victim's raw outputs.
    centered=False,
    # λ = 1e-6, α = 1, β = 80 %: the paper's figure of the cost function (section 3.2). The
    # released scripts run λ = 1e-7 and the code's defaults say α = 0.8.
    price=Exponential(flatness=1e-6, level=1.0, target=0.80),
    in_feature_std=False,
    noise=Fresh(),
    keeps_norm=False,
    # The end-to-end experiment's dense "affine". There the first account is untransformed
    # and extra accounts are transformed; a service cannot tell which is which, so here
    # every tenant has its own. `dataclasses.replace` selects the remap study's families.
    transform=DenseAffine(),
)

RECOMMENDED: Final = Profile(
    name="recommended",
    version=2,
    # As B4B; they tell new inputs from old ones and one pool from another. A sketch is 11,296
    # bytes with landmarks and samples.
    tables=20,
    bits=12,
    # Fewer operations than the dense product (docs/decisions/0010), same collisions
    # (tests/guard/test_planes.py).
    planes=Rotated(),
    centered=True,
    # The price reads the share of landmarks visited: at one honest ceiling a broad account gets
    # a fraction of the free inputs that plain coverage gives it (docs/decisions/0018 and
    # `guard-figures`: free_at_ceiling.*). More than 256 separate no better and cost time, fewer
    # are filled by a narrow task's stray inputs.
    landmarks=256,
    # Knee: an account that asks all of Banking77 ends below it with each of 20 secrets
    # (`guard-coverage`: coverage.text.recommended.narrow.all); `tollkeeper calibrate --traffic`
    # chooses another from a provider's own customers.
    # First level and growth: paying starts softly and bites at the second level
    # (`guard-coverage`: recall10_at_level.*.recommended.l*). Growth by 4, and not by 2, leaves
    # three quarters of the noise in the best combination of near-duplicates over all levels
    # (tests/guard/test_field.py).
    # Step: the last level begins just below the ceiling; a broad account that goes on passes a
    # level every few dozen inputs.
    price=Geometric(knee=0.84, first=0.125, step=0.03, levels=4, growth=4.0),
    in_feature_std=True,
    # Shared by near-duplicates and shaped like the embeddings (docs/decisions/0019).
    noise=Field(),
    keeps_norm=True,
    transform=Orthogonal(),
    # After the last level: an account that has been nearly everywhere gets nothing new.
    ceiling=0.97,
    # A share of 1/32 is seen in 8 of them on average, and a sketch with the transform's secrets
    # stays within 16 KB (tests/guard/test_guard.py); `guard-pools` measures what they tell.
    samples=256,
)

CHEAPEST: Final = Profile(
    name="cheapest",
    version=1,
    # Small enough that a test reaches every level with a few dozen inputs.
    tables=4,
    bits=6,
    planes=Rotated(),
    centered=True,
    price=Geometric(knee=0.2, first=0.5, step=0.1, levels=4),
    in_feature_std=True,
    noise=Keyed(),
    keeps_norm=True,
    transform=Orthogonal(),
    samples=32,
)

NONE: Final = Profile(
    name="none",
    version=1,
    tables=0,
    bits=1,
    planes=Gaussian(),
    centered=False,
    price=Free(),
    in_feature_std=False,
    noise=Fresh(),
    keeps_norm=False,
    transform=Unchanged(),
)

_PROFILES: Final = {profile.name: profile for profile in (RECOMMENDED, B4B_2023, CHEAPEST, NONE)}
NAMES: Final = tuple(_PROFILES)
"""Names of all profiles, the default first."""


def get(name: str) -> Profile:
    """Return the profile with this name.

    Raises:
        ConfigurationError: there is none; lists those there are.
    """
    try:
        return _PROFILES[name]
    except KeyError:
        raise ConfigurationError(
            f"expected a guard profile of {', '.join(NAMES)}, got {name!r}"
        ) from None
