"""The generator of data-free attacks, directions to try, and a bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.types import Images, Probabilities


class Generator(nn.Module):
    """From noise (n, z) to pictures (n, c, h, w) before they are squashed.

    Source: released code of DFME (Truong et al., CVPR 2021): a linear layer to a quarter of the
    edges, two doublings with 3x3 convolutions, normalization without weights at the end.
    Notes: edges that four does not divide are rounded up and cut.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, noise: int = 256, filters: int = 128
    ) -> None:
        """Make an untrained generator."""
        super().__init__()
        channels, self._height, self._width = shape
        rows, columns = -(-self._height // 4), -(-self._width // 4)
        self.layers = nn.Sequential(
            nn.Linear(noise, filters * rows * columns),
            nn.Unflatten(1, (filters, rows, columns)),
            nn.BatchNorm2d(filters),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(filters, filters, 3, padding=1),
            nn.BatchNorm2d(filters),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(filters, filters // 2, 3, padding=1),
            nn.BatchNorm2d(filters // 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters // 2, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Return (n, c, h, w) of any real numbers."""
        made: Tensor = self.layers(noise)
        return made[:, :, : self._height, : self._width]


def directions(shape: torch.Size, draws: torch.Generator) -> Tensor:
    """Return n uniform directions of length 1, of shape (n, ...), on the CPU."""
    way = torch.randn(shape, generator=draws)
    lengths = way.flatten(1).norm(dim=1)
    return way / lengths.reshape(-1, *[1] * (way.ndim - 1))


class Memory:
    """A random part of all answers so far, of bounded size: reservoir sampling (Vitter 1985)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        """Remember nothing yet."""
        self._size, self._rng, self._met = size, rng, 0
        self._images: list[Images] = []
        self._answers: list[Probabilities] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, images: Images, answers: Probabilities) -> None:
        """Meet n answered pictures."""
        if not self._size:
            return
        for image, answer in zip(images, answers, strict=True):
            self._met += 1
            if len(self._images) < self._size:
                self._images.append(image)
                self._answers.append(answer)
            elif (place := int(self._rng.integers(self._met))) < self._size:
                self._images[place], self._answers[place] = image, answer

    def all(self) -> tuple[Images, Probabilities]:
        """Return everything remembered."""
        return np.stack(self._images), np.stack(self._answers)

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Return up to `count` remembered pictures and their answers, drawn at random."""
        index = self._rng.permutation(len(self))[:count]
        images = [torch.from_numpy(self._images[at]) for at in index]
        answers = [torch.from_numpy(self._answers[at]) for at in index]
        if not images:
            return torch.empty(0), torch.empty(0)
        return torch.stack(images), torch.stack(answers)
