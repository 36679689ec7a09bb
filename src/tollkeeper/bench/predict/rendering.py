"""How scans became MNIST and EMNIST pictures, to tell the rendering of a query from its content.

Sources: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998 (MNIST: fit
into 20x20, gray by anti-aliasing, centered by mass); Cohen et al., "EMNIST: Extending MNIST to
Handwritten Letters", 2017 (blur, fit into 24x24, centered by its box).
Notes: the scans are not at hand, so a picture is enlarged and cut at a gray level instead.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tollkeeper.types import Images

SIDE = 28
_SCAN = 112
_FAINT = 0.125
"""Gray that resizing leaves around strokes; what the examples have less of is snapped to zero."""

_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MNIST_BOX, _EMNIST_BOX, _EMNIST_BLUR, _EMNIST_SCAN = 20, 24, 1.0, 128


def like_mnist(images: Images, examples: Images) -> Images:
    """Return (n, 1, 28, 28) pictures rendered as MNIST's were.

    The gray level at which strokes are cut, and so their width, is the one that brings the mean
    ink closest to that of `examples`.

    Args:
        images: (n, 1, 28, 28) in [0, 1].
        examples: (m, 1, 28, 28) of MNIST that the thief holds.
    """
    wanted, sample = float(examples.mean()), images[:100]
    level = min(_LEVELS, key=lambda one: abs(float(_mnist(sample, one).mean()) - wanted))
    drawn = _mnist(images, level)
    return np.where(drawn < _cut(drawn, examples), np.float32(0), drawn)


def leveled(images: Images, examples: Images) -> Images:
    """Return images (n, c, h, w) with the pixel levels of examples.

    Each keeps the order of its pixels and gets the sorted values of the example whose sorted values
    are closest to its own.

    Args:
        images: in [0, 1].
        examples: (m, c, h, w) of files, and so of 256 levels.
    """
    flat = images.reshape(len(images), -1)
    order = np.argsort(flat, axis=1, kind="stable")
    mine = np.take_along_axis(flat, order, axis=1)
    theirs = np.sort(examples.reshape(len(examples), -1), axis=1)
    # Of the squared distance, what depends on the example.
    nearest = (np.square(theirs).sum(axis=1) - 2 * mine @ theirs.T).argmin(axis=1)
    found = np.empty_like(flat)
    np.put_along_axis(found, order, theirs[nearest], axis=1)
    return found.reshape(images.shape)


def _cut(drawn: Images, examples: Images) -> float:
    """Return below which value ink is dropped, so that as much faint ink is left as in examples."""
    faint, like = (part[(part > 0) & (part < _FAINT)] for part in (drawn, examples))
    too_many = len(faint) / drawn.size - len(like) / examples.size
    if too_many <= 0:
        return 0.0
    return float(np.quantile(faint, too_many * drawn.size / len(faint)))


def like_emnist(images: Images) -> Images:
    """Return (n, 1, 28, 28) pictures rendered as EMNIST's were."""
    blurred = _blurred(_scans(images, _EMNIST_SCAN, 0.5), _EMNIST_BLUR)
    return _each(blurred, lambda scan: _centered(_fitted(scan, _EMNIST_BOX)))


def _mnist(images: Images, level: float) -> Images:
    scans = _scans(images, _SCAN, level)
    return _each(scans, lambda scan: _by_mass(_fitted(scan, _MNIST_BOX)))


def _scans(images: Images, side: int, level: float) -> Tensor:
    """Return (n, 1, side, side) of ink and paper only."""
    large = functional.interpolate(
        torch.from_numpy(images), size=(side, side), mode="bicubic", align_corners=False
    )
    return (large > level).float()


def _each(scans: Tensor, render: Callable[[Tensor], Tensor]) -> Images:
    found: Images = np.zeros((len(scans), 1, SIDE, SIDE), np.float32)
    for place, scan in enumerate(scans):
        # A picture without ink stays blank.
        if scan.max() > 0:
            found[place, 0] = render(scan[0]).clamp(0, 1).numpy()
    return found


def _fitted(scan: Tensor, box: int) -> Tensor:
    """Return the ink's box resized, keeping its shape, so that the longer side is `box`."""
    rows, columns = (torch.nonzero(scan.sum(dim=axis) > 0.01).flatten() for axis in (1, 0))
    cut = scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(cut.shape)
    size = tuple(max(1, round(scale * side)) for side in cut.shape)
    return functional.interpolate(cut[None, None], size=size, mode="bilinear", antialias=True)[0, 0]


def _centered(ink: Tensor) -> Tensor:
    h, w = ink.shape
    return _placed(ink, (SIDE - h) // 2, (SIDE - w) // 2)


def _by_mass(ink: Tensor) -> Tensor:
    """Place ink so that its center of mass is the picture's center, as far as it fits."""
    tops = []
    for axis in (0, 1):
        along = ink.sum(dim=1 - axis)
        mean = float((along * torch.arange(len(along))).sum() / along.sum())
        tops.append(min(max(0, round(SIDE / 2 - 0.5 - mean)), SIDE - len(along)))
    return _placed(ink, tops[0], tops[1])


def _placed(ink: Tensor, top: int, left: int) -> Tensor:
    picture = torch.zeros(SIDE, SIDE)
    picture[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return picture


def _blurred(scans: Tensor, sigma: float) -> Tensor:
    reach = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    across = functional.conv2d(scans, kernel.view(1, 1, 1, -1), padding=(0, 3))
    return functional.conv2d(across, kernel.view(1, 1, -1, 1), padding=(3, 0))
