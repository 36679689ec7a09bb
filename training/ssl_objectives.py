"""What self-supervised training minimizes: SimCLR, its decoupled form, and SimSiam.

An objective is a module. Its layers see the embeddings of two views of each image, stacked to
(2 n, d) with the first views above the second; they are used in training only. Its `loss` takes
what the layers return.

Differences from the papers: both views pass each batch normalization together, not one after the
other.

References:
    Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual
    representations. ICML 2020, https://arxiv.org/abs/2002.05709
    Yeh et al.: Decoupled contrastive learning. ECCV 2022, https://arxiv.org/abs/2110.06848
    Chen, He: Exploring simple Siamese representation learning. CVPR 2021,
    https://arxiv.org/abs/2011.10566
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Objective(Protocol):
    """A module with a loss.

    Attributes:
        unscheduled: Layers whose learning rate stays where it starts.
    """

    unscheduled: tuple[nn.Module, ...]

    def __call__(self, embeddings: Tensor) -> Any:
        """Run the layers on embeddings (2 n, d)."""
        ...

    def loss(self, outputs: Any) -> Tensor:
        """Return the scalar loss of what the layers returned."""
        ...


class Decoupled(nn.Sequential):
    """A projector and the decoupled contrastive loss."""

    unscheduled: tuple[nn.Module, ...] = ()

    def __init__(self, projector: nn.Sequential, temperature: float) -> None:
        """Take the layers of a projector (2 n, d) to (2 n, p)."""
        super().__init__(*projector)
        self.temperature = temperature

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the loss of projections (2 n, p)."""
        return decoupled_loss(outputs, self.temperature)


class SimCLR(nn.Sequential):
    """A two-layer projector and the NT-Xent loss (section 2.1)."""

    unscheduled: tuple[nn.Module, ...] = ()

    def __init__(self, dim: int, *, projection: int, temperature: float) -> None:
        """Make a projector (2 n, dim) to (2 n, projection), as wide inside as the embedding."""
        super().__init__(
            nn.Linear(dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(inplace=True),
            nn.Linear(dim, projection, bias=False),
            nn.BatchNorm1d(projection),
        )
        self.temperature = temperature

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the loss of projections (2 n, p)."""
        return nt_xent_loss(outputs, self.temperature)


class SimSiam(nn.Module):
    """A projector, a predictor, and the negative cosine between a view and its partner.

    The partner is not differentiated, and the predictor's learning rate does not decay
    (section 4); without either, all embeddings become one.
    """

    def __init__(self, dim: int, *, projection: int, bottleneck: int) -> None:
        """Make a two-layer projector (appendix D) and a predictor that is narrow inside."""
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(dim, projection, bias=False),
            nn.BatchNorm1d(projection),
            nn.ReLU(inplace=True),
            nn.Linear(projection, projection, bias=False),
            nn.BatchNorm1d(projection, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(projection, bottleneck, bias=False),
            nn.BatchNorm1d(bottleneck),
            nn.ReLU(inplace=True),
            nn.Linear(bottleneck, projection),
        )

    @property
    def unscheduled(self) -> tuple[nn.Module, ...]:
        """The predictor."""
        return (self.predictor,)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Map (2 n, dim) to projections and predictions, (2 n, projection) each."""
        projected = self.projector(embeddings)
        return projected, self.predictor(projected)

    def loss(self, outputs: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean over both directions, in [-1, 1]."""
        projected, predicted = (rows.float() for rows in outputs)
        partner = projected.detach().roll(len(projected) // 2, dims=0)
        return -F.cosine_similarity(predicted, partner, dim=1).mean()


def decoupled_loss(projected: Tensor, temperature: float) -> Tensor:
    """Return the decoupled contrastive loss of projections (2 n, p): first views, then second."""
    z = F.normalize(projected.float(), dim=1)
    half = len(z) // 2
    similarity = (z @ z.T) / temperature
    owner = torch.arange(half, device=z.device).repeat(2)
    same = owner.unsqueeze(0) == owner.unsqueeze(1)
    attract = similarity.diagonal(half).repeat(2)
    repel = torch.logsumexp(similarity.masked_fill(same, -math.inf), dim=1)
    return (repel - attract).mean()


def nt_xent_loss(projected: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent (equation 1) of projections (2 n, p), mean over all rows.

    The partner of a row is its positive, the other 2 n - 2 rows are its negatives.
    """
    z = F.normalize(projected.float(), dim=1)
    similarity = (z @ z.T) / temperature
    similarity.fill_diagonal_(-math.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(similarity, partner)
