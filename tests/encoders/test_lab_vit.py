"""Promises of the vision transformer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.encoders.lab.seeding import seeded  # noqa: E402 - needs torch
from tollkeeper.encoders.lab.vit import ViTLayout, layout_of  # noqa: E402

Array = NDArray[np.float64]

SMALL = ViTLayout(width=128, depth=5, hidden=12, patch=4, side=3)


def make(layout: ViTLayout) -> Any:
    """Make a network whose weights are all random, biases and norms too."""
    with seeded(0):
        network = layout.build()
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


class Slow:
    """A vision transformer in numpy and loops, by the names of the parameters."""

    def __init__(self, state: dict[str, Any], layout: ViTLayout) -> None:
        """Take the parameters of a network."""
        self.state = {name: value.double().numpy() for name, value in state.items()}
        self.layout = layout

    def linear(self, name: str, x: Array) -> Array:
        """Apply a layer to one token."""
        return np.asarray(self.state[f"{name}.weight"] @ x + self.state[f"{name}.bias"])

    def norm(self, name: str, x: Array) -> Array:
        """Normalize one token."""
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
        return np.asarray(scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"])

    def attend(self, name: str, tokens: list[Array]) -> list[Array]:
        """Mix tokens, head by head and token by token."""
        heads, width = self.layout.width // 64, 64
        projected = [self.linear(f"{name}.qkv", token).reshape(3, heads, width) for token in tokens]
        mixed = []
        for one in projected:
            parts = []
            for head in range(heads):
                scores = [one[0, head] @ other[1, head] / math.sqrt(width) for other in projected]
                weights = np.exp(np.array(scores) - max(scores))
                weights /= weights.sum()
                parts.append(
                    sum(
                        weight * other[2, head]
                        for weight, other in zip(weights, projected, strict=True)
                    )
                )
            mixed.append(self.linear(f"{name}.proj", np.concatenate(parts)))
        return mixed

    def perceive(self, name: str, x: Array) -> Array:
        """Run the perceptron on one token, with the exact GELU."""
        inner = self.linear(f"{name}.fc1", x)
        gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in inner])
        return self.linear(f"{name}.fc2", gelu)

    def embed(self, image: Array) -> Array:
        """Embed one normalized image (3, h, w)."""
        size, tokens = self.layout.patch, [self.state["cls_token"][0, 0]]
        kernel, bias = (self.state[f"patch_embed.proj.{part}"] for part in ("weight", "bias"))
        for row in range(self.layout.side):
            for column in range(self.layout.side):
                patch = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                tokens.append((kernel * patch).sum(axis=(1, 2, 3)) + bias)
        tokens = [
            token + place for token, place in zip(tokens, self.state["pos_embed"][0], strict=True)
        ]
        seen = []
        for i in range(self.layout.depth):
            name = f"blocks.{i}"
            normed = [self.norm(f"{name}.norm1", token) for token in tokens]
            mixed = self.attend(f"{name}.attn", normed)
            tokens = [token + more for token, more in zip(tokens, mixed, strict=True)]
            tokens = [
                token + self.perceive(f"{name}.mlp", self.norm(f"{name}.norm2", token))
                for token in tokens
            ]
            seen.append(self.norm("norm", tokens[0]))
        return np.concatenate(seen[-4:])


def test_it_agrees_with_a_slow_network() -> None:
    """Patches, heads, norms and the class tokens of the last four blocks are as defined."""
    network = make(SMALL)
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    with torch.inference_mode():
        fast = network(torch.from_numpy(images).float()).numpy()
    slow = Slow(network.state_dict(), SMALL)
    assert fast.shape == (2, network.dim) == (2, 512)
    np.testing.assert_allclose(fast, [slow.embed(i) for i in images], rtol=2e-4, atol=2e-4)


def test_the_default_is_vit_s_16() -> None:
    """Blocks, widths, heads and parameter count are those of DINO's ViT-S/16; 1,536-d."""
    with torch.device("meta"):
        network = ViTLayout().build()
    assert network.dim == 1536
    assert (ViTLayout().heads, ViTLayout().pixels) == (6, 224)
    assert sum(weight.numel() for weight in network.parameters()) == 21_665_664
    names = network.state_dict().keys()
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias"} <= names
    assert {"blocks.11.attn.qkv.bias", "blocks.11.mlp.fc2.weight", "blocks.0.norm1.weight"} <= names


@pytest.mark.parametrize("layout", [SMALL, ViTLayout(24, 2, 7, 2, 1), ViTLayout(64, 4, 64, 8, 2)])
def test_a_layout_is_read_off_its_parameters(layout: ViTLayout) -> None:
    """A state dict says all sizes of the network that it came from."""
    assert layout_of(make(layout).state_dict()) == layout


def test_a_shallow_network_embeds_with_the_blocks_it_has() -> None:
    """Fewer than four blocks give a shorter embedding."""
    assert make(ViTLayout(24, 2, 7, 2, 1)).dim == 48


@pytest.mark.parametrize("layout", [ViTLayout(width=200), ViTLayout(depth=0)])
def test_impossible_sizes_are_one_line(layout: ViTLayout) -> None:
    """Widths that heads cannot share and sizes below one are refused."""
    with pytest.raises(ConfigurationError, match="expected"):
        layout.build()
