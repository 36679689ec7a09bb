"""A served mark: from a copy one can tell which tenant's answers it was trained on.

A marked tenant's embeddings are displaced by a small secret function of the clean embedding,
before its transform:

    m(x) = s (|Q (x - mean) / std| - c) G

with a secret rotation Q of the tenant, of which k coordinates are folded at zero, and secret
directions G of the deployment. Folds are not linear, so no change of basis undoes them, and a
network learns them with the rest of the embedding. G lies mostly along directions in which
embeddings differ least: there a displacement that hardly moves any neighbor is large beside what
the embedding itself says, and beside what a copy gets wrong. The size s is chosen on the
calibration's sample, so that distances to neighbors keep their order.

Where answers carry noise, a share of its variance is a second sum of the same folds, along all
directions in which embeddings differ: an account that pays gets as much noise as without a mark,
and in it far more of a mark than neighbors would leave unnoticed below the knee.

Sources: ours. That a global linear mark cannot be told from an honest change of basis is the
lesson of linear transformation watermarks of text services ("WET", ACL 2025); hence folds.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import GuardError
from tollkeeper.guard import draws
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.keys import derive
from tollkeeper.guard.orthogonal import Orthogonal, OrthogonalMap
from tollkeeper.guard.scaling import norms_of, with_norms
from tollkeeper.types import Embeddings

LEAST_WIDTH = 16
"""Below it, rotations do not mix all coordinates, and there are few of them."""

_LEAST_SAMPLE = 32
_NEIGHBORS = 10
_COUNTED = 0.01
_HALVINGS = 10
_EVERYWHERE = 1e9
"""A floor that no direction reaches."""
_STEPS = 16
_MEMO = 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """The constants of a mark.

    Attributes:
        folds: k, coordinates that are folded; no more than the width.
        floor: variance, relative to the mean over directions, from which on a direction carries
            less of the mark: half of it there, and the less the more it varies.
        exchanged: share of the ten nearest neighbors in the calibration's sample that others
            take the place of; sets the size of the mark.
        most: largest size, relative to what embeddings vary in a direction below the floor.
        cap: folded coordinates beyond so many standard deviations count as this.
        share: of the noise's variance, in answers that carry noise, that is the tenant's own.
    """

    folds: int = 64
    floor: float = 0.01
    exchanged: float = 4e-4
    most: float = 0.3
    cap: float = 3.0
    share: float = 0.25

    def of(self, calibration: Calibration, secret: bytes, version: str) -> Marker:
        """Derive the deployment's part.

        Args:
            calibration: of the encoder; its sample shows where embeddings differ.
            secret: of the deployment.
            version: of the profile; another one has other marks.

        Raises:
            GuardError: the width or the sample is too small.
        """
        dim, count = calibration.dim, len(calibration.sample)
        if dim < LEAST_WIDTH or count < _LEAST_SAMPLE:
            raise GuardError(
                f"expected embeddings of at least {LEAST_WIDTH} numbers and a calibration sample "
                f"of at least {_LEAST_SAMPLE} to mark tenants, got {dim} and {count}; calibrate "
                "on a sample, or mark nobody"
            )
        folds = min(self.folds, dim)
        whole = _directions(
            calibration, folds, self.floor, derive(secret, "mark-directions", version)
        )
        key = derive(secret, "mark-surcharge", version)
        paid = _directions(calibration, folds, _EVERYWHERE, key) * math.sqrt(self.share)
        probe = Marker(
            calibration,
            self.cap,
            self.share,
            whole.astype(np.float32),
            paid.astype(np.float32),
            version,
        )
        moved = probe(calibration.sample, key=derive(secret, "mark-size", version))
        size = min(self.most, _size(calibration.sample, moved, self.exchanged))
        return replace(probe, directions=(whole * _rounded(size)).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Marker:
    """Marks the tenants of one deployment.

    Attributes:
        calibration: of the encoder.
        cap: see `Mark`.
        share: see `Mark`.
        directions: G with its size, (k, d) float32.
        paid: the same of noise of one feature standard deviation.
        version: of the profile.
    """

    calibration: Calibration
    cap: float
    share: float
    directions: NDArray[np.float32]
    paid: NDArray[np.float32]
    version: str

    def folds(self, clean: Embeddings, *, key: bytes) -> Embeddings:
        """Return (n, k) folded coordinates; a row depends on a tenant's key and itself alone."""
        scale = np.float32(1 / self.calibration.feature_std)
        centered = (clean - self.calibration.mean) * scale
        turned = _rotation(key, self.version, self.calibration.dim)(centered)
        turned = turned[:, : len(self.directions)]
        folded: Embeddings = np.minimum(np.abs(turned), np.float32(self.cap))
        folded -= np.float32(_MEAN_FOLD)
        return folded

    def __call__(
        self, clean: Embeddings, *, key: bytes, noise: NDArray[np.float64] | None = None
    ) -> Embeddings:
        """Return (n, d) displacements of (n, d) clean embeddings.

        Args:
            clean: embeddings.
            key: of the tenant.
            noise: (n,) scales of the noise in the answers, in feature standard deviations.
        """
        folds = self.folds(clean, key=key)[:, None, :]
        # Products of fixed shape for each row, so its bytes do not depend on the batch.
        moved: Embeddings = np.matmul(folds, self.directions)[:, 0, :]
        if noise is not None and noise.any():
            paying = np.flatnonzero(noise)
            more = np.matmul(folds[paying], self.paid)[:, 0, :]
            moved[paying] += more * noise[paying].astype(np.float32)[:, None]
        return moved

    def apply(
        self,
        answers: Embeddings,
        clean: Embeddings,
        *,
        key: bytes,
        noise: NDArray[np.float64] | None = None,
    ) -> Embeddings:
        """Return (n, d) answers displaced as their clean embeddings say, of unchanged norms."""
        return with_norms(answers + self(clean, key=key, noise=noise), norms_of(answers))


_MEAN_FOLD = math.sqrt(2 / math.pi)
"""Mean size of a standard normal number: what a fold adds to every embedding is taken away."""


def _directions(
    calibration: Calibration, folds: int, floor: float, key: bytes
) -> NDArray[np.float64]:
    """Return (k, d) directions: random sums of the sample's arms, damped where these are long.

    Folds of variance 1 displace along an eigenvector of the sample's covariance, of variance v,
    by about sqrt(v) f / (f + v), where f is the floor.
    """
    arms = calibration.sample.astype(np.float64) - calibration.mean
    count = len(arms)
    floor *= float(np.square(arms).sum()) / arms.size
    # A (A'A/m + f)^-1 = (AA'/m + f)^-1 A, which is the smaller system where m < d.
    damped = np.linalg.solve(arms @ arms.T / count + floor * np.eye(count), floor * arms)
    signs = np.unpackbits(draws.integers(key, -(-folds * count // 8), bits=8), count=folds * count)
    mixed: NDArray[np.float64] = (1.0 - 2.0 * signs.reshape(folds, count)) @ damped
    spread = math.sqrt(1 - 2 / math.pi)  # standard deviation of a fold
    return mixed / (math.sqrt(count * folds) * spread)


def _size(rows: Embeddings, moved: Embeddings, exchanged: float) -> float:
    """Return the size of (m, d) displacements at which a share of neighbors is exchanged.

    So few exchanges cannot be counted in a sample, so the size at which a hundredth is exchanged
    is found first; below it the share falls with the size.
    """
    near = _nearest(rows)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        size = (low + high) / 2
        found = _nearest(rows + np.float32(size) * moved)
        kept = (near[:, :, None] == found[:, None, :]).any(axis=2).mean()
        low, high = (size, high) if 1 - kept < _COUNTED else (low, size)
    return high * exchanged / _COUNTED


def _nearest(rows: Embeddings) -> NDArray[np.intp]:
    """Return each of (m, d) rows' ten nearest others by cosine, (m, 10)."""
    wide = rows.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    cosines = wide @ wide.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, _NEIGHBORS, axis=1)[:, :_NEIGHBORS]


def _rounded(size: float) -> float:
    """Return a size with 4 binary digits, alike on machines that round products differently."""
    mantissa, exponent = math.frexp(size)
    return math.ldexp(math.floor(mantissa * _STEPS) / _STEPS, exponent)


@functools.lru_cache(maxsize=_MEMO)
def _rotation(key: bytes, version: str, dim: int) -> OrthogonalMap:
    """Return a tenant's rotation; a cache of a pure function."""
    return Orthogonal().for_tenant(derive(key, "mark", version), dim)
