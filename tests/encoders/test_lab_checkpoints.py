"""Promises of checkpoints: official formats, made here with small random networks."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.Image import Resampling

from tollkeeper.encoders.base import Encoder, RowsIndependent
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.testing import check_encoder

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.encoders.lab import checkpoints  # noqa: E402 - needs torch
from tollkeeper.encoders.lab.compact import CompactLayout  # noqa: E402
from tollkeeper.encoders.lab.pixels import Pixels, native  # noqa: E402
from tollkeeper.encoders.lab.resnet import ResNetLayout, resnet  # noqa: E402
from tollkeeper.encoders.lab.seeding import seeded  # noqa: E402
from tollkeeper.encoders.lab.torch_encoder import TorchEncoder  # noqa: E402
from tollkeeper.encoders.lab.vit import ViTLayout  # noqa: E402

_RNG = np.random.default_rng(0)
IMAGES = [_RNG.integers(0, 256, (20 + i, 29 - i, 3), dtype=np.uint8) for i in range(3)]
VIT = ViTLayout(width=24, depth=5, hidden=12, patch=4, side=7)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are fastest on one thread, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def simsiam_payload() -> tuple[dict[str, Any], Any]:
    """Return what SimSiam's trainer saves, with a narrow ResNet-50, and its backbone."""
    with seeded(0):
        backbone = resnet(50, stem="imagenet", width=2).eval()
    heads = {
        "module.encoder.fc.0.weight": torch.zeros(64, 64),
        "module.encoder.fc.1.running_mean": torch.zeros(64),
        "module.encoder.fc.6.bias": torch.zeros(64),
        "module.predictor.0.weight": torch.zeros(16, 64),
    }
    state = {f"module.encoder.{name}": value for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1).state_dict()
    content = {"epoch": 100, "arch": "resnet50", "state_dict": {**state, **heads}}
    return {**content, "optimizer": optimizer}, backbone


def dino_backbone() -> Any:
    """Return a narrow ViT."""
    with seeded(0):
        return VIT.build().eval()


def dino_training(prefix: str) -> dict[str, Any]:
    """Return what DINO's trainer saves, its command line and heads included."""
    state = {f"{prefix}{name}": value for name, value in dino_backbone().state_dict().items()}
    head = prefix.replace("backbone", "head")
    teacher = {**state, f"{head}mlp.0.weight": torch.zeros(3, 24)}
    return {
        "student": {name: torch.zeros_like(value) for name, value in teacher.items()},
        "teacher": teacher,
        "optimizer": {"param_groups": [], "state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", lr=5e-4, global_crops_scale=(0.4, 1.0)),
    }


def expected_rows(network: Any, pixels: Pixels) -> Any:
    """Return what a network makes of the test images."""
    with torch.inference_mode():
        return network(torch.from_numpy(pixels(IMAGES))).numpy()


def test_an_official_simsiam_file(tmp_path: Path) -> None:
    """The backbone embeds ImageNet-style crops; projector and predictor are left out."""
    payload, backbone = simsiam_payload()
    torch.save(payload, tmp_path / "checkpoint_0099.pth.tar")
    encoder = load_encoder(f"simsiam:{tmp_path / 'checkpoint_0099.pth.tar'}")
    assert (encoder.name, encoder.dim) == ("checkpoint_0099", 64)
    check_encoder(encoder, IMAGES)
    expected = expected_rows(backbone, Pixels(224, 256, filter=Resampling.BILINEAR))
    np.testing.assert_allclose(encoder.embed(IMAGES), expected, rtol=1e-4, atol=1e-6)
    assert (expected >= 0).all()
    assert expected.std() > 0


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(lambda: dict(dino_backbone().state_dict()), id="backbone"),
        pytest.param(lambda: dino_training("backbone."), id="training"),
        pytest.param(lambda: dino_training("module.backbone."), id="training-parallel"),
    ],
)
def test_an_official_dino_file(tmp_path: Path, payload: Callable[[], dict[str, Any]]) -> None:
    """Bare backbones and the teachers of training checkpoints give the same embeddings."""
    torch.save(payload(), tmp_path / "dino_small.pth")
    encoder = load_encoder(f"dino:{tmp_path / 'dino_small.pth'}")
    assert (encoder.name, encoder.dim) == ("dino_small", 4 * 24)
    check_encoder(encoder, IMAGES)
    expected = expected_rows(dino_backbone(), Pixels(28, 32, filter=Resampling.BICUBIC))
    np.testing.assert_allclose(encoder.embed(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        ResNetLayout((1, 1, 1, 1), bottleneck=False, stem="small", width=2, dim=5),
        ResNetLayout((1, 1, 1, 1), bottleneck=True, stem="small", width=2),
        CompactLayout(width=2, dim=6),
    ],
)
def test_a_file_of_ours_comes_back(tmp_path: Path, layout: ResNetLayout | CompactLayout) -> None:
    """What was saved embeds the same after loading, at the size and scale it was trained with."""
    with seeded(3):
        network = layout.build().eval()
    pixels = native(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    checkpoints.save(tmp_path / "v.pt", network, pixels, name="victim-x")
    encoder = load_encoder(f"lab:{tmp_path / 'v.pt'}")
    assert isinstance(encoder, TorchEncoder)
    assert (encoder.name, encoder.dim, encoder.pixels) == ("victim-x", network.dim, pixels)
    check_encoder(encoder, IMAGES)
    np.testing.assert_allclose(
        encoder.embed(IMAGES), expected_rows(network, pixels), rtol=1e-4, atol=1e-6
    )


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    """No random number is drawn for weights that come from a file."""
    torch.save(dino_backbone().state_dict(), tmp_path / "dino.pth")
    before = torch.get_rng_state()
    checkpoints.dino(tmp_path / "dino.pth")
    assert torch.equal(torch.get_rng_state(), before)


class Trap:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Aim at a file."""
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Make unpickling create the file."""
        return subprocess.call, (["touch", str(self.path)],)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A file that would run a command when unpickled is refused, and runs nothing."""
    torch.save({"state_dict": Trap(tmp_path / "ran")}, tmp_path / "evil.pt")
    for scheme in ("simsiam", "dino", "lab"):
        with pytest.raises(ConfigurationError, match="without running code") as caught:
            load_encoder(f"{scheme}:{tmp_path / 'evil.pt'}")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def broken_simsiam(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return a SimSiam file whose parameters were changed."""
    payload, _ = simsiam_payload()
    change(payload["state_dict"])
    return payload


def drop(*names: str) -> Callable[[dict[str, Any]], None]:
    """Return a change that takes parameters away."""

    def change(state: dict[str, Any]) -> None:
        for name in names:
            del state[f"module.encoder.{name}"]

    return change


LAB = {"format": checkpoints.FORMAT, "name": "x", "side": 8, "mean": (0.5,) * 3, "std": (1.0,) * 3}


@pytest.mark.parametrize(
    ("scheme", "payload", "words"),
    [
        ("simsiam", lambda: [1], "expected a dictionary, got list"),
        ("simsiam", lambda: {"model": {}}, "expected `state_dict` with parameters, found none"),
        ("simsiam", lambda: {"state_dict": {"a": 1}}, "expected `state_dict` .* got a$"),
        (
            "simsiam",
            lambda: {"state_dict": dict(dino_backbone().state_dict())},
            r"not a SimSiam ResNet checkpoint: it misses conv1.weight, bn1.weight, bn1.bias and 1?\d+ more$",
        ),
        (
            "simsiam",
            lambda: broken_simsiam(drop("bn1.bias", "layer2.0.conv1.weight")),
            r"it misses bn1.bias, layer2.0.conv1.weight$",
        ),
        (
            "simsiam",
            lambda: broken_simsiam(lambda s: s.update({"module.encoder.extra": torch.ones(1)})),
            "it has unknown extra$",
        ),
        (
            "simsiam",
            lambda: broken_simsiam(
                lambda s: s.update({"module.encoder.bn1.bias": torch.ones(2, 2)})
            ),
            r"it has misshapen bn1.bias \(2, 2\)$",
        ),
        ("dino", lambda: {"student": {}, "epoch": 1}, "got student, epoch$"),
        (
            "dino",
            lambda: simsiam_payload()[0]["state_dict"],
            r"not a DINO ViT checkpoint: it misses cls_token, pos_embed, .* more; it has unknown",
        ),
        ("lab", lambda: {"state_dict": {}}, "expected a checkpoint of training/victim.py"),
        ("lab", lambda: {**LAB, "network": "rnn", "layout": {}}, "damaged description"),
        ("lab", lambda: {**LAB, "network": "compact", "layout": {"x": 1}}, "damaged description"),
        (
            "lab",
            lambda: {
                **LAB,
                "network": "compact",
                "layout": {"width": -1},
                "state_dict": {"a": torch.ones(1)},
            },
            "positive sizes",
        ),
    ],
)
def test_files_that_do_not_fit_are_one_line(
    tmp_path: Path, scheme: str, payload: Callable[[], Any], words: str
) -> None:
    """What is missing, unknown or misshapen is named, the first few at least."""
    torch.save(payload(), tmp_path / "x.pt")
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_encoder(f"{scheme}:{tmp_path / 'x.pt'}")
    assert str(tmp_path / "x.pt") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["simsiam", "dino", "lab"])
def test_files_that_are_none_are_one_line(tmp_path: Path, scheme: str) -> None:
    """A missing file and one that torch did not write are named."""
    with pytest.raises(ConfigurationError, match="found no file"):
        load_encoder(f"{scheme}:{tmp_path / 'nothing.pt'}")
    (tmp_path / "noise.pt").write_bytes(b"noise" * 100)
    with pytest.raises(ConfigurationError, match=r"noise\.pt is not a checkpoint"):
        load_encoder(f"{scheme}:{tmp_path / 'noise.pt'}")


@pytest.fixture
def encoder() -> Encoder:
    """A tiny encoder of 8x8 images."""
    with seeded(0):
        network = resnet(18, stem="small", width=2)
    return TorchEncoder(network, native(8, (0.5,) * 3, (0.25,) * 3), name="tiny")


def test_it_declares_what_batches_may_change(encoder: Encoder) -> None:
    """A torch encoder makes no promise about batch mates."""
    assert isinstance(encoder, RowsIndependent)
    assert not encoder.rows_independent


def test_long_batches_are_cut(encoder: Encoder) -> None:
    """More images than run at once come back in order, from a list and from one array."""
    images = np.random.default_rng(1).integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    rows = encoder.embed(images)
    np.testing.assert_array_equal(rows, encoder.embed(list(images)))
    np.testing.assert_allclose(rows[[0, 70, 149]], encoder.embed(images[[0, 70, 149]]), rtol=1e-4)


@pytest.mark.parametrize("item", ["text", np.zeros((8, 8), np.uint8), [1, 2]])
def test_other_inputs_are_refused(encoder: Encoder, item: Any) -> None:
    """Texts, tokens and gray images are no input of an image encoder."""
    with pytest.raises(InputError):
        encoder.embed([item])


def test_a_network_that_does_not_embed_is_refused() -> None:
    """A network that fails on its first image, or answers no rows of numbers, is named."""
    pixels = native(8, (0.5,) * 3, (0.25,) * 3)
    for network in (torch.nn.Linear(5, 3), torch.nn.Identity()):
        with pytest.raises(ConfigurationError, match="tiny loads but fails on a first image"):
            TorchEncoder(network, pixels, name="tiny")


def test_a_network_that_fails_later_is_an_encoder_error(encoder: Encoder) -> None:
    """The type of the failure is told, its text may quote inputs and is not."""
    assert isinstance(encoder, TorchEncoder)
    encoder.network.fc = torch.nn.Linear(3, 3)
    with pytest.raises(EncoderError, match=r"the network failed with RuntimeError$"):
        encoder.embed(IMAGES)
