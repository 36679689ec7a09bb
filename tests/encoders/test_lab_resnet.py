"""Promises of the residual networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.errors import ConfigurationError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.encoders.lab.resnet import (  # noqa: E402 - needs torch
    ResNetLayout,
    layout_of,
    resnet,
)
from tollkeeper.encoders.lab.seeding import seeded  # noqa: E402

Array = NDArray[np.float64]


class Slow:
    """A residual network in numpy and loops, by the names of the parameters."""

    def __init__(self, state: dict[str, Any]) -> None:
        """Take the parameters of a network."""
        self.state = {name: value.double().numpy() for name, value in state.items()}

    def convolve(self, name: str, x: Array, stride: int) -> Array:
        """Slide the kernel over every position of (channels, h, w)."""
        kernel = self.state[f"{name}.weight"]
        side = kernel.shape[-1]
        padded = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
        size = (x.shape[1] + 2 * (side // 2) - side) // stride + 1
        out = np.zeros((len(kernel), size, size))
        for row in range(size):
            for column in range(size):
                window = padded[
                    :, row * stride : row * stride + side, column * stride : column * stride + side
                ]
                out[:, row, column] = (kernel * window).sum(axis=(1, 2, 3))
        return out

    def normalize(self, name: str, x: Array) -> Array:
        """Apply batch normalization with its running statistics."""
        weight, bias, mean, variance = (
            self.state[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((x - mean) / np.sqrt(variance + 1e-5) * weight + bias)

    def block(self, name: str, x: Array, stride: int) -> Array:
        """Run one block of either kind; the stride is in the first 3x3 convolution."""
        convolutions = [i for i in (1, 2, 3) if f"{name}.conv{i}.weight" in self.state]
        where = 2 if len(convolutions) == 3 else 1
        inner = x
        for i in convolutions:
            inner = self.convolve(f"{name}.conv{i}", inner, stride if i == where else 1)
            inner = self.normalize(f"{name}.bn{i}", inner)
            if i != convolutions[-1]:
                inner = np.maximum(inner, 0)
        if f"{name}.downsample.0.weight" in self.state:
            x = self.normalize(
                f"{name}.downsample.1", self.convolve(f"{name}.downsample.0", x, stride)
            )
        return np.maximum(inner + x, 0)

    def pool(self, x: Array) -> Array:
        """Take the maximum of 3x3 windows, two apart."""
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        size = (x.shape[1] - 1) // 2 + 1
        out = np.zeros((len(x), size, size))
        for row in range(size):
            for column in range(size):
                window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                out[:, row, column] = window.max(axis=(1, 2))
        return out

    def embed(self, x: Array, layout: ResNetLayout) -> Array:
        """Embed one normalized image (3, h, w)."""
        small = layout.stem == "small"
        x = np.maximum(self.normalize("bn1", self.convolve("conv1", x, 1 if small else 2)), 0)
        x = x if small else self.pool(x)
        for stage, count in enumerate(layout.blocks, start=1):
            for i in range(count):
                x = self.block(f"layer{stage}.{i}", x, 2 if stage > 1 and i == 0 else 1)
        mean = x.mean(axis=(1, 2))
        if "fc.weight" in self.state:
            mean = self.state["fc.weight"] @ mean + self.state["fc.bias"]
        return np.asarray(mean)


def unsettled(network: Any, seed: int) -> Any:
    """Give batch normalizations statistics and weights as training would."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if "running" in name or (value.ndim == 1 and name != "fc.bias"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("dim", [None, 3])
def test_it_agrees_with_a_slow_network(bottleneck: bool, stem: str, dim: int | None) -> None:
    """Stems, strides, shortcuts, pooling and the appended layer are those of the definition."""
    layout = ResNetLayout((1, 2, 1, 2), bottleneck, stem, width=2, dim=dim)
    network = unsettled(layout.build(), seed=1)
    images = np.random.default_rng(0).standard_normal((2, 3, 18, 18))
    with torch.inference_mode():
        fast = network(torch.from_numpy(images).float()).numpy()
    slow = Slow(network.state_dict())
    expected = np.stack([slow.embed(image, layout) for image in images])
    assert fast.shape == (2, network.dim)
    np.testing.assert_allclose(fast, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("depth", "dim", "parameters", "named"),
    [
        (18, 512, 11_176_512, "layer4.1.conv2.weight"),
        (34, 512, 21_284_672, "layer3.5.bn2.running_var"),
        (50, 2048, 23_508_032, "layer1.0.downsample.0.weight"),
    ],
)
def test_sizes_are_the_published_ones(depth: int, dim: int, parameters: int, named: str) -> None:
    """Width, parameter count without classifier, and names are those of the public weights."""
    with torch.device("meta"):
        network = resnet(depth, stem="imagenet")
    assert network.dim == dim
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert named in network.state_dict()
    assert not any(name.startswith("fc.") for name in network.state_dict())


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("dim", [None, 7])
def test_a_layout_is_read_off_its_parameters(depth: int, stem: str, dim: int | None) -> None:
    """A state dict says all sizes of the network that it came from."""
    network = resnet(depth, stem=stem, width=2, dim=dim)
    assert layout_of(network.state_dict()) == network.layout


def test_no_layer_is_appended_for_the_native_width() -> None:
    """Asking for the width that the network has anyway changes nothing."""
    plain = resnet(18, stem="small", width=2)
    asked = resnet(18, stem="small", width=2, dim=16)
    assert asked.state_dict().keys() == plain.state_dict().keys()
    assert asked.dim == plain.dim == 16


def test_weights_come_from_the_seed_alone() -> None:
    """Equal seeds agree, others do not, and the global generator is left as it was."""

    def make(seed: int) -> Any:
        with seeded(seed):
            return resnet(18, stem="small", width=2, dim=3)

    before = torch.get_rng_state()
    one, same, other = make(1), make(1), make(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: resnet(101, stem="small"), "18, 34 or 50, got 101"),
        (lambda: resnet(18, stem="tiny"), "unknown ResNet stem 'tiny'"),
        (lambda: resnet(18, stem="small", width=0), "positive sizes"),
        (lambda: resnet(18, stem="small", dim=0), "positive sizes"),
    ],
)
def test_impossible_sizes_are_one_line(make: Any, words: str) -> None:
    """Depths, stems and widths that do not exist are named."""
    with pytest.raises(ConfigurationError, match=words):
        make()
