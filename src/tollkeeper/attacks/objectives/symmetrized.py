"""SimSiam's loss with the victim as the other branch."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.attacks.objectives.base import matched_views
from tollkeeper.errors import ConfigurationError


class Symmetrized(nn.Module):
    """The surrogate's view predicts the victim's projection of the other view, and vice versa.

    -1/2 [cos(p1, q(h2)) + cos(p2, q(h1))] with p = predictor(q(z)). The attacker's projector q
    has three layers and serves both sides; it is trained through both. Victim rows carry no
    gradient. Build it inside `torching.seeded_init` and train its parameters with the surrogate's.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, as used by
    Dziedzic et al., ICML 2022.

    Differences from the reference code: the projector's last layer has no bias (there it has a
    frozen one, which the normalization behind it removes).
    """

    views: ClassVar[int] = 2

    def __init__(self, dim: int, *, projection: int = 512, hidden: int = 512) -> None:
        """Make projector and predictor.

        Args:
            dim: embedding width d.
            projection: width after the projector.
            hidden: width inside the predictor.

        Raises:
            ConfigurationError: a width below 1.
        """
        super().__init__()
        if min(dim, projection, hidden) < 1:
            raise ConfigurationError(
                f"expected widths of at least 1, got {dim}, {projection} and {hidden}"
            )
        self.projector = nn.Sequential(
            *_unit(dim, dim),
            *_unit(dim, dim),
            nn.Linear(dim, projection, bias=False),
            nn.BatchNorm1d(projection, affine=False),
        )
        self.predictor = nn.Sequential(*_unit(projection, hidden), nn.Linear(hidden, projection))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the loss, in [-1, 1], of rows that are two stacked views.

        Args:
            z: (2 n, d) surrogate rows, all first views before all second views, n >= 2.
            h: (2 n, d) victim rows in the same order.
        """
        z1, z2, h1, h2 = matched_views(z, h)
        return -(self._agreement(z1, h2) + self._agreement(z2, h1)) / 2

    def _agreement(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the mean cosine of predictions from z with projections of h."""
        predicted = self.predictor(self.projector(z))
        return F.cosine_similarity(predicted, self.projector(h), dim=1).mean()


def _unit(inputs: int, outputs: int) -> list[nn.Module]:
    linear = nn.Linear(inputs, outputs, bias=False)
    return [linear, nn.BatchNorm1d(outputs), nn.ReLU()]
