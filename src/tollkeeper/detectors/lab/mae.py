"""The masked autoencoder of SAME: a vision transformer that restores pictures.

A picture is cut into square patches. The encoder sees the patches that are not masked; the decoder
sees what the encoder made of them, and a learned token wherever a patch was masked, and restores
all pixels. With nothing masked it is one fixed function, and that function is what scores.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; sizes of Xie et
al., "SAME", AAAI 2024, released code.
Notes: patches are picked before they are projected, not after, which gives the same tokens for
less work. Pictures are in [0, 1] outside and in [-1, 1] inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.torching import seeded_init

_INIT_STD = 0.02
_MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class MaeLayout:
    """The sizes of a masked autoencoder; the defaults fit one CPU core.

    Attributes:
        patch: pixels per side of a patch.
        width: coordinates of a token.
        encoder: blocks that see only what is not masked.
        decoder: blocks that see all places.
        heads: of attention in each block.
    """

    patch: int = 4
    width: int = 64
    encoder: int = 3
    decoder: int = 1
    heads: int = 4

    def __post_init__(self) -> None:
        """Refuse sizes that make no network.

        Raises:
            ConfigurationError: a size below 1, or a width that the heads cannot share.
        """
        sizes = (self.patch, self.width, self.encoder, self.decoder, self.heads)
        if min(sizes) < 1 or self.width % self.heads:
            raise ConfigurationError(
                "expected sizes above 0 and a width that is a multiple of the heads, got "
                f"{self}; try MaeLayout(width=64, heads=4)"
            )

    def patches(self, shape: tuple[int, int, int]) -> int:
        """Return the number of patches of a (c, h, w) picture.

        Raises:
            ConfigurationError: the patches do not cover it.
        """
        _, height, width = shape
        if height % self.patch or width % self.patch:
            raise ConfigurationError(
                f"expected pictures whose sides are multiples of {self.patch} pixels, got "
                f"{height} x {width}; choose another patch"
            )
        return (height // self.patch) * (width // self.patch)

    def visible(self, shape: tuple[int, int, int], ratio: float) -> int:
        """Return how many patches the encoder sees at a mask ratio in [0, 1)."""
        return int(self.patches(shape) * (1 - ratio) + 1e-9)

    def flops(self, shape: tuple[int, int, int], ratio: float = 0.0) -> float:
        """Return what one forward pass of one picture takes; a multiplication and addition are 2.

        Counted are the blocks: 24 d^2 + 4 t d for each of t tokens of width d.
        """
        inside, outside = self.visible(shape, ratio) + 1, self.patches(shape) + 1
        cost = {t: t * (24.0 * self.width**2 + 4.0 * t * self.width) for t in (inside, outside)}
        return self.encoder * cost[inside] + self.decoder * cost[outside]

    def build(self, shape: tuple[int, int, int], rng: np.random.Generator) -> MaskedAutoencoder:
        """Return an untrained network for (n, c, h, w) pictures, its weights drawn from `rng`."""
        with seeded_init(rng):
            return MaskedAutoencoder(shape, self)


PUBLISHED = MaeLayout(patch=2, width=192, encoder=12, decoder=4, heads=3)
"""The sizes of the released code: 7.2 million weights."""


class MaskedAutoencoder(nn.Module):
    """Restores (n, c, h, w) pictures in [0, 1].

    Attributes:
        shape: (c, h, w).
        layout: the sizes it was made of.
        count: patches of a picture.
    """

    def __init__(self, shape: tuple[int, int, int], layout: MaeLayout) -> None:
        """Make the layers; weights come from torch's generator."""
        super().__init__()
        self.shape, self.layout, self.count = shape, layout, layout.patches(shape)
        width, values = layout.width, shape[0] * layout.patch**2
        self.embed = nn.Linear(values, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.places = nn.Parameter(torch.empty(1, self.count, width))
        self.decoder_places = nn.Parameter(torch.empty(1, self.count + 1, width))
        self.encoder = nn.Sequential(*(_Block(layout) for _ in range(layout.encoder)))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Sequential(*(_Block(layout) for _ in range(layout.decoder)))
        self.head = nn.Linear(width, values)
        for token in (self.cls_token, self.mask_token, self.places, self.decoder_places):
            nn.init.trunc_normal_(token, std=_INIT_STD)

    def patchify(self, images: Tensor) -> Tensor:
        """Return (n, patches, c p p) values in [-1, 1] of (n, c, h, w) pictures in [0, 1]."""
        c, h, w = self.shape
        p = self.layout.patch
        cut = (2 * images - 1).reshape(-1, c, h // p, p, w // p, p)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.count, c * p * p)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Return (n, c, h, w) pictures in [0, 1] of patches in [-1, 1]; nothing is clipped."""
        c, h, w = self.shape
        p = self.layout.patch
        grid = patches.reshape(-1, h // p, w // p, c, p, p).permute(0, 3, 1, 4, 2, 5)
        return (grid.reshape(-1, c, h, w) + 1) / 2

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Restore pictures of which nothing is masked.

        Returns:
            (n, c, h, w) restored pictures, near [0, 1] but not clipped, and the (n, d) mean of
            what the encoder made of the patches.
        """
        restored, tokens = self.restore_all(self.patchify(images))
        return self.unpatchify(restored), tokens.mean(1)

    def restore_all(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Restore patches of which none is masked.

        Args:
            patches: (n, patches, c p p) in [-1, 1].

        Returns:
            (n, patches, c p p), and the encoder's (n, patches, d) tokens.
        """
        tokens = self.norm(self.encoder(self._led(self.embed(patches) + self.places)))
        restored: Tensor = self.head(self.decoder(tokens + self.decoder_places)[:, 1:])
        return restored, tokens[:, 1:]

    def restore(self, patches: Tensor, kept: Tensor) -> Tensor:
        """Restore all patches from a few.

        Args:
            patches: (n, patches, c p p) in [-1, 1].
            kept: (n, v) int64, places of the patches that are not masked.

        Returns:
            (n, patches, c p p).
        """
        n, v = kept.shape
        width = self.layout.width
        seen = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        tokens = self.embed(seen) + self.places[0][kept]
        tokens = self.norm(self.encoder(self._led(tokens)))
        rest = self.mask_token.to(tokens.dtype).expand(n, self.count, width)
        filled = rest.scatter(1, kept[:, :, None].expand(n, v, width), tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], filled], 1) + self.decoder_places
        restored: Tensor = self.head(self.decoder(tokens)[:, 1:])
        return restored

    def _led(self, tokens: Tensor) -> Tensor:
        """Put the class token first."""
        first = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], 1, self.layout.width)
        return torch.cat([first, tokens], 1)


def random_places(count: int, patches: int, visible: int, order: torch.Generator) -> Tensor:
    """Return (count, visible) places that are not masked, drawn for each picture on its own."""
    return torch.rand(count, patches, generator=order).argsort(1)[:, :visible]


class _Block(nn.Module):
    """Attention and a perceptron, each after a normalization and around a shortcut."""

    def __init__(self, layout: MaeLayout) -> None:
        super().__init__()
        width = layout.width
        self.heads, self.size = layout.heads, width // layout.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = _MLP_RATIO * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        # Plain numbers, so that an exported graph does not work them out for each query.
        _, t, width = map(int, tokens.shape)
        cut = self.qkv(self.norm1(tokens)).reshape(-1, t, 3, self.heads, self.size)
        q, k, v = cut.permute(2, 0, 3, 1, 4).unbind()
        mixed = _attend(q, k, v).transpose(1, 2).reshape(-1, t, width)
        tokens = tokens + self.proj(mixed)
        added: Tensor = self.mlp(self.norm2(tokens))
        return tokens + added


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the attention of (n, heads, t, size) queries, keys and values.

    In bfloat16 torch's own takes eight times as long on a CPU, and the exporter's version of it
    scales twice; both are spared by saying what attention is.
    """
    if torch.onnx.is_in_onnx_export() or (q.dtype == torch.bfloat16 and q.device.type == "cpu"):
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)).softmax(3) @ v
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v)
    return mixed
