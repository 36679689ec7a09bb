"""Train, export and describe the built-in image encoder.

python training/image_encoder.py --data DIR --out DIR --epochs N --seed S --threads T

Writes `image.onnx`, `image-calibration.npz`, `image.json` and `image.md` into the output folder.
No labels and no test images are used in training; both appear in the measured figures only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from tqdm import tqdm

from evaluate_image import calibration, knn_accuracy, measure
from image_card import card
from image_data import default_data_root, read_sheets, training_images
from image_export import export_onnx
from ssl_image import Recipe, Trainer, embed_images

CHECK_EVERY = 10  # epochs


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Train the built-in image encoder.")
    parser.add_argument("--data", type=Path, default=default_data_root(), help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the artifacts")
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    parser.add_argument("--checkpoint", type=Path, help="state to save to and continue from")
    return parser.parse_args()


def versions() -> dict[str, str]:
    """Return the versions that the weights depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def continued(trainer: Trainer, checkpoint: Path | None, history: list[float]) -> float:
    """Load a checkpoint, if there is one, and return the seconds trained so far."""
    if checkpoint is None or not checkpoint.is_file():
        return 0.0
    saved = torch.load(checkpoint, weights_only=True)
    trainer.restore(saved["trainer"])
    history.extend(saved["history"])
    return float(saved["seconds"])


def knn_check(backbone: nn.Module, data: Path) -> float:
    """Return a quick kNN accuracy within train20k (5,000 keys, 1,000 queries), for the log only."""
    images, labels = read_sheets(data, "cifar10", "train20k")
    rows = embed_images(backbone, images[:6000])
    return knn_accuracy(rows[:5000], labels[:5000], rows[5000:], labels[5000:6000])


def train(arguments: argparse.Namespace, trainer: Trainer) -> dict[str, Any]:
    """Train to the end, keep a checkpoint after every epoch and return the facts of the run."""
    checkpoint: Path | None = arguments.checkpoint
    history: list[float] = []
    before = continued(trainer, checkpoint, history)
    first = trainer.epoch
    started = time.monotonic()
    epochs = trainer.recipe.epochs
    with tqdm(total=epochs, initial=trainer.epoch, unit="epoch", mininterval=10.0) as bar:
        while trainer.epoch < epochs:
            history.append(round(trainer.run_epoch(bar), 4))
            seconds = before + time.monotonic() - started
            print(f"epoch {trainer.epoch}/{epochs} loss {history[-1]} {seconds:.0f} s", flush=True)
            if trainer.epoch % CHECK_EVERY == 0 and arguments.device == "cpu":
                print(f"kNN {knn_check(trainer.backbone, arguments.data):.3f}", flush=True)
            if checkpoint is not None:
                state = {"trainer": trainer.state(), "history": history, "seconds": seconds}
                torch.save(state, checkpoint.with_suffix(".part"))
                checkpoint.with_suffix(".part").replace(checkpoint)
    return {
        "command": (
            f"python training/image_encoder.py --data DIR --out DIR --epochs {epochs} "
            f"--seed {arguments.seed} --threads {arguments.threads}"
            + ("" if arguments.device == "cpu" else f" --device {arguments.device}")
        ),
        "continued_after_epochs": first,
        "seed": arguments.seed,
        "training_images": len(trainer.pixels),
        "training_seconds": round(before + time.monotonic() - started),
        "recipe": dataclasses.asdict(trainer.recipe),
        "versions": versions(),
        "loss_per_epoch": history,
    }


def main() -> None:
    """Train, export, measure and write the card."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(epochs=arguments.epochs)
    images = training_images(arguments.data)
    trainer = Trainer(images, recipe, arguments.seed, arguments.device)
    facts = train(arguments, trainer)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    model = out / "image.onnx"
    export_onnx(trainer.backbone.cpu().eval(), recipe.dim, model, facts["command"])
    np.savez(out / "image-calibration.npz", **calibration(model, arguments.data, arguments.seed))
    facts["measured"] = measure(model, arguments.data, seed=arguments.seed)
    (out / "image.json").write_text(json.dumps(facts, indent=2) + "\n")
    (out / "image.md").write_text(card(facts))
    print(json.dumps(facts["measured"], indent=2))


if __name__ == "__main__":
    main()
