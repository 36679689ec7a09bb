"""Measure the built-in classifier of digits and its detectors.

python training/evaluate_digits.py

Nothing here was looked at in training: MNIST's test images are honest, letters and other drawings
are not. Writes the figures into `digits.json` and the card anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from digits_card import card
from tollkeeper.detectors.bundle import Bundle, load_bundle
from tollkeeper.detectors.history import History
from tollkeeper.detectors.lab.bundling import asked
from tollkeeper.encoders.classifiers.onnx import OnnxClassifier
from tollkeeper.lab.progress import silent
from tollkeeper.types import Images

FOREIGN = (("emnist_letters", "test"), ("kmnist", "test"), ("fashion_mnist", "test"))
MOST = 2000
MIXES = (1.0, 0.5, 0.1, 0.02, 0.01)
RANKS = (0.95, 0.99)
ALARM = 0.01
QUERIES = 1000

Pictures = Callable[[str, str], tuple[Images, Any]]


def measure(
    victim: OnnxClassifier, bundle: Bundle, pictures: Pictures, *, seed: int
) -> dict[str, Any]:
    """Return accuracy, shares of honest and foreign queries above ranks, alarms and times."""
    rng = np.random.default_rng([seed, 1])
    honest, labels = pictures("mnist", "test")
    answers = asked(victim, honest, silent)
    traffics = {"mnist": (honest, answers), **foreign(victim, pictures, rng)}
    scores = {
        name: {traffic: one.score(*queries) for traffic, queries in traffics.items()}
        for name, one in bundle.detectors.items()
    }
    return {
        "accuracy": float((answers.argmax(axis=1) == labels).mean()),
        "above": {
            name: {
                traffic: [float((bundle.rank(one, name) >= rank).mean()) for rank in RANKS]
                for traffic, one in of.items()
            }
            for name, of in scores.items()
        },
        "honest_scores": {
            name: {
                "count": len(one),
                **{f"{q:g}": float(np.quantile(one, q)) for q in (0.5, 0.95, 0.99)},
            }
            for name, one in bundle.honest.items()
        },
        **of_accounts(bundle, scores["fused"], labels, rng),
        "microseconds": times(victim, bundle, honest[:64], answers[:64]),
    }


def foreign(
    victim: OnnxClassifier, pictures: Pictures, rng: np.random.Generator
) -> dict[str, tuple[Images, Any]]:
    """Return what is not honest, and the answers to it."""
    found = {}
    for name, split in FOREIGN:
        images, _ = pictures(name, split)
        kept = images[rng.permutation(len(images))[:MOST]]
        found[name] = kept, asked(victim, kept, silent)
    return found


def of_accounts(
    bundle: Bundle, scores: dict[str, Any], labels: Any, rng: np.random.Generator
) -> dict[str, Any]:
    """Return what whole accounts of test images and of letters meet."""
    history, honest = bundle.account, scores["mnist"]
    assert isinstance(history, History)
    letters = scores["emnist_letters"]
    return {
        "false_alarms": false_alarms(history, honest, rng),
        "one_digit_alarms": one_digit(history, honest, labels),
        "queries_to_alarm": {
            f"{mix:g}": queries_to_alarm(history, honest, letters, mix, rng) for mix in MIXES
        },
    }


def false_alarms(history: History, scores: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Return how many accounts of honest test queries ever raise the alarm.

    No query is in two accounts: more accounts of the same queries would tell nothing more.
    """
    accounts = np.array_split(rng.permutation(scores), len(scores) // QUERIES)
    raised = [
        bool(history.follow(history.empty(), one)[0].max() >= history.alarm_at(ALARM))
        for one in accounts
    ]
    return {"rate": ALARM, "raised": sum(raised), "accounts": len(raised), "of": QUERIES}


def one_digit(history: History, scores: Any, labels: Any) -> list[str]:
    """Return the digits whose accounts, that ask nothing else, raise the alarm.

    Such accounts are honest but no draws from the calibration's traffic: the law is silent on them.
    """
    return [
        str(digit)
        for digit in range(10)
        if history.follow(history.empty(), scores[labels == digit])[0].max()
        >= history.alarm_at(ALARM)
    ]


def queries_to_alarm(
    history: History, honest: Any, foreign: Any, mix: float, rng: np.random.Generator
) -> float | None:
    """Return the median query at which a thief is caught that hides among honest queries."""
    found = []
    for _ in range(25):
        stream = rng.permutation(honest)
        bad = rng.random(len(stream)) < mix
        stream[bad] = rng.choice(foreign, int(bad.sum()))
        reached = np.flatnonzero(
            history.follow(history.empty(), stream)[0] >= history.alarm_at(ALARM)
        )
        found.append(reached[0] + 1 if len(reached) else np.inf)
    middle = float(np.median(found))
    return middle if np.isfinite(middle) else None


def times(victim: OnnxClassifier, bundle: Bundle, images: Images, answers: Any) -> dict[str, float]:
    """Return the least microseconds that one query alone takes, on one thread, in turns."""
    runs: dict[str, Callable[[int], object]] = {"victim": lambda i: victim.embed(images[i : i + 1])}
    for name, one in bundle.detectors.items():
        runs[name] = lambda i, one=one: one.score(images[i : i + 1], answers[i : i + 1])
    least = dict.fromkeys(runs, np.inf)
    for turn in range(200):
        for name, run in runs.items():
            began = time.perf_counter()
            run(turn % len(images))
            least[name] = min(least[name], time.perf_counter() - began)
    return {name: round(1e6 * seconds, 1) for name, seconds in least.items()}


def main() -> None:
    """Measure what is shipped and write its card."""
    from digits import NAME, pictures

    package = Path(__file__).parents[1] / "src" / "tollkeeper"
    weights = package / "encoders" / "weights"
    bundle = package / "detectors" / "weights" / f"{NAME}.tkd"
    about = bundle.with_suffix(".json")
    facts = json.loads(about.read_text(encoding="utf-8"))
    victim = OnnxClassifier(weights / f"{NAME}.onnx")
    facts["measured"] = measure(victim, load_bundle(bundle), pictures, seed=0)
    about.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (weights / f"{NAME}.md").write_text(card(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
