"""Train a self-supervised image encoder to steal from, and describe it.

python training/victim.py --method simclr --network resnet18 --dataset cifar10 --epochs 200 \
    --seed 0 --out DIR --device cuda

Writes `victim.pt`, which the encoder SPEC `lab:DIR/victim.pt` loads, and its card `victim.json`
and `victim.md`. After every epoch the state of the run is kept in `training.pt`, from which the
same command continues. No labels and no test images are used in training.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ssl_card import card
from ssl_image import calibrate_norms
from ssl_recipes import Recipe, SimCLRRecipe, SimSiamRecipe
from ssl_trainer import Images, Trainer
from ssl_views import PIXEL_MEAN, PIXEL_STD
from tollkeeper.bench.theft.probes import Labels, knn200, linear_probe
from tollkeeper.data.images import load_images
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.lab import checkpoints
from tollkeeper.encoders.lab.compact import CompactLayout
from tollkeeper.encoders.lab.pixels import Pixels, Triple, native
from tollkeeper.encoders.lab.resnet import ResNetLayout
from tollkeeper.encoders.lab.torch_encoder import TorchEncoder

METHODS: dict[str, type[SimCLRRecipe | SimSiamRecipe]] = {
    "simclr": SimCLRRecipe,
    "simsiam": SimSiamRecipe,
}
NETWORKS: dict[str, ResNetLayout | CompactLayout] = {
    "builtin": CompactLayout(),
    "resnet18": ResNetLayout((2, 2, 2, 2), bottleneck=False, stem="small"),
    "resnet50": ResNetLayout((3, 4, 6, 3), bottleneck=True, stem="small"),
}
TEST_SPLITS = {"cifar10": "test", "tiny_imagenet": None}
HELD_OUT = 5
"""Where there is no test split, every fifth image of each class is one."""

CALIBRATION_IMAGES = 2048
STATE, CHECKPOINT = "training.pt", "victim.pt"


@dataclass(frozen=True, eq=False)
class Data:
    """Images (n, h, w, 3) and labels (n,) to train on (labels left out) and to test with.

    Attributes:
        source: Where they come from, in words.
    """

    train: Images
    train_labels: Labels
    test: Images
    test_labels: Labels
    source: str

    def fewer(self, count: int, seed: int) -> Data:
        """Return the same with at most `count` training images, drawn at random."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.train))[:count])
        return dataclasses.replace(
            self, train=self.train[chosen], train_labels=self.train_labels[chosen]
        )


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Train a self-supervised victim.")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--dataset", choices=TEST_SPLITS, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the artifacts")
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, help="channels of the first stage, to try things out")
    parser.add_argument("--images", type=int, help="train on N of them, to try things out")
    return parser.parse_args(words)


def read_data(name: str) -> Data:
    """Return a data set in two parts that share no image."""
    train, split = load_images(name, "train"), TEST_SPLITS[name]
    part = f"split `train` ({train.subset or 'all of it'})"
    images, labels = np.asarray(train.inputs), train.labels
    assert labels is not None
    if split is None:
        held = held_out(labels)
        source = f"{part} less every fifth image of each class, which are the test images"
        return Data(images[~held], labels[~held], images[held], labels[held], source)
    test = load_images(name, split)
    assert test.labels is not None
    return Data(images, labels, np.asarray(test.inputs), test.labels, part)


def held_out(labels: Labels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark every fifth of each class, (n,)."""
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        held[np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
    return held


def make_recipe(arguments: argparse.Namespace, side: int) -> SimCLRRecipe | SimSiamRecipe:
    """Return the recipe that the command line names."""
    layout = NETWORKS[arguments.network]
    if arguments.width is not None:
        layout = dataclasses.replace(layout, width=arguments.width)
    return METHODS[arguments.method](
        layout=layout, side=side, epochs=arguments.epochs, batch_size=arguments.batch_size
    )


def train(trainer: Trainer, state: Path, key: str) -> dict[str, Any]:
    """Train to the end, keep the state after every epoch and return the facts of the run.

    Args:
        trainer: Just started.
        state: File to continue from, if it is there, and to keep the state in.
        key: Tells runs apart; a state of another run is refused.
    """
    history: list[float] = []
    before = 0.0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        if saved["key"] != key:
            raise SystemExit(f"{state} belongs to another command; use another --out")
        trainer.restore(saved["trainer"])
        history, before = saved["history"], saved["seconds"]
    started = time.monotonic()
    epochs = trainer.recipe.epochs
    with tqdm(total=epochs, initial=trainer.epoch, unit="epoch", mininterval=10.0) as bar:
        while trainer.epoch < epochs:
            history.append(round(trainer.run_epoch(bar), 4))
            seconds = before + time.monotonic() - started
            print(f"epoch {trainer.epoch}/{epochs} loss {history[-1]} {seconds:.0f} s", flush=True)
            kept = {"trainer": trainer.state(), "history": history, "seconds": seconds, "key": key}
            torch.save(kept, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)
    seconds = before + time.monotonic() - started
    return {"loss_per_epoch": history, "training_seconds": round(seconds)}


def quality(encoder: Encoder, data: Data) -> dict[str, float]:
    """Return linear-probe and kNN-200 accuracy of frozen embeddings on the test part."""
    known, asked = encoder.embed(data.train), encoder.embed(data.test)
    probes = {"linear_probe": linear_probe, "knn200": knn200}
    return {
        name: round(float((probe(known, data.train_labels, asked) == data.test_labels).mean()), 4)
        for name, probe in probes.items()
    }


def untrained(recipe: Recipe, pixels: Pixels, images: Images, seed: int) -> TorchEncoder:
    """Return the network as initialized, its normalizations calibrated."""
    network: nn.Module = recipe.make_network(seed)
    calibrate_norms(network, torch.from_numpy(images[:CALIBRATION_IMAGES]))
    return TorchEncoder(network, pixels, name="untrained")


def describe(arguments: argparse.Namespace, data: Data, recipe: Recipe) -> dict[str, Any]:
    """Return the facts of a run that are known before it."""
    settings = {
        name: value
        for name, value in vars(arguments).items()
        if name not in {"out", "device", "threads"} and value is not None
    }
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    return {
        "name": f"{arguments.method}-{arguments.network}-{arguments.dataset}",
        "command": f"python training/victim.py {options} --out DIR --device {arguments.device}",
        **settings,
        "method_title": METHODS[arguments.method].title,
        "device": device_name(arguments.device),
        "source": data.source,
        "calibration_images": CALIBRATION_IMAGES,
        "training_images": len(data.train),
        "test_images": len(data.test),
        "training_sha256": hashlib.sha256(data.train.tobytes()).hexdigest(),
        "dim": recipe.layout.embedding_dim,
        "recipe": dataclasses.asdict(recipe),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }


def to_unit(levels: Triple) -> Triple:
    """Turn the levels 0 to 255 of three channels into 0 to 1."""
    red, green, blue = levels
    return red / 255, green / 255, blue / 255


def device_name(device: str) -> str:
    """Name the processor that trains."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} CPU threads"


def main(words: list[str] | None = None) -> None:
    """Train, save, measure and write the card."""
    arguments = parse_arguments(words)
    torch.set_num_threads(arguments.threads)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    data = read_data(arguments.dataset)
    if arguments.images is not None:
        data = data.fewer(arguments.images, arguments.seed)
    if arguments.epochs < 1 or not 2 <= arguments.batch_size <= len(data.train):
        raise SystemExit(
            f"expected at least 1 epoch and batches of 2 to {len(data.train)} images, "
            f"got {arguments.epochs} and {arguments.batch_size}"
        )
    recipe = make_recipe(arguments, side=data.train.shape[1])
    facts = describe(arguments, data, recipe)
    trainer = Trainer(data.train, recipe, arguments.seed, arguments.device)
    facts |= train(trainer, out / STATE, key=json.dumps(facts, sort_keys=True))
    pixels = native(recipe.side, to_unit(PIXEL_MEAN), to_unit(PIXEL_STD))
    checkpoints.save(out / CHECKPOINT, trainer.backbone, pixels, name=facts["name"])
    facts["measured"] = {
        "victim": quality(checkpoints.lab(out / CHECKPOINT), data),
        "untrained": quality(untrained(recipe, pixels, data.train, arguments.seed), data),
    }
    (out / "victim.json").write_text(json.dumps(facts, indent=2) + "\n")
    (out / "victim.md").write_text(card(facts))
    print(json.dumps(facts["measured"], indent=2))


if __name__ == "__main__":
    main()
