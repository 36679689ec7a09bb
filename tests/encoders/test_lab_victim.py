"""Promises of the training of victims: objectives, schedule, checkpoint and card."""

from __future__ import annotations

import importlib
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tollkeeper.data import Dataset
from tollkeeper.encoders.load import load_encoder

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
tqdm = pytest.importorskip("tqdm")
pytest.importorskip("sklearn")

from tollkeeper.encoders.lab.compact import CompactLayout  # noqa: E402 - needs torch
from tollkeeper.encoders.lab.resnet import ResNetLayout  # noqa: E402

TRAINING = Path(__file__).parents[2] / "training"
LAYOUTS = [
    CompactLayout(width=4, dim=16),
    ResNetLayout((1, 1, 1, 1), bottleneck=False, stem="small", width=4),
]


@pytest.fixture(autouse=True)
def training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the training scripts importable, and tiny steps fast."""
    monkeypatch.syspath_prepend(TRAINING)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def script(name: str) -> ModuleType:
    """Import a training script."""
    return importlib.import_module(name)


def photographs(count: int, side: int = 16) -> Any:
    """Return images with some structure: colored disks on colored ground, (count, side, side, 3)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    images = np.empty((count, side, side, 3), np.uint8)
    for image in images:
        ground, disk = rng.integers(0, 256, (2, 3))
        y, x = rng.integers(0, side, 2)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < (side // 3) ** 2
        image[:] = np.where(inside[:, :, None], disk, ground)
    return images


def slow_nt_xent(z: Any, temperature: float) -> float:
    """Return equation 1 of SimCLR, pair by pair."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    half, total = len(z) // 2, 0.0
    for i in range(len(z)):
        j = (i + half) % len(z)
        below = sum(math.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i)
        total -= math.log(math.exp(z[i] @ z[j] / temperature) / below)
    return total / len(z)


def slow_decoupled(z: Any, temperature: float) -> float:
    """Return the same without the positive in the denominator."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    half, total = len(z) // 2, 0.0
    for i in range(len(z)):
        j = (i + half) % len(z)
        below = sum(math.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k not in {i, j})
        total -= math.log(math.exp(z[i] @ z[j] / temperature) / below)
    return total / len(z)


@pytest.mark.parametrize(
    ("loss", "oracle"), [("nt_xent_loss", slow_nt_xent), ("decoupled_loss", slow_decoupled)]
)
def test_contrastive_losses_agree_with_slow_ones(loss: str, oracle: Any) -> None:
    """Positives, negatives and temperature are as published."""
    z = np.random.default_rng(0).standard_normal((10, 4))
    fast = getattr(script("ssl_objectives"), loss)(torch.from_numpy(z), 0.3)
    assert float(fast) == pytest.approx(oracle(z, 0.3), rel=1e-5)


def test_the_simsiam_loss_agrees_with_a_slow_one() -> None:
    """Each prediction is compared with the other view's projection, both ways."""
    objective = script("ssl_objectives").SimSiam(4, projection=6, bottleneck=3)
    projected, predicted = np.random.default_rng(0).standard_normal((2, 8, 6))
    total = 0.0
    for i in range(4):
        for a, b in ((i, i + 4), (i + 4, i)):
            norms = np.linalg.norm(predicted[a]) * np.linalg.norm(projected[b])
            total -= 0.5 * predicted[a] @ projected[b] / norms
    fast = objective.loss((torch.from_numpy(projected), torch.from_numpy(predicted)))
    assert float(fast) == pytest.approx(total / 4, rel=1e-5)


def test_simsiam_does_not_differentiate_the_partner() -> None:
    """Gradients reach the projector through the predictor only."""
    objective = script("ssl_objectives").SimSiam(4, projection=6, bottleneck=3)
    projected = torch.randn(8, 6, requires_grad=True)
    predicted = torch.randn(8, 6, requires_grad=True)
    objective.loss((projected, predicted)).backward()
    assert projected.grad is None
    assert float(predicted.grad.abs().sum()) > 0


def test_rates_rise_then_fall() -> None:
    """The rate warms up for at most a tenth of the run and ends at zero."""
    recipe = script("ssl_recipes").SimCLRRecipe(layout=LAYOUTS[0], side=16, epochs=20)
    rates = [recipe.rate(epoch) for epoch in (1, 2, 11, 20)]
    np.testing.assert_allclose(rates, [0.06, 0.12, 0.06, 0.0], atol=1e-9)
    simsiam = script("ssl_recipes").SimSiamRecipe(layout=LAYOUTS[0], side=16, epochs=20)
    assert simsiam.rate(1e-9) == pytest.approx(0.03)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("method", "heads"),
    [("SimCLRRecipe", {"projection": 32}), ("SimSiamRecipe", {"projection": 64, "bottleneck": 16})],
)
def test_an_epoch_lowers_the_loss(method: str, heads: dict[str, int], layout: Any) -> None:
    """One epoch on 512 images makes the loss of the same views smaller."""
    recipe = getattr(script("ssl_recipes"), method)(
        layout=layout, side=16, epochs=1, batch_size=32, rate_per_256=1.0, **heads
    )
    trainer = script("ssl_trainer").Trainer(photographs(512), recipe, seed=0)

    def loss() -> float:
        trainer.views.manual_seed(9)
        with torch.no_grad():
            return float(trainer.loss(trainer.pixels[:128]))

    before = loss()
    with tqdm.tqdm(disable=True) as bar:
        trainer.run_epoch(bar)
    trainer.model.train()
    assert loss() < before - 0.05


def test_the_predictor_keeps_its_rate() -> None:
    """SimSiam's predictor trains at the first rate to the end, everything else decays."""
    recipe = script("ssl_recipes").SimSiamRecipe(
        layout=LAYOUTS[0], side=16, epochs=1, batch_size=32, projection=8, bottleneck=4
    )
    trainer = script("ssl_trainer").Trainer(photographs(64), recipe, seed=0)
    with tqdm.tqdm(disable=True) as bar:
        trainer.run_epoch(bar)
    groups = trainer.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.0, 0.0, 0.00375, 0.00375])
    counts = [sum(p.numel() for p in group["params"]) for group in groups]
    assert sum(counts) == sum(p.numel() for p in trainer.model.parameters())
    assert sum(counts[2:]) == sum(p.numel() for p in trainer.objective.predictor.parameters())


def test_a_run_continues_where_it_stopped() -> None:
    """Two epochs in one go and in two give the same weights."""
    recipe = script("ssl_recipes").SimSiamRecipe(
        layout=LAYOUTS[0], side=16, epochs=2, batch_size=32, projection=8, bottleneck=4
    )
    trainers = [script("ssl_trainer").Trainer(photographs(64), recipe, seed=0) for _ in range(2)]
    with tqdm.tqdm(disable=True) as bar:
        trainers[0].run_epoch(bar)
        state = trainers[0].state()
        trainers[1].restore(from_file(state))
        for trainer in trainers:
            trainer.run_epoch(bar)
    one, other = (trainer.model.state_dict() for trainer in trainers)
    assert all(torch.equal(one[name], other[name]) for name in one)


def from_file(state: Any) -> Any:
    """Return a state as a file would bring it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the script find a tiny data set: dark and bright images, two classes."""
    images = photographs(160) // 2
    labels = np.arange(160) % 2
    images[labels == 1] += 120

    def load(name: str, split: str) -> Dataset:
        part = slice(0, 120) if split == "train" else slice(120, None)
        return Dataset(name, split, images[part], labels[part], ("dark", "bright"), "tiny")

    monkeypatch.setattr(script("victim"), "load_images", load)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("method", "network", "dataset"),
    [("simclr", "builtin", "cifar10"), ("simsiam", "resnet18", "tiny_imagenet")],
)
def test_the_script_writes_a_victim(
    tmp_path: Path, method: str, network: str, dataset: str
) -> None:
    """The checkpoint loads by its SPEC into the trained embeddings, and the card tells the run."""
    words = f"--method {method} --network {network} --dataset {dataset} --epochs 1 --width 2"
    victim = script("victim")
    victim.main([*words.split(), "--batch-size", "16", "--images", "64", "--out", str(tmp_path)])
    encoder = load_encoder(f"lab:{tmp_path / 'victim.pt'}")
    assert encoder.name == f"{method}-{network}-{dataset}"
    facts = json.loads((tmp_path / "victim.json").read_text())
    assert facts["dim"] == encoder.dim
    assert facts["training_images"] == 64
    assert facts["test_images"] == (40 if dataset == "cifar10" else 24)
    assert len(facts["loss_per_epoch"]) == 1
    assert facts["recipe"]["layout"]["width"] == 2
    assert 0.4 < facts["measured"]["victim"]["linear_probe"] <= 1
    card = (tmp_path / "victim.md").read_text()
    assert f"{facts['measured']['victim']['knn200']:.2%}" in card
    trained = torch.load(tmp_path / "training.pt", weights_only=True)["trainer"]["model"]
    network_state = {name[2:]: value for name, value in trained.items() if name.startswith("0.")}
    bare = victim.make_recipe(victim.parse_arguments([*words.split(), "--out", "x"]), 16)
    backbone = bare.make_network(0)
    backbone.load_state_dict(network_state)
    images = photographs(5)
    expected = script("ssl_image").embed_images(backbone, images)
    np.testing.assert_allclose(encoder.embed(images), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("small_data")
def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    """A finished run is not trained again, and another command may not use its folder."""
    words = "--method simclr --network resnet18 --dataset cifar10 --width 2 --out"
    victim = script("victim")
    for _ in range(2):
        victim.main([*words.split(), str(tmp_path), "--batch-size", "16", "--epochs", "1"])
    facts = json.loads((tmp_path / "victim.json").read_text())
    assert len(facts["loss_per_epoch"]) == 1
    with pytest.raises(SystemExit, match="batches of 2 to 120 images, got 0 and 16"):
        victim.main([*words.split(), str(tmp_path), "--batch-size", "16", "--epochs", "0"])
    with pytest.raises(SystemExit, match="another --out"):
        victim.main([*words.split(), str(tmp_path), "--batch-size", "16", "--epochs", "2"])
