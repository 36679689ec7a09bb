"""Residual networks of 18, 34 and 50 layers, for large and for small images.

Parameters carry the names that torchvision gave them, because published checkpoints do. The
embedding is the average of the last feature maps over positions: non-negative, not normalized.

Differences from the paper: in the 50-layer network the 3x3 convolution of a block makes the
stride, not the 1x1 before it, as in every published checkpoint; the stem `small` (3x3, stride 1,
no pooling) for 32x32 images is that of SimCLR (appendix B.9); there is no classifier.

References:
    He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016,
    https://arxiv.org/abs/1512.03385
    Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual
    representations. ICML 2020, https://arxiv.org/abs/2002.05709
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Stem:
    """How a network begins.

    Attributes:
        kernel: side of the first convolution.
        stride: of the first convolution.
        pools: whether a 3x3 max-pooling of stride 2 follows.
    """

    kernel: int
    stride: int
    pools: bool


STEMS = {"imagenet": Stem(7, 2, pools=True), "small": Stem(3, 1, pools=False)}
"""Stems by name: for 224x224 and for 32x32 pixels."""


@dataclass(frozen=True, slots=True)
class ResNetLayout:
    """The sizes that make up a residual network.

    Attributes:
        blocks: blocks in each of the four stages.
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3.
        stem: a key of `STEMS`.
        width: channels of the first stage; each next stage has twice as many.
        dim: embedding width; None for the channels of the last stage as they are.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    stem: str
    width: int = 64
    dim: int | None = None

    @property
    def native_dim(self) -> int:
        """Channels of the last stage: 8 times `width`, 32 times with bottlenecks."""
        return 8 * self.width * (_BOTTLENECK_EXPANSION if self.bottleneck else 1)

    @property
    def embedding_dim(self) -> int:
        """Embedding width."""
        return self.native_dim if self.dim is None else self.dim

    def build(self) -> ResNet:
        """Make the network with weights from the global generator.

        Raises:
            ConfigurationError: unknown stem, or a size that is not positive.
        """
        if self.stem not in STEMS:
            raise ConfigurationError(
                f"unknown ResNet stem {self.stem!r}; expected one of {', '.join(STEMS)}"
            )
        if min(*self.blocks, self.width, 1 if self.dim is None else self.dim) < 1:
            raise ConfigurationError(f"expected positive sizes of a ResNet, got {self}")
        return ResNet(self)


_BOTTLENECK_EXPANSION = 4
_PUBLISHED = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
}


def resnet(depth: int, *, stem: str, dim: int | None = None, width: int = 64) -> ResNet:
    """Make a residual network with weights from the global generator; see `seeding.seeded`.

    Args:
        depth: 18, 34 or 50.
        stem: `imagenet` or `small`.
        dim: embedding width; a linear layer is appended if it differs from the native width
            (512, 512, 2048).
        width: channels of the first stage; 64 as published, fewer for tests.

    Returns:
        A module from normalized images (n, 3, h, w) to embeddings (n, dim).

    Raises:
        ConfigurationError: unknown depth or stem, or a size that is not positive.
    """
    if depth not in _PUBLISHED:
        raise ConfigurationError(f"expected a ResNet of depth 18, 34 or 50, got {depth}")
    blocks, bottleneck = _PUBLISHED[depth]
    return ResNetLayout(blocks, bottleneck, stem, width, dim).build()


def layout_of(state: Mapping[str, Tensor]) -> ResNetLayout:
    """Read the layout off a state dict; what is missing there is taken as in ResNet-50."""
    stages = [
        {name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}
        for stage in (1, 2, 3, 4)
    ]
    first, last = state.get("conv1.weight"), state.get("fc.bias")
    kernel = 7 if first is None else first.shape[-1]
    stem = next((name for name, stem in STEMS.items() if stem.kernel == kernel), "imagenet")
    one, two, three, four = (max(1, len(stage)) for stage in stages)
    return ResNetLayout(
        blocks=(one, two, three, four),
        bottleneck="layer1.0.conv3.weight" in state or "layer1.0.conv1.weight" not in state,
        stem=stem,
        width=64 if first is None else first.shape[0],
        dim=None if last is None else last.shape[0],
    )


class ResNet(nn.Module):
    """Normalized images (n, 3, h, w) to embeddings (n, dim).

    Attributes:
        layout: the sizes it was made of.
        dim: embedding width.
    """

    def __init__(self, layout: ResNetLayout) -> None:
        """Make the layers; `ResNetLayout.build` checks the sizes."""
        super().__init__()
        stem, width = STEMS[layout.stem], layout.width
        block = _Bottleneck if layout.bottleneck else _Basic
        self.layout = layout
        self.dim = layout.embedding_dim
        self.conv1 = nn.Conv2d(
            3, width, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if stem.pools else nn.Identity()
        one, two, three, four = layout.blocks
        out = block.expansion
        self.layer1 = _stage(block, width, width, one, stride=1)
        self.layer2 = _stage(block, out * width, 2 * width, two, stride=2)
        self.layer3 = _stage(block, 2 * out * width, 4 * width, three, stride=2)
        self.layer4 = _stage(block, 4 * out * width, 8 * width, four, stride=2)
        appended = self.dim != layout.native_dim
        self.fc = nn.Linear(layout.native_dim, self.dim) if appended else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Embed n images."""
        x = self.pool(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embeddings: Tensor = self.fc(x.float().mean(dim=(2, 3)))
        return embeddings


class _Basic(nn.Module):
    """Two 3x3 convolutions around which the input is led past."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, channels, h / stride, w / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class _Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, around which the input is led past."""

    expansion = _BOTTLENECK_EXPANSION

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, 4 channels, h / stride, w / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the way past a block: nothing, or a 1x1 convolution where the shape changes."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stage(
    block: type[_Basic | _Bottleneck], inputs: int, channels: int, count: int, *, stride: int
) -> nn.Sequential:
    """Return `count` blocks, the first of which changes the shape."""
    rest = [block(block.expansion * channels, channels, 1) for _ in range(count - 1)]
    return nn.Sequential(block(inputs, channels, stride), *rest)
