"""Train, export and describe the built-in classifier of digits and its detectors.

python training/digits.py --out src/tollkeeper --epochs N --seed S --threads T

Writes `encoders/weights/digits.onnx`, `.json` and `.md`, and `detectors/weights/digits.tkd` and
`.json` below the output folder. Test images appear in the measured figures only.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from digits_card import card
from evaluate_digits import measure
from tollkeeper.data import load_images
from tollkeeper.detectors.bundle import load_bundle, save_bundle
from tollkeeper.detectors.lab.bundling import fit_bundle, recipe_for
from tollkeeper.encoders.classifiers.base import canonical
from tollkeeper.encoders.classifiers.onnx import OnnxClassifier
from tollkeeper.lab.conv3 import Conv3, conv3
from tollkeeper.lab.exporting import export_graph
from tollkeeper.lab.fit import SGD, Schedule, fit, run_network
from tollkeeper.lab.halving import halved
from tollkeeper.lab.progress import Step
from tollkeeper.responses.lab.mad import random_surrogate
from tollkeeper.responses.lab.misinformation import fit_misinformer
from tollkeeper.types import Images

NAME, SHAPE, CLASSES, WIDTH = "digits", (1, 28, 28), tuple("0123456789"), 16
BESIDE = 8  # Width of the networks that only distort answers.
FOR_VICTIM = 24_000
VICTIM = Schedule(epochs=8, batch=128, rate=0.05, optimizer=SGD(weight_decay=5e-4))


class Bar:
    """Progress on standard error, one line a phase."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._phase = ""

    def __call__(self, step: Step) -> None:
        """Move the bar of the step's phase."""
        if step.phase != self._phase:
            self.close()
            self._bar, self._phase = tqdm(total=step.total, desc=step.phase), step.phase
        self._bar.update(step.done - self._bar.n)
        if step.loss is not None:
            self._bar.set_postfix(loss=f"{step.loss:.4g}")

    def close(self) -> None:
        """Finish the last line."""
        if self._bar is not None:
            self._bar.close()


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Train the built-in classifier of digits.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the package")
    parser.add_argument("--epochs", type=int, default=20, help="of the autoencoders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    return parser.parse_args()


def pictures(name: str, split: str) -> tuple[Images, Any]:
    """Return a split as (n, 1, 28, 28) in [0, 1], and its labels."""
    found = load_images(name, split)
    return canonical(found.inputs, SHAPE, name=NAME), found.labels


def train_victim(images: Images, labels: Any, rng: np.random.Generator, bar: Bar) -> Conv3:
    """Train the classifier."""
    network = conv3(SHAPE, len(CLASSES), rng, width=WIDTH)
    shown, wanted = torch.from_numpy(images), torch.from_numpy(labels)

    def loss(index: Tensor) -> Tensor:
        return functional.cross_entropy(run_network(network, shown[index]), wanted[index])

    fit([network], len(images), loss, schedule=VICTIM, rng=rng, progress=bar, phase="victim")
    return network


def write_victim(network: Conv3, folder: Path) -> OnnxClassifier:
    """Export the classifier and return it as it will serve."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.onnx"
    path.write_bytes(halved(export_graph(network, SHAPE, outputs=("logits",))))
    told = {"name": NAME, "classes": list(CLASSES), "outputs": "logits"}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return OnnxClassifier(path)


def main() -> None:
    """Train, write and measure."""
    given = parse_arguments()
    torch.set_num_threads(given.threads)
    rng, bar, began = np.random.default_rng(given.seed), Bar(), time.perf_counter()
    images, labels = pictures("mnist", "train")
    order = rng.permutation(len(images))
    own, rest = order[:FOR_VICTIM], order[FOR_VICTIM:]
    weights = given.out / "encoders" / "weights"
    victim = write_victim(train_victim(images[own], labels[own], rng, bar), weights)
    graphs = response_networks(images[own], labels[own], rng, bar)
    recipe = recipe_for(SHAPE, epochs=given.epochs, labels=True)
    bundle = fit_bundle(
        victim, images[rest], labels[rest], recipe=recipe, graphs=graphs, rng=rng, progress=bar
    )
    bar.close()
    spent = time.perf_counter() - began
    path = given.out / "detectors" / "weights" / f"{NAME}.tkd"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_bundle(path, bundle)
    facts = {
        **circumstances(given),
        "training_seconds": round(spent),
        "training_images": {"victim": len(own), "detectors": len(rest)},
        "bytes": {
            f"{NAME}.onnx": (weights / f"{NAME}.onnx").stat().st_size,
            f"{NAME}.tkd": path.stat().st_size,
        },
        "measured": measure(victim, load_bundle(path), pictures, seed=given.seed),
    }
    text = json.dumps(facts, indent=1) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    (weights / f"{NAME}.md").write_text(card(facts), encoding="utf-8")
    print(text)


def response_networks(
    images: Images, labels: Any, rng: np.random.Generator, bar: Bar
) -> dict[str, bytes]:
    """Return the networks that responses need."""
    misinformer = fit_misinformer(
        conv3(SHAPE, len(CLASSES), rng, width=BESIDE), images, labels, rng=rng, progress=bar
    )
    surrogate = random_surrogate(SHAPE, len(CLASSES), rng, width=BESIDE)
    return {"misinformer": misinformer, "surrogate": surrogate}


def circumstances(given: argparse.Namespace) -> dict[str, Any]:
    """Return what was run, and with what."""
    return {
        "command": f"python training/digits.py --out DIR --epochs {given.epochs} "
        f"--seed {given.seed} --threads {given.threads}",
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


if __name__ == "__main__":
    main()
