"""The victim behind its live guard, as experiments ask it: one encoder per account.

What answers is the service of the gateway over a ledger in memory. It charges each account
for each input before the answer leaves; nothing is computed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Self

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.pools import pool_key
from tollkeeper.gateway.view import View
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.noise import Fresh
from tollkeeper.guard.planes import Gaussian
from tollkeeper.guard.price import Exponential
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.transform import DenseAffine, TransformFamily
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.types import Account


class GuardedVictim:
    """One deployment of a guarded encoder; a context manager.

    Attributes:
        profile: of its guard.
        calibration: of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        profile: Profile,
        calibration: Calibration,
        *,
        secret: bytes,
        clock: Callable[[], float],
        rng: np.random.Generator,
        marked: Collection[str] = (),
    ) -> None:
        """Open the service; no account has asked anything yet.

        Args:
            encoder: the clean encoder; a `CachedEncoder` where inputs are asked repeatedly.
            profile: constants of the guard.
            calibration: of the encoder.
            secret: at least 16 bytes; another one is another deployment.
            clock: seconds, for the ledger's records.
            rng: fresh noise, for profiles that use it.
            marked: accounts whose answers carry their mark; `*` is all.

        Raises:
            GuardError: the secret is too short, or the calibration does not do for marks.
        """
        self.profile = profile
        self.calibration = calibration
        self._guard = Guard(profile, calibration, secret=secret)
        self._ledger = MemoryLedger()
        self._service = make_service(
            encoder,
            self._guard,
            self._ledger,
            clock=clock,
            rng=rng,
            metrics=Metrics(),
            marked=marked,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all accounts; their encoders fail with LedgerError from then on."""
        self._ledger.close()

    def account(self, name: str) -> View:
        """Return the victim as the account `name` sees it; the same name is the same account."""
        return View(self._service, Account(tenant=name, key_id=name, pool=name))

    def coverage(self, name: str) -> float:
        """Return the share of buckets that an account has visited, in [0, 1]."""
        entry = self._ledger.read(pool_key(name, self._guard.fingerprint))
        return self._guard.fraction(self._guard.load(entry.sketch))

    def noise(self, name: str) -> float:
        """Return the noise scale at which an account stands, in feature standard deviations.

        It is that of the account's last answer.
        """
        scale = float(self.profile.price(np.array([self.coverage(name)]))[0])
        return scale if self.profile.in_feature_std else scale / self.calibration.feature_std


def scaled_b4b(
    *, bits: int = 10, projections: int = 20, transform: TransformFamily | None = None
) -> Profile:
    """Return B4B for encoders and budgets that fit a processor; for experiments, not for serving.

    Price law, fresh noise, projections and transforms are those of `b4b-2023`. Three things
    differ, because without them the guard does nothing at this scale: the hash splits at the
    calibration sample's medians (raw features of one orthant share few buckets), noise is in
    units of the encoder's feature standard deviation (the paper's scale is absolute), and
    2**10 buckets a projection instead of 2**12: 12,500 queries fill them as 50,000 fill the
    paper's, 12.2 queries a bucket.

    Args:
        bits: hyperplanes a projection.
        projections: independent projections.
        transform: family of per-account transforms; None is the paper's dense affine.

    Raises:
        ConfigurationError: a number out of range.
    """
    return Profile(
        name="b4b-scaled",
        version=1,
        tables=projections,
        bits=bits,
        planes=Gaussian(),
        centered=True,
        price=Exponential(flatness=1e-6, level=1.0, target=0.80),
        in_feature_std=True,
        noise=Fresh(),
        keeps_norm=False,
        transform=transform or DenseAffine(),
    )
