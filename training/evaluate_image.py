"""Measure the built-in image encoder from its ONNX file.

python training/evaluate_image.py --data DIR [--model FILE] [--json FILE] [--quick]

Protocol of the linear probe: features of CIFAR-10 train20k and test10k from onnxruntime,
standardized with the mean and deviation of the training features; multinomial logistic regression
(150 steps of L-BFGS from zero on the mean cross-entropy plus an L2 penalty); the strength of the penalty is the best of a fixed grid when fitted on
the first 16,000 training images and scored on the last 4,000, then the probe is refitted on all
20,000 and scored once on the test images. kNN: cosine similarity of the features as they are,
20 neighbors among train20k, votes weighted with exp(similarity / 0.1).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from image_data import Images, Labels, default_data_root, read_sheets, training_images

DEFAULT_MODEL = Path(__file__).resolve().parents[1] / "src/tollkeeper/encoders/weights/image.onnx"
PENALTIES = (1e-3, 1e-2, 1e-1)  # lambda of lambda / 2 * |W|^2 beside the mean cross-entropy
STEPS = 150
SPLIT = 16_000
NEIGHBORS = 20
VOTE_TEMPERATURE = 0.1
PIXEL_COMPONENTS = 512
CHUNK = 32
BATCHES = (1, 2, 7, 32, 256)

Features = npt.NDArray[np.float32]


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model as the serving code does: one session, no arena."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def embed(session: onnxruntime.InferenceSession, images: Images) -> Features:
    """Embed uint8 images (n, 32, 32, 3) to float32 (n, d)."""
    parts = [
        session.run(["embeddings"], {"images": images[i : i + CHUNK]})[0]
        for i in tqdm(range(0, len(images), CHUNK), desc="embed", unit="chunk", mininterval=10.0)
    ]
    return np.concatenate(parts).astype(np.float32)


def _fit_score(
    fit: Features, fit_labels: Labels, score: Features, score_labels: Labels, penalty: float
) -> float:
    """Fit the probe with one penalty and return its accuracy on other rows."""
    mean, deviation = fit.mean(axis=0), fit.std(axis=0) + 1e-6
    x = torch.from_numpy((fit - mean) / deviation)
    y = torch.from_numpy(fit_labels)
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    scores = torch.from_numpy((score - mean) / deviation) @ weight.detach() + bias.detach()
    return float((scores.argmax(dim=1).numpy() == score_labels).mean())


def linear_probe(
    train: Features, train_labels: Labels, test: Features, test_labels: Labels
) -> dict[str, Any]:
    """Run the probe of the module's docstring.

    Returns:
        Test `accuracy`, the chosen `penalty` and its `validation` accuracy.
    """
    validation = {
        c: _fit_score(train[:SPLIT], train_labels[:SPLIT], train[SPLIT:], train_labels[SPLIT:], c)
        for c in tqdm(PENALTIES, desc="probe", unit="fit")
    }
    best = max(validation, key=lambda c: validation[c])
    accuracy = _fit_score(train, train_labels, test, test_labels, best)
    return {
        "accuracy": round(accuracy, 4),
        "penalty": best,
        "validation": round(validation[best], 4),
    }


def knn_accuracy(
    train: Features, train_labels: Labels, test: Features, test_labels: Labels
) -> float:
    """Return the accuracy of the weighted kNN vote of the module's docstring."""
    keys = train / np.maximum(np.linalg.norm(train, axis=1, keepdims=True), 1e-12)
    right = 0
    for start in range(0, len(test), 1000):
        query = test[start : start + 1000]
        query = query / np.maximum(np.linalg.norm(query, axis=1, keepdims=True), 1e-12)
        similarity = query @ keys.T
        near = np.argpartition(-similarity, NEIGHBORS, axis=1)[:, :NEIGHBORS]
        weight = np.exp(np.take_along_axis(similarity, near, axis=1) / VOTE_TEMPERATURE)
        votes = np.zeros((len(query), int(train_labels.max()) + 1))
        for column in range(NEIGHBORS):
            votes[np.arange(len(query)), train_labels[near[:, column]]] += weight[:, column]
        right += int((votes.argmax(axis=1) == test_labels[start : start + 1000]).sum())
    return round(right / len(test), 4)


def quality(
    train: Features, train_labels: Labels, test: Features, test_labels: Labels
) -> dict[str, Any]:
    """Return linear probe and kNN figures of one kind of features."""
    return {
        "linear_probe": linear_probe(train, train_labels, test, test_labels),
        "knn_accuracy": knn_accuracy(train, train_labels, test, test_labels),
    }


def pixel_features(train: Images, test: Images) -> tuple[Features, Features]:
    """Return raw pixels as their first 512 principal components over the training images."""
    rows = [torch.from_numpy(x.reshape(len(x), -1)).float() / 255 for x in (train, test)]
    mean = rows[0].mean(dim=0)
    covariance = (rows[0] - mean).T @ (rows[0] - mean)
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -PIXEL_COMPONENTS:]
    return ((rows[0] - mean) @ axes).numpy(), ((rows[1] - mean) @ axes).numpy()


def untrained_features(train: Images, test: Images, seed: int) -> tuple[Features, Features]:
    """Embed with the network of the default recipe as initialized, its normalization calibrated."""
    import torch

    from ssl_image import Recipe, calibrate_norms, embed_images, make_backbone

    backbone = make_backbone(Recipe(), seed)
    calibrate_norms(backbone, torch.from_numpy(train[:2048]))
    return embed_images(backbone, train), embed_images(backbone, test)


def rows_are_stable(session: onnxruntime.InferenceSession, images: Images) -> bool:
    """Say whether every row has the same bytes in batches of 1, 2, 7, 32 and 256."""
    reference = None
    for batch in BATCHES:
        parts = [
            session.run(["embeddings"], {"images": images[i : i + batch]})[0]
            for i in range(0, len(images), batch)
        ]
        rows = np.concatenate(parts).tobytes()
        if reference is not None and rows != reference:
            return False
        reference = rows
    return True


def milliseconds_an_image(
    session: onnxruntime.InferenceSession, images: Images, batch: int, repeats: int = 60
) -> float:
    """Return the median wall time of one call divided by its batch, in milliseconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        session.run(["embeddings"], {"images": images[:batch]})
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1000 / batch, 3)


def graph_size(path: Path) -> dict[str, Any]:
    """Return parameters, multiply-adds an image and bytes of an ONNX file."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in model.graph.value_info
    }
    macs = sum(
        int(np.prod(shapes[node.output[0]][1:])) * int(np.prod(shapes[node.input[1]][1:]))
        for node in model.graph.node
        if node.op_type == "Conv"
    )
    parameters = sum(int(np.prod(w.dims)) for w in model.graph.initializer)
    return {"parameters": parameters, "macs": macs, "bytes": path.stat().st_size}


def measure(model: Path, data: Path, *, seed: int, quick: bool = False) -> dict[str, Any]:
    """Return every figure of the card.

    Args:
        model: ONNX file.
        data: Dataset folder.
        seed: Seed of the untrained network that serves as a floor.
        quick: Leave out the two floors.
    """
    train, train_labels = read_sheets(data, "cifar10", "train20k")
    test, test_labels = read_sheets(data, "cifar10", "test10k")
    session = open_session(model, 1)
    train_rows, test_rows = embed(session, train), embed(session, test)
    used = (train_rows > 0).mean(axis=0)
    report: dict[str, Any] = {
        "dim": int(train_rows.shape[1]),
        **graph_size(model),
        "encoder": quality(train_rows, train_labels, test_rows, test_labels),
        "share_of_zero_entries": round(float(1 - used.mean()), 4),
        "dead_coordinates": int((used == 0).sum()),
        "rows_independent_of_batch": {
            str(threads): rows_are_stable(open_session(model, threads), test[:512])
            for threads in (1, 2)
        },
        "ms_per_image": {
            f"batch_{batch}": milliseconds_an_image(session, test, batch) for batch in (1, 32)
        },
    }
    if not quick:
        rows = untrained_features(train, test, seed)
        report["untrained_network"] = quality(rows[0], train_labels, rows[1], test_labels)
        rows = pixel_features(train, test)
        report["raw_pixels"] = quality(rows[0], train_labels, rows[1], test_labels)
    return report


def calibration(model: Path, data: Path, seed: int) -> dict[str, Any]:
    """Return the calibration arrays: `mean`, `feature_std`, `sample` and `count`."""
    rows = embed(open_session(model, 1), training_images(data))
    chosen = np.random.default_rng(seed).choice(len(rows), size=512, replace=False)
    variance = rows.astype(np.float64).var(axis=0)
    return {
        "mean": rows.mean(axis=0, dtype=np.float64).astype(np.float32),
        "feature_std": np.float32(np.sqrt(variance.mean())),
        "sample": rows[np.sort(chosen)].astype(np.float16),
        "count": np.int64(len(rows)),
    }


def main() -> None:
    """Parse the command line, measure and print JSON."""
    parser = argparse.ArgumentParser(description="Measure the built-in image encoder.")
    parser.add_argument("--data", type=Path, default=default_data_root())
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained network")
    parser.add_argument("--quick", action="store_true", help="leave out the floors")
    arguments = parser.parse_args()
    report = measure(arguments.model, arguments.data, seed=arguments.seed, quick=arguments.quick)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
