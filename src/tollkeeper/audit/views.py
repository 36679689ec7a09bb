"""Random views of images from a committed seed: the same ones for every encoder.

What is drawn for a view depends on the seed, the view's number and the image's id alone, so a
suspect can be asked in any order, in parts, and again, and gets the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.errors import AuditRefused, ConfigurationError

Pictures = NDArray[np.uint8] | NDArray[np.float32]
"""(n, h, w, c) uint8, or (n, c, h, w) float32 in [0, 1]."""

_SEED_LIMIT = 1 << 64
_AT_A_TIME = 64
"""Images worked on together: few enough to stay in the processor's cache."""

_NUMBERS = 5
"""Drawn per view before the noise: area, row, column, flip, brightness."""


@dataclass(frozen=True, slots=True)
class Views:
    """K views of each image: crop, flip, brightness, noise.

    Mild augmentation is what leaves a signal (method spec, section 11.1, whose values these are).

    Attributes:
        seed: committed, in [0, 2^64).
        k: views per image, at least 2.
        area: range of the share of the image that is cut out and resized to all of it; positions
            beyond the border are reflected.
        flip: probability to be mirrored.
        brightness: factors are uniform in 1 -+ this.
        noise: standard deviation of Gaussian noise, of pixels in [0, 1].
    """

    seed: int
    k: int = 6
    area: tuple[float, float] = (0.6, 1.0)
    flip: float = 0.5
    brightness: float = 0.2
    noise: float = 0.05

    def __post_init__(self) -> None:
        """Refuse settings that make no views."""
        wrong = [
            text
            for good, text in (
                (0 <= self.seed < _SEED_LIMIT, f"a seed in [0, 2^64), got {self.seed}"),
                (self.k >= 2, f"two or more views, got {self.k}"),
                (0 < self.area[0] <= self.area[1] <= 1, f"areas in (0, 1], got {self.area}"),
                (0 <= self.flip <= 1, f"a probability to flip, got {self.flip}"),
                (0 <= self.brightness < 1, f"brightness in [0, 1), got {self.brightness}"),
                (self.noise >= 0, f"noise of at least 0, got {self.noise}"),
            )
            if not good
        ]
        if wrong:
            raise ConfigurationError("expected " + "; ".join(wrong))

    def make(self, images: Pictures, view: int, ids: ArrayLike | None = None) -> Pictures:
        """Return one view of each image, of the type and shape of the images.

        Args:
            images: (n, h, w, c) uint8, or (n, c, h, w) float32 in [0, 1].
            view: its number, from 0 to k - 1.
            ids: (n,) what the images are called, in [0, 2^63); None numbers them from 0.

        Raises:
            AuditRefused: no such images, view or ids.
        """
        check_pictures(images)
        names = np.arange(len(images)) if ids is None else np.asarray(ids)
        if names.shape != (len(images),) or (names.size and int(names.min()) < 0):
            raise AuditRefused(
                f"expected {len(images)} ids of at least 0, got shape {names.shape}; give one for "
                "each image"
            )
        if not 0 <= view < self.k:
            raise AuditRefused(f"expected a view from 0 to {self.k - 1}, got {view}")
        made = np.empty_like(images)
        for at in range(0, len(images), _AT_A_TIME):
            part = slice(at, at + _AT_A_TIME)
            made[part] = self._view(images[part], names[part], view)
        return made

    def _view(self, images: Pictures, names: NDArray[np.int64], view: int) -> Pictures:
        last = images.dtype == np.uint8
        planes = (images if last else np.moveaxis(images, 1, 3)).astype(np.float32, order="C")
        draws, noise = self._draw(names, view, planes.shape[1:])
        made = self._crop(planes, draws)
        made *= (1 + self.brightness * (2 * draws[:, 4] - 1))[:, None, None, None]
        unit = 255 if last else 1
        noise *= self.noise * unit
        made += noise
        np.clip(made, 0, unit, out=made)
        return np.rint(made).astype(np.uint8) if last else np.moveaxis(made, 3, 1)

    def _draw(
        self, names: NDArray[np.int64], view: int, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (n, 5) uniform numbers and (n, ...) standard normal noise."""
        uniform = np.empty((len(names), _NUMBERS), np.float32)
        noise = np.empty((len(names), *shape), np.float32)
        for row, name in enumerate(names.tolist()):
            # A counter's high words name the stream, so no two draws ever share numbers.
            bits = np.random.Philox(key=self.seed, counter=[0, 0, view, name])
            rng = np.random.Generator(bits)
            rng.random(dtype=np.float32, out=uniform[row])
            if self.noise:
                rng.standard_normal(dtype=np.float32, out=noise[row])
        if not self.noise:
            noise[:] = 0
        return uniform, noise

    def _crop(self, planes: NDArray[np.float32], draws: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = self.area
        side = np.sqrt(low + (high - low) * draws[:, 0])
        rows = _positions(planes.shape[1], side, draws[:, 1])
        columns = _positions(planes.shape[2], side, draws[:, 2])
        flipped = draws[:, 3] < self.flip
        columns[flipped] = columns[flipped, ::-1]
        return _resampled(_resampled(planes, rows).swapaxes(1, 2), columns).swapaxes(1, 2)


def check_pictures(images: Pictures) -> None:
    """Refuse what are no images.

    Raises:
        AuditRefused: another type or shape, or values that are NaN or outside [0, 1].
    """
    kinds = {"uint8": "(n, h, w, c)", "float32": "(n, c, h, w)"}
    if not isinstance(images, np.ndarray) or images.ndim != 4 or str(images.dtype) not in kinds:
        what = f"{getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
        raise AuditRefused(
            f"expected images (n, h, w, c) uint8 or (n, c, h, w) float32 in [0, 1], got {what}"
        )
    if images.dtype == np.float32 and images.size:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise AuditRefused(f"expected float32 images in [0, 1], got values {low} to {high}")


def _positions(
    pixels: int, side: NDArray[np.float32], start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (n, pixels) positions in the image of the pixels of a stretch of length `side`."""
    centers = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    # Rounding of 1 - side must not move a stretch of the whole image.
    free = np.maximum(1 - side, 0)
    shares = (free * start)[:, None] + side[:, None] * centers
    return (shares * pixels - 0.5).astype(np.float32, copy=False)


def _resampled(planes: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of (n, h, ...) images at (n, m) positions, linear between neighbors."""
    h = planes.shape[1]
    floor = np.floor(at)
    share = (at - floor).reshape(*at.shape, *(1,) * (planes.ndim - 2))
    below = floor.astype(np.intp)
    image = np.arange(len(planes))[:, None]
    # Half a pixel beyond the border lies its mirror image: the outermost pixel again.
    first = planes[image, np.clip(below, 0, h - 1)]
    second = planes[image, np.clip(below + 1, 0, h - 1)]
    second -= first
    second *= share
    second += first
    return second
