"""What an active thief asks next: where the copy is unsure, far from what is known, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tollkeeper.attacks.classifier.copies import probabilities
from tollkeeper.types import Images, Probabilities

_TINY = 1e-12
_TOGETHER = 256
_SPARE = 2
"""Pictures looked at for each one wanted, at the least: choosing all of a subset is no choice."""


class Choice(Protocol):
    """Chooses among n pictures of a pool; a frozen dataclass."""

    def __call__(
        self,
        network: nn.Module,
        pool: Images,
        known: Images,
        count: int,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return up to `count` distinct positions in the pool, best first.

        Args:
            network: the copy so far.
            pool: (n, c, h, w) not asked yet.
            known: (m, c, h, w) asked already.
            count: at least 1.
            rng: for choices with draws.
        """
        ...


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """The pictures whose answer by the copy has the largest entropy."""

    def __call__(
        self,
        network: nn.Module,
        pool: Images,
        known: Images,
        count: int,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return positions in the pool."""
        del known, rng
        said = probabilities(network, pool)
        entropy = -(said * np.log(np.maximum(said, _TINY))).sum(axis=1)
        return np.argsort(-entropy, kind="stable")[:count]


@dataclass(frozen=True, slots=True)
class FarFromKnown:
    """Greedy k-center in the space of the copy's probabilities, from what is known."""

    def __call__(
        self,
        network: nn.Module,
        pool: Images,
        known: Images,
        count: int,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return positions in the pool."""
        del rng
        return k_center(probabilities(network, pool), probabilities(network, known), count)


@dataclass(frozen=True, slots=True)
class DeepFoolNearest:
    """The pictures that the least change takes to another class (DFAL).

    Attributes:
        subset: pictures of the pool that are looked at, drawn at random; where it holds fewer
            than twice what is wanted, twice what is wanted.
        iterations: of DeepFool.
    """

    subset: int = 10_000
    iterations: int = 20

    def __call__(
        self,
        network: nn.Module,
        pool: Images,
        known: Images,
        count: int,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return positions in the pool."""
        del known
        looked = rng.permutation(len(pool))[: max(_SPARE * count, self.subset)]
        away = deepfool(network, pool[looked], iterations=self.iterations)
        return looked[np.argsort(away, kind="stable")[:count]]


@dataclass(frozen=True, slots=True)
class DeepFoolThenFar:
    """K-center among the pictures that the least change takes to another class.

    Attributes:
        near: how those are found.
        kept: how many of them, as a multiple of what is asked.
    """

    near: DeepFoolNearest = DeepFoolNearest()
    kept: int = 3

    def __call__(
        self,
        network: nn.Module,
        pool: Images,
        known: Images,
        count: int,
        *,
        rng: np.random.Generator,
    ) -> NDArray[np.intp]:
        """Return positions in the pool."""
        kept = self.near(network, pool, known, self.kept * count, rng=rng)
        said = probabilities(network, pool[kept])
        return kept[k_center(said, probabilities(network, known), count)]


def k_center(points: Probabilities, centers: Probabilities, count: int) -> NDArray[np.intp]:
    """Return up to `count` positions of points, each the farthest from centers and those before.

    Args:
        points: (n, k).
        centers: (m, k), at least one.
        count: how many.
    """
    nearest = np.full(len(points), np.inf)
    for center in centers:
        np.minimum(nearest, ((points - center) ** 2).sum(axis=1), out=nearest)
    chosen = np.empty(min(count, len(points)), np.intp)
    for place in range(len(chosen)):
        chosen[place] = latest = int(nearest.argmax())
        np.minimum(nearest, ((points - points[latest]) ** 2).sum(axis=1), out=nearest)
        nearest[latest] = -np.inf
    return chosen


def deepfool(
    network: nn.Module, images: Images, *, iterations: int = 20, overshoot: float = 0.01
) -> NDArray[np.float64]:
    """Return (n,) squared lengths of small changes that give n pictures another class.

    Source: Moosavi-Dezfooli et al., "DeepFool", CVPR 2016: to the nearest class boundary of the
    linearized network, again until the class changes. Notes: what moves is not clipped.
    """
    where = next(network.parameters()).device
    parts = torch.from_numpy(images.copy()).split(_TOGETHER)
    moved = [_moved(network, part.to(where), iterations) for part in parts]
    lengths = [change.flatten(1).double().square().sum(dim=1).cpu().numpy() for change in moved]
    found: NDArray[np.float64] = np.concatenate(lengths) * (1 + overshoot) ** 2
    return found


def _moved(network: nn.Module, images: Tensor, iterations: int, overshoot: float = 0.01) -> Tensor:
    """Return (n, c, h, w) changes to n pictures."""
    change = torch.zeros_like(images)
    with torch.no_grad():
        first = network(images).argmax(dim=1)
    active = torch.arange(len(images), device=images.device)
    for _ in range(iterations):
        here = (images[active] + (1 + overshoot) * change[active]).requires_grad_()
        logits = network(here)
        same = logits.argmax(dim=1) == first[active]
        if not same.any():
            break
        step = _boundary(logits, here, first[active])
        active, step = active[same], step[same]
        change[active] += step
    return change


def _boundary(logits: Tensor, here: Tensor, first: Tensor) -> Tensor:
    """Return (n, c, h, w) the way to the nearest boundary of the linearized network."""
    rows = torch.arange(len(first), device=here.device)
    slopes = torch.stack(
        [
            torch.autograd.grad(column.sum(), here, retain_graph=True)[0]
            for column in logits.unbind(dim=1)
        ],
        dim=1,
    )
    ways = slopes - slopes[rows, first][:, None]
    gaps = (logits - logits[rows, first][:, None]).detach().abs()
    lengths = ways.flatten(2).norm(dim=2).clamp_min(_TINY)
    ratios = gaps / lengths
    ratios[rows, first] = torch.inf
    nearest = ratios.argmin(dim=1)
    scale = (gaps + 1e-4)[rows, nearest] / lengths[rows, nearest] ** 2
    return scale.reshape(-1, 1, 1, 1) * ways[rows, nearest]
