"""What active thieves ask next, on networks that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tollkeeper.attacks.classifier import presets  # noqa: E402
from tollkeeper.attacks.classifier.choices import (  # noqa: E402
    DeepFoolNearest,
    DeepFoolThenFar,
    FarFromKnown,
    Uncertainty,
    deepfool,
    k_center,
)
from tollkeeper.attacks.classifier.presets import for_two_cores  # noqa: E402

RNG = np.random.default_rng(0)


class Plane(nn.Module):
    """Logits (0, x, -x) of pictures of two pixels, of which the first counts: x = 4 p - 2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Any) -> Any:
        x = self.scale * images.flatten(1)[:, 0] - 2
        return torch.stack([torch.zeros_like(x) - 9, x, -x], dim=1)


def pictures(*first: float) -> Any:
    """Return pictures of two pixels."""
    return np.array([[[[one, 0.5]]] for one in first], np.float32)


POOL = pictures(0.0, 0.45, 1.0, 0.52, 0.8)
"""The border between the last two classes is at 0.5."""


def test_entropy_is_largest_at_the_border() -> None:
    """The nearer, the sooner."""
    assert Uncertainty()(Plane(), POOL, POOL[:1], 3, rng=RNG).tolist() == [3, 1, 4]


def test_deepfool_measures_the_way_to_the_border() -> None:
    """Of a linear network one step is enough: the squared distance, but for the overshoot."""
    found = np.sqrt(deepfool(Plane(), POOL))
    assert np.allclose(found, [0.5, 0.05, 0.5, 0.02, 0.3], rtol=0.03)
    assert DeepFoolNearest()(Plane(), POOL, POOL[:1], 2, rng=RNG).tolist() == [3, 1]


def test_far_choices_spread() -> None:
    """With one end known, the other end is first; nothing is chosen twice."""
    found = FarFromKnown()(Plane(), POOL, pictures(0.0), 9, rng=RNG)
    assert found[0] == 2
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]
    both = DeepFoolThenFar(kept=2)(Plane(), POOL, pictures(0.9), 1, rng=RNG)
    assert both.tolist() == [1]  # Of 0.52 and 0.45, which are nearest to the border.


@pytest.mark.parametrize("budget", [1000, 2000, 4000])
def test_deepfool_leaves_out_at_least_half(budget: int) -> None:
    """At two cores' settings most of what is looked at is not chosen, in `both` before k-center."""
    attack = for_two_cores(presets.active_thief_both())
    assert isinstance(attack.choice, DeepFoolThenFar)
    asked = round(budget * (1 - attack.seed - attack.validation)) // attack.iterations
    assert 2 * attack.choice.kept * asked <= attack.choice.near.subset
    pool = pictures(*RNG.uniform(0, 1, 6000))
    found = attack.choice(Plane(), pool, pool[:1], asked, rng=RNG)
    nearest = np.sort(np.abs(pool[:, 0, 0, 0] - 0.5))
    assert len(set(found.tolist())) == asked
    assert np.abs(pool[found, 0, 0, 0] - 0.5).max() < nearest[5 * len(nearest) // 8]


def test_a_small_subset_grows_with_what_is_wanted() -> None:
    """Of a subset that is wanted whole nothing would be chosen: twice as many are looked at."""
    pool = pictures(*np.linspace(0, 1, 100))
    found = DeepFoolNearest(subset=5)(Plane(), pool, POOL[:1], 40, rng=RNG)
    everything = np.random.default_rng(1).permutation(100)[:40]
    away = np.abs(pool[:, 0, 0, 0] - 0.5)
    assert away[found].mean() < 0.75 * away[everything].mean()


def test_k_center_is_the_greedy_one() -> None:
    """It agrees with a slow search, in the order of choosing."""
    rng = np.random.default_rng(1)
    points, centers = (rng.dirichlet(np.ones(4), n).astype(np.float32) for n in (40, 3))
    known, wanted = list(centers), []
    for _ in range(10):
        away = [min(float(((p - c) ** 2).sum()) for c in known) for p in points]
        wanted.append(int(np.argmax(away)))
        known.append(points[wanted[-1]])
    assert k_center(points, centers, 10).tolist() == wanted
