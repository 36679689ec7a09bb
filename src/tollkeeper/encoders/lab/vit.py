"""Vision transformers as DINO trained them, embedding with the last four blocks.

Parameters carry the names of the official checkpoints. What a checkpoint does not say is the same
in all of them: heads of 64 coordinates, square images, patches without overlap.

The embedding is what the linear probe of DINO's ViT-S sees: the class tokens after each of the
last four blocks, each through the one final layer normalization, concatenated from the earlier
block to the later; 4 x 384 = 1,536. The blocks go on from the tokens before that normalization.

Differences from the reference code: images have the one size that the position embeddings were
trained for, so these are never interpolated; no dropout and no stochastic depth, which only
training has.

References:
    Dosovitskiy et al.: An image is worth 16x16 words. ICLR 2021, https://arxiv.org/abs/2010.11929
    Caron et al.: Emerging properties in self-supervised vision transformers. ICCV 2021, appendix
    on linear evaluation, https://arxiv.org/abs/2104.14294
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tollkeeper.errors import ConfigurationError

LAST_BLOCKS = 4
"""Blocks whose class tokens make up the embedding."""

_HEAD_DIM = 64
_NORM_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class ViTLayout:
    """The sizes that make up a vision transformer; the defaults are those of ViT-S/16.

    Attributes:
        width: coordinates of a token.
        depth: blocks.
        hidden: units of the layer inside a block's perceptron.
        patch: pixels per side of a patch.
        side: patches per side of an image.
    """

    width: int = 384
    depth: int = 12
    hidden: int = 1536
    patch: int = 16
    side: int = 14

    @property
    def heads(self) -> int:
        """Attention heads in a block; narrow networks have one."""
        return max(1, self.width // _HEAD_DIM)

    @property
    def pixels(self) -> int:
        """Pixels per side of an image."""
        return self.patch * self.side

    def build(self) -> ViT:
        """Make the network with weights from the global generator.

        Raises:
            ConfigurationError: a size that is not positive, or a width that heads cannot share.
        """
        if min(self.width, self.depth, self.hidden, self.patch, self.side) < 1:
            raise ConfigurationError(f"expected positive sizes of a ViT, got {self}")
        if self.width % self.heads:
            raise ConfigurationError(
                f"expected a ViT of width below 128 or a multiple of {_HEAD_DIM}, got {self.width}"
            )
        return ViT(self)


def layout_of(state: Mapping[str, Tensor]) -> ViTLayout:
    """Read the layout off a state dict; what is missing there is taken as in ViT-S/16."""
    default = ViTLayout()
    tokens, hidden = state.get("pos_embed"), state.get("blocks.0.mlp.fc1.bias")
    patch = state.get("patch_embed.proj.weight")
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    return ViTLayout(
        width=default.width if tokens is None else tokens.shape[-1],
        depth=len(blocks) or default.depth,
        hidden=default.hidden if hidden is None else hidden.shape[0],
        patch=default.patch if patch is None else patch.shape[-1],
        side=default.side if tokens is None else math.isqrt(tokens.shape[1] - 1),
    )


class ViT(nn.Module):
    """Normalized images (n, 3, h, w) to embeddings (n, dim).

    Attributes:
        layout: the sizes it was made of.
        dim: embedding width, `LAST_BLOCKS` times the token width.
    """

    def __init__(self, layout: ViTLayout) -> None:
        """Make the layers; `ViTLayout.build` checks the sizes."""
        super().__init__()
        self.layout = layout
        self.dim = min(LAST_BLOCKS, layout.depth) * layout.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, layout.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + layout.side**2, layout.width))
        self.patch_embed = _Patches(layout)
        self.blocks = nn.ModuleList([_Block(layout) for _ in range(layout.depth)])
        self.norm = nn.LayerNorm(layout.width, eps=_NORM_EPSILON)
        for weight in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Embed n images of `layout.pixels` pixels per side."""
        patches = self.patch_embed(images)
        start = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([start, patches], dim=1) + self.pos_embed
        seen = []
        for position, block in enumerate(self.blocks):
            tokens = block(tokens)
            if len(self.blocks) - position <= LAST_BLOCKS:
                seen.append(self.norm(tokens[:, 0]))
        return torch.cat(seen, dim=1)


class _Patches(nn.Module):
    """Images to one token a patch, row by row."""

    def __init__(self, layout: ViTLayout) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, layout.width, layout.patch, stride=layout.patch)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, patches, width)."""
        tokens: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return tokens


class _Block(nn.Module):
    """Self-attention and a perceptron, each on normalized tokens and added to what came in."""

    def __init__(self, layout: ViTLayout) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(layout.width, eps=_NORM_EPSILON)
        self.attn = _Attention(layout)
        self.norm2 = nn.LayerNorm(layout.width, eps=_NORM_EPSILON)
        self.mlp = _Perceptron(layout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (n, tokens, width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class _Attention(nn.Module):
    """Scaled dot-product attention of several heads; queries, keys and values in one layer."""

    def __init__(self, layout: ViTLayout) -> None:
        super().__init__()
        self.heads = layout.heads
        self.qkv = nn.Linear(layout.width, 3 * layout.width)
        self.proj = nn.Linear(layout.width, layout.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (n, tokens, width)."""
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return attended


class _Perceptron(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, layout: ViTLayout) -> None:
        super().__init__()
        self.fc1 = nn.Linear(layout.width, layout.hidden)
        self.fc2 = nn.Linear(layout.hidden, layout.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep the shape (n, tokens, width)."""
        added: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return added
