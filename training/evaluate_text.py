"""Measure the built-in text encoder from its ONNX file; every figure of its card comes from here.

    python training/evaluate_text.py --data DIR --weights DIR [--out FILE]

Linear probe: multinomial logistic regression on standardized embeddings. The regularization is
chosen on a stratified fifth of the training split; then the probe is refitted on all of it and
the test split is scored once. AG News test texts whose description is in the training subset are
dropped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from text_data import ag_descriptions, ag_titles, fingerprint, read_labelled
from tollkeeper.encoders.builtin_text import WEIGHTS, TextEncoder
from tollkeeper.encoders.tokenizer import split

DENSE_GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SPARSE_GRID = (3.0, 30.0)
NEIGHBORS = 5
SPEED_BATCHES = (1, 32, 2_000)

PARAPHRASES = (
    ("how do i get my money back", "i would like a refund"),
    ("my card has not arrived yet", "i am still waiting for the card you sent"),
    ("the film was dull and far too long", "a boring movie that never seems to end"),
    ("shares fell sharply on wall street", "stocks dropped in new york trading"),
    ("the prime minister resigned on monday", "the head of the government stepped down"),
    ("the team won the championship final", "they took the title with a late goal"),
    ("a flaw in the web browser lets hackers in", "security hole found in internet explorer"),
    ("oil prices hit a record high", "crude futures climbed to a new peak"),
    ("somebody stole my phone", "my mobile was taken from me"),
    ("i cannot remember my passcode", "forgot the pin for the app"),
    ("the troops attacked the city in iraq", "soldiers launched an assault on falluja"),
    ("a funny and touching comedy", "it made me laugh and moved me"),
)


@dataclass(frozen=True)
class Task:
    """One labelled data set: texts and labels of both splits."""

    name: str
    train: tuple[list[str], NDArray[np.int64]]
    test: tuple[list[str], NDArray[np.int64]]


def load_task(data: Path, name: str) -> Task:
    """Read a task; drops the AG News test texts that the training subset holds."""
    train, train_labels = read_labelled(data, name, "train")
    test, test_labels = read_labelled(data, name, "test")
    if name == "ag_news":
        known = set(map(fingerprint, train))
        keep = [fingerprint(text) not in known for text in ag_descriptions(data)]
        test = [text for text, kept in zip(test, keep, strict=True) if kept]
        test_labels = [label for label, kept in zip(test_labels, keep, strict=True) if kept]
    return Task(name, (train, np.asarray(train_labels)), (test, np.asarray(test_labels)))


def probe(
    train: Any,
    labels: NDArray[np.int64],
    test: Any,
    truth: NDArray[np.int64],
    grid: Sequence[float],
) -> dict[str, float]:
    """Fit a logistic regression with held-out regularization; returns accuracy and the choice."""

    def fitted(features: Any, target: NDArray[np.int64], strength: float) -> LogisticRegression:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=strength, max_iter=200).fit(features, target)

    fit, held = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    scores = [
        fitted(train[fit], labels[fit], value).score(train[held], labels[held]) for value in grid
    ]
    best = grid[int(np.argmax(scores))]
    accuracy = fitted(train, labels, best).score(test, truth)
    return {"accuracy": round(float(accuracy), 4), "c": best}


def dense_probe(encoder: TextEncoder, task: Task) -> dict[str, float]:
    """Probe standardized embeddings and add the accuracy of cosine nearest neighbors."""
    train, test = encoder.embed(task.train[0]), encoder.embed(task.test[0])
    scaler = StandardScaler().fit(train)
    result = probe(
        scaler.transform(train), task.train[1], scaler.transform(test), task.test[1], DENSE_GRID
    )
    return result | {"knn": neighbors(train, task.train[1], test, task.test[1])}


def neighbors(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    test: NDArray[np.float32],
    truth: NDArray[np.int64],
) -> float:
    """Return the accuracy of the majority label of the 5 nearest training texts by cosine."""
    nearest = np.argpartition(-(test @ train.T), NEIGHBORS, axis=1)[:, :NEIGHBORS]
    votes = [np.bincount(row).argmax() for row in labels[nearest]]
    return round(float(np.mean(np.asarray(votes) == truth)), 4)


def tfidf_probe(task: Task) -> dict[str, float]:
    """Probe TF-IDF over the same tokens: the floor without any representation learning."""
    vectorizer = TfidfVectorizer(analyzer=split, sublinear_tf=True)
    train = vectorizer.fit_transform(task.train[0])
    test = vectorizer.transform(task.test[0])
    return probe(train, task.train[1], test, task.test[1], SPARSE_GRID)


def untrained(vocabulary: Path, seed: int) -> TextEncoder:
    """Export and open a network of the shipped shape that was never trained."""
    from text_encoder import Recipe, fit_rounding, new_network
    from text_export import write_graph
    from tollkeeper.encoders.tokenizer import Vocabulary

    words = Vocabulary.load(vocabulary)
    network = new_network(words.rows, Recipe(), seed, None)
    network.rounding = fit_rounding(network.table.detach())
    with tempfile.TemporaryDirectory() as folder:
        write_graph(network, words, Path(folder))
        return TextEncoder(weights=Path(folder))


def matched(encoder: TextEncoder, queries: list[str], targets: list[str]) -> dict[str, float]:
    """Return how often target i is the nearest (among the 10 nearest) of query i."""
    similarity = encoder.embed(queries) @ encoder.embed(targets).T
    rank = (similarity > np.diag(similarity)[:, None]).sum(1)
    return {
        "recall_at_1": round(float(np.mean(rank == 0)), 4),
        "recall_at_10": round(float(np.mean(rank < 10)), 4),
    }


def with_typo(text: str, rng: np.random.Generator) -> str:
    """Swap two neighboring letters in the longest word of a text."""
    word = max(text.split(), key=len)
    at = int(rng.integers(0, max(len(word) - 1, 1)))
    return text.replace(word, word[:at] + word[at : at + 2][::-1] + word[at + 2 :], 1)


def retrieval(encoder: TextEncoder, data: Path) -> dict[str, dict[str, float]]:
    """Find the article of a headline, the original of a misspelled question, a paraphrase."""
    rng = np.random.default_rng(0)
    questions = sorted(set(read_labelled(data, "banking77", "test")[0]))
    typos = [with_typo(text, rng) for text in questions]
    left, right = zip(*PARAPHRASES, strict=True)
    return {
        "ag_news_title_to_description": matched(encoder, ag_titles(data), ag_descriptions(data)),
        "banking77_typo_to_original": matched(encoder, typos, questions),
        "paraphrase_pairs": matched(encoder, list(left), list(right)),
    }


def nonlinearity(weights: Path, texts: list[str]) -> float:
    """Return the share of the embedding's variance that no linear map of the pooled sum explains."""
    import onnx

    model = onnx.load(weights / "text.onnx")
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["n", 512])
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "text.onnx")
        vocabulary = (weights / "text-vocab.json.gz").read_bytes()
        (Path(folder) / "text-vocab.json.gz").write_bytes(vocabulary)
        pooled = TextEncoder(weights=Path(folder)).embed(texts).astype(np.float64)
    target = TextEncoder(weights=weights).embed(texts).astype(np.float64)
    half = len(texts) // 2
    inputs = np.hstack([pooled, np.ones((len(texts), 1))])
    gram = inputs[:half].T @ inputs[:half] + 1.0 * np.eye(inputs.shape[1])
    linear = np.linalg.solve(gram, inputs[:half].T @ target[:half])
    error = ((inputs[half:] @ linear - target[half:]) ** 2).sum()
    spread = ((target[half:] - target[half:].mean(0)) ** 2).sum()
    return round(float(error / spread), 4)


def speed(encoder: TextEncoder, texts: list[str]) -> dict[str, float]:
    """Return milliseconds per request of 1, 32 and 2,000 short texts, tokenizer included."""

    def best(run: Callable[[], object], repeats: int) -> float:
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return round(1e3 * float(np.median(times)), 3)

    return {
        f"batch_{size}_ms": best(lambda size=size: encoder.embed(texts[:size]), 5 + 200 // size)
        for size in SPEED_BATCHES
    }


def measure(data: Path, weights: Path) -> dict[str, Any]:
    """Compute all figures of the card."""
    encoder = TextEncoder(weights=weights)
    floor = untrained(weights / "text-vocab.json.gz", seed=1)
    tasks = [load_task(data, name) for name in ("banking77", "ag_news", "sst2")]
    rng = np.random.default_rng(0)
    texts = [text for task in tasks for text in task.test[0]]
    mixed = [texts[at] for at in rng.permutation(len(texts))]
    return {
        "probe": {task.name: dense_probe(encoder, task) for task in tasks},
        "floor_untrained": {task.name: dense_probe(floor, task) for task in tasks},
        "floor_tfidf": {task.name: tfidf_probe(task) for task in tasks},
        "tests": {task.name: len(task.test[0]) for task in tasks},
        "retrieval": retrieval(encoder, data),
        "nonlinear_share": nonlinearity(weights, mixed),
        "speed_one_thread": speed(encoder, tasks[0].test[0]),
        "onnx_bytes": (weights / "text.onnx").stat().st_size,
        "vocabulary_bytes": (weights / "text-vocab.json.gz").stat().st_size,
        "dim": encoder.dim,
    }


def main() -> None:
    """Measure and print, or write, the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, help="JSON file; standard output by default")
    args = parser.parse_args()
    text = json.dumps(measure(args.data, args.weights), indent=2) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
