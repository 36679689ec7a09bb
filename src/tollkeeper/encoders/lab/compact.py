"""The network of the built-in image encoder, in torch: small enough to train on two cores.

Its embedding is, like that of a ResNet, the average of the last feature maps over positions:
non-negative, not normalized.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CompactLayout:
    """The sizes that make up the network.

    Attributes:
        width: channels of the first convolution.
        dim: embedding width.
    """

    width: int = 32
    dim: int = 512

    @property
    def embedding_dim(self) -> int:
        """Embedding width."""
        return self.dim

    def build(self) -> Compact:
        """Make the network with weights from the global generator.

        Raises:
            ConfigurationError: a size that is not positive.
        """
        if min(self.width, self.dim) < 1:
            raise ConfigurationError(f"expected positive sizes of a network, got {self}")
        return Compact(self)


class ConvUnit(nn.Sequential):
    """A bias-free convolution, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        """Make a unit that maps (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions with a skip connection, then ReLU."""

    def __init__(self, channels: int) -> None:
        """Make a block that keeps the shape (n, channels, h, w)."""
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the same shape, non-negative."""
        return F.relu(x + self.norm(self.conv(self.first(x))))


class Compact(nn.Sequential):
    """Normalized images (n, 3, h, w) to embeddings (n, dim), non-negative.

    Iterating over it yields the convolutional stages; pooling has no weights.

    Attributes:
        layout: the sizes it was made of.
        dim: embedding width.
    """

    def __init__(self, layout: CompactLayout) -> None:
        """Make the layers; `CompactLayout.build` checks the sizes."""
        w = layout.width
        super().__init__(
            ConvUnit(3, w, kernel=4, stride=2),
            ConvUnit(w, 2 * w),
            ConvUnit(2 * w, 4 * w, stride=2),
            Residual(4 * w),
            ConvUnit(4 * w, 8 * w, stride=2),
            ConvUnit(8 * w, layout.dim, kernel=1),
        )
        self.layout = layout
        self.dim = layout.dim

    def forward(self, images: Tensor) -> Tensor:
        """Embed n images."""
        embeddings: Tensor = super().forward(images).float().mean(dim=(2, 3))
        return embeddings
