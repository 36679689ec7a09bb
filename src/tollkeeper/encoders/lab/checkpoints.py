"""Checkpoints into encoders: the official ones of SimSiam and DINO, and those we train.

Files are read with `weights_only=True`, so that they can hold numbers and no code. A file whose
parameters do not fit is refused as a whole, naming the first of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn

from tollkeeper.encoders.lab import resnet, vit
from tollkeeper.encoders.lab.compact import Compact, CompactLayout
from tollkeeper.encoders.lab.pixels import Pixels, native
from tollkeeper.encoders.lab.torch_encoder import TorchEncoder
from tollkeeper.errors import ConfigurationError

State = dict[str, Tensor]

FORMAT = "tollkeeper-lab/1"
"""Marks the files that `save` writes."""

_NAMED = 3
"""Parameters that a message names."""

_LAYOUTS: Mapping[str, Callable[..., resnet.ResNetLayout | CompactLayout]] = {
    "resnet": resnet.ResNetLayout,
    "compact": CompactLayout,
}


def simsiam(path: Path | str) -> TorchEncoder:
    """Load a ResNet from an official SimSiam checkpoint; 2,048-d for ResNet-50.

    The file holds `state_dict` with `module.encoder.*`, whose `fc` is the projector, and
    `module.predictor.*`; both heads are left out. Depth and width are read off the parameters.
    Images: bilinear to 256, center 224, ImageNet mean and deviation.

    Args:
        path: for example `checkpoint_0099.pth.tar`.

    Raises:
        ConfigurationError: no such checkpoint there.
    """
    path = Path(path)
    payload = _read(path)
    state = _tensors(payload.get("state_dict"), path, expected="`state_dict`")
    encoder = _under(state, "module.encoder.")
    backbone = {name: value for name, value in encoder.items() if not name.startswith("fc.")}
    network = _filled(resnet.layout_of(backbone).build, backbone, path, kind="SimSiam ResNet")
    return TorchEncoder(network, Pixels(), name=_stem(path))


def dino(path: Path | str) -> TorchEncoder:
    """Load a ViT from an official DINO checkpoint; 1,536-d for ViT-S.

    The file is a bare backbone, or a training checkpoint whose `teacher` is taken, with or
    without the prefixes `module.` and `backbone.`; heads are left out. Sizes are read off the
    parameters. Images: bicubic to 8/7 of the network's side, center, ImageNet mean and deviation;
    256 and 224 pixels for ViT-S/16.

    Args:
        path: for example `dino_deitsmall16_pretrain.pth`.

    Raises:
        ConfigurationError: no such checkpoint there.
    """
    path = Path(path)
    payload = _read(path)
    state = _tensors(payload.get("teacher", payload), path, expected="`teacher` or a backbone")
    state = {_bare(name): value for name, value in state.items()}
    backbone = {name: value for name, value in state.items() if not name.startswith("head.")}
    layout = vit.layout_of(backbone)
    network = _filled(layout.build, backbone, path, kind="DINO ViT")
    side = layout.pixels
    pixels = Pixels(crop=side, resize=side * 8 // 7, filter=Resampling.BICUBIC)
    return TorchEncoder(network, pixels, name=_stem(path))


def save(path: Path | str, network: resnet.ResNet | Compact, pixels: Pixels, *, name: str) -> None:
    """Write a network that `lab` can load.

    Args:
        path: the file.
        network: what embeds.
        pixels: how it was trained to see images; made by `native`.
        name: model name.
    """
    content = {
        "format": FORMAT,
        "name": name,
        "network": "compact" if isinstance(network, Compact) else "resnet",
        "layout": asdict(network.layout),
        "side": pixels.crop,
        "mean": pixels.mean,
        "std": pixels.std,
        "state_dict": {key: value.cpu() for key, value in network.state_dict().items()},
    }
    torch.save(content, path)


def lab(path: Path | str) -> TorchEncoder:
    """Load a network that `save` wrote.

    Args:
        path: the file.

    Raises:
        ConfigurationError: no such file there.
    """
    path = Path(path)
    payload = _read(path)
    if payload.get("format") != FORMAT:
        raise ConfigurationError(
            f"{path}: expected a checkpoint of training/victim.py, marked {FORMAT!r}, "
            f"got {_first(payload)}"
        )
    try:
        layout = _LAYOUTS[payload["network"]](**payload["layout"])
        pixels = native(payload["side"], tuple(payload["mean"]), tuple(payload["std"]))
        name = str(payload["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: damaged description: {error!r}") from error
    state = _tensors(payload.get("state_dict"), path, expected="`state_dict`")
    network = _filled(layout.build, state, path, kind=payload["network"])
    return TorchEncoder(network, pixels, name=name)


def _read(path: Path) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote."""
    if not path.is_file():
        raise ConfigurationError(f"expected a checkpoint at {path}, found no file")
    try:
        # DINO's training checkpoints carry their command line as a namespace of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no error class of its own for this
        line = " ".join(str(error).split())
        raise ConfigurationError(
            f"{path} is not a checkpoint that can be read without running code: {line[:200]}"
        ) from error
    if not isinstance(payload, dict):
        raise ConfigurationError(f"{path}: expected a dictionary, got {type(payload).__name__}")
    return payload


def _tensors(state: object, path: Path, *, expected: str) -> State:
    """Return `state` if it maps names to tensors."""
    if not isinstance(state, dict) or not state:
        raise ConfigurationError(f"{path}: expected {expected} with parameters, found none")
    strangers = [
        str(name)
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strangers:
        raise ConfigurationError(
            f"{path}: expected {expected} with parameters, got {_listed(strangers)}"
        )
    return state


def _filled(build: Callable[[], nn.Module], state: State, path: Path, *, kind: str) -> nn.Module:
    """Build a network and give it the parameters of `state`, or say which do not fit."""
    try:
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            network = build()
    except (ConfigurationError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a {kind} checkpoint: {error}") from error
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    problems = {
        "misses": [name for name in wanted if name not in state and name not in counters],
        "has unknown": [name for name in state if name not in wanted],
        "has misshapen": [
            f"{name} {tuple(value.shape)}"
            for name, value in state.items()
            if name in wanted and not _alike(value, wanted[name])
        ],
    }
    found = [f"{what} {_listed(names)}" for what, names in problems.items() if names]
    if found:
        raise ConfigurationError(f"{path} is not a {kind} checkpoint: it {'; it '.join(found)}")
    zeros = {name: torch.zeros((), dtype=torch.long) for name in counters}
    network.load_state_dict({**zeros, **state}, assign=True)
    return network


def _alike(one: Tensor, other: Tensor) -> bool:
    """Tell whether a parameter can stand for another."""
    return bool(one.shape == other.shape and one.is_floating_point() == other.is_floating_point())


def _under(state: State, prefix: str) -> State:
    """Return the parameters whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _bare(name: str) -> str:
    """Return a parameter's name without the wrappers of DINO's training."""
    return name.removeprefix("module.").removeprefix("backbone.")


def _stem(path: Path) -> str:
    """Return a file's name without its extensions."""
    return path.name.partition(".")[0]


def _first(payload: Mapping[str, Any]) -> str:
    """Say which keys a file holds."""
    return f"keys {_listed([str(key) for key in payload])}" if payload else "an empty dictionary"


def _listed(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
