"""Random views of images for self-supervised training, made on any device in one go."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# Per-channel mean and standard deviation of CIFAR-10, on the 0..255 scale.
PIXEL_MEAN = (125.3, 123.0, 113.9)
PIXEL_STD = (63.0, 62.1, 66.7)


class Strengths(Protocol):
    """How much a view may differ from its image.

    Attributes:
        min_crop: smallest share of the area that is cut out.
        brightness: the factor is drawn from 1 - brightness to 1 + brightness.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn of the color circle, in turns.
        jitter_probability: of any of the four.
        gray_probability: of losing all color.
    """

    min_crop: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_probability: float
    gray_probability: float


def normalize(images: Tensor) -> Tensor:
    """Scale float images (n, 3, h, w) on 0..255 to zero mean and unit deviation per channel."""
    mean = torch.tensor(PIXEL_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def to_network(images: Tensor) -> Tensor:
    """Turn uint8 (n, h, w, 3) into normalized channels-last float32 (n, 3, h, w)."""
    planes = normalize(images.permute(0, 3, 1, 2).float())
    return planes.contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw (n,) uniform numbers in [low, high) on the CPU."""
    return low + (high - low) * torch.rand(n, generator=generator)


def crop_maps(n: int, min_crop: float, generator: torch.Generator) -> Tensor:
    """Sample affine maps (n, 2, 3) of random resized crops, half of them mirrored."""
    area = _uniform(n, min_crop, 1.0, generator)
    ratio = torch.exp(_uniform(n, math.log(3 / 4), math.log(4 / 3), generator))
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta[:, 0, 2] = (1 - width) * _uniform(n, -1.0, 1.0, generator)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (1 - height) * _uniform(n, -1.0, 1.0, generator)
    return theta


def color_matrices(
    n: int, strengths: Strengths, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw color jitter as one matrix an image.

    Saturation, hue (a rotation in the YIQ plane), gray scale and brightness are linear in the
    color of a pixel and so are composed into a single 3x3 matrix.

    Returns:
        Matrices (n, 3, 3) and contrast factors (n,).
    """
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    jittered = torch.rand(n, generator=generator) < strengths.jitter_probability
    gray = torch.rand(n, generator=generator) < strengths.gray_probability
    chroma = _uniform(n, 1 - strengths.saturation, 1 + strengths.saturation, generator)
    angle = 2 * math.pi * _uniform(n, -strengths.hue, strengths.hue, generator)
    gain = _uniform(n, 1 - strengths.brightness, 1 + strengths.brightness, generator)
    contrast = _uniform(n, 1 - strengths.contrast, 1 + strengths.contrast, generator)
    chroma = torch.where(jittered, chroma, 1.0) * (~gray)
    angle = torch.where(jittered, angle, 0.0)
    middle = torch.zeros(n, 3, 3)
    middle[:, 0, 0] = 1.0
    middle[:, 1, 1] = middle[:, 2, 2] = chroma * torch.cos(angle)
    middle[:, 1, 2] = -chroma * torch.sin(angle)
    middle[:, 2, 1] = chroma * torch.sin(angle)
    matrix = torch.linalg.inv(to_yiq) @ middle @ to_yiq
    matrix = matrix * torch.where(jittered, gain, 1.0).view(n, 1, 1)
    return matrix, torch.where(jittered, contrast, 1.0)


def augment(images: Tensor, side: int, strengths: Strengths, generator: torch.Generator) -> Tensor:
    """Make one random view of every image.

    Args:
        images: uint8 (n, 3, h, w) on any device.
        side: Side of the views in pixels.
        strengths: How much they may differ.
        generator: CPU generator; the draws do not depend on the device.

    Returns:
        Normalized float32 views (n, 3, side, side) in channels-last memory.
    """
    n, device = len(images), images.device
    maps = crop_maps(n, strengths.min_crop, generator).to(device)
    grid = F.affine_grid(maps, [n, 3, side, side], align_corners=False)
    matrix, contrast = (t.to(device) for t in color_matrices(n, strengths, generator))
    x = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    x = torch.bmm(matrix, x.flatten(2))
    center = x.mean(dim=(1, 2), keepdim=True)
    x = (center + contrast.view(n, 1, 1) * (x - center)).clamp(0, 255)
    return normalize(x.view(n, 3, side, side)).contiguous(memory_format=torch.channels_last)
