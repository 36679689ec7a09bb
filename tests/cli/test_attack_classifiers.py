"""Promises of `tollkeeper attack run` against classifiers, of this process and live."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.gateway.predict_tariff import Evidence

VICTIM = """
import numpy as np

def bands(pictures):
    thirds = pictures[:, 0, :27].reshape(len(pictures), 3, -1).mean(axis=2)
    raised = np.exp(20 * thirds.astype(np.float64))
    return raised / raised.sum(axis=1, keepdims=True)

bands.classes, bands.input_shape = ("top", "middle", "bottom"), (1, 28, 28)

def two(pictures):
    return np.full((len(pictures), 2), 0.5)

two.classes, two.input_shape = ("a", "b"), (1, 28, 28)
"""
SETTINGS = ("--set", "epochs=5", "--set", "network.width=4", "--seeds", "2")


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array as MNIST's files hold it."""
    head = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the SPEC of a classifier that tells which third of a picture is brightest."""
    name = f"victim_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(VICTIM)
    monkeypatch.syspath_prepend(tmp_path)
    return f"python:{name}:bands"


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put handmade pictures of three classes where MNIST is looked for."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 90)):
        labels = np.arange(count, dtype=np.uint8) % 3
        images = rng.integers(0, 128, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[9 * label : 9 * label + 9] += 80
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    monkeypatch.setenv("TOLLKEEPER_DATA", str(tmp_path / "data"))


@pytest.fixture
def steal(
    cli: Callable[..., Any], tmp_path: Path, digits: None, victim: str
) -> Iterator[Callable[..., Any]]:
    """Copy the classifier; later words override earlier ones."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(
        *words: str | Path, name: str = "knockoff", budget: str = "20,60", task: str = "mnist"
    ) -> Any:
        given = ("--target", victim, "--queries", "mnist", "--task", task, "--budget", budget)
        return cli("attack", "run", name, *given, "--out", tmp_path / "out", *SETTINGS, *words)

    yield run
    torch.set_num_threads(before)


def result(folder: Path) -> Any:
    """Return what was written."""
    return json.loads((folder / "out" / "result.json").read_text())


@pytest.mark.torch
def test_a_classifier_of_this_process_is_copied(steal: Any, tmp_path: Path) -> None:
    """One row a budget, with fidelity as agreement, and accuracy on the test set."""
    done = steal("--fail-on", "fidelity@100<0.9", "--set", "epochs=20", budget="20,100")
    assert (done.status, done.err) == (0, "")
    head = done.out.splitlines()[0].split()
    assert head == [
        "budget",
        "queries",
        "repeats",
        "calls",
        "money",
        "seconds",
        "fidelity",
        "seeds",
    ]
    tree = result(tmp_path)
    assert (tree["copies"], tree["model"], tree["dim"]) == ("classifier", "bands", 3)
    assert [row["queries"] for row in tree["rows"]] == [20, 100]
    assert tree["rows"][0]["self_trained"] is None
    assert set(tree["rows"][1]["figures"]) == {"fidelity", "agreement.mnist", "accuracy.mnist"}
    assert (tree["victim"]["fidelity"], tree["scored_on"]) == (1.0, 90)
    assert "the same class" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jbda", ("--set", "seeds=10", "--set", "rounds.epochs=1")),
        ("knockoff-adaptive", ()),
        ("knockoff-rotating", ("--accounts", "2")),
        ("copycat", ()),
        ("dfme", ("--set", "batch=2", "--set", "student_steps=1")),
    ],
)
def test_other_attacks_and_accounts_run(
    steal: Any, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    """Attacks that make or choose their queries spend what they may."""
    done = steal(*words, name=name, budget="40", task="none" if name == "copycat" else "mnist")
    assert done.status == 0, done.err
    (row,) = result(tmp_path)["rows"]
    assert 0 < row["queries"] <= 40


@pytest.mark.torch
def test_a_live_classifier_is_asked_once(
    steal: Any, victim: str, start_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds and a second command share the answers; the copy is as good as one of this process."""
    gateway = start_gateway(classifier=load_classifier(victim), evidence=Evidence("toy"))
    monkeypatch.setenv("TOLLKEEPER_TARGET_KEY", gateway.key)
    local = steal("--seeds", "1")
    assert local.status == 0
    live = ("--target", gateway.url, "--reference", victim)
    done = steal(*live)
    assert done.status == 0, done.err
    tree = result(tmp_path)
    assert (tree["spend"]["distinct"], tree["is_live"]) == (60, True)
    records = len(list(gateway.gateway.store.records()))
    again = steal(*live)
    assert again.status == 0
    assert len(list(gateway.gateway.store.records())) == records
    assert gateway.key not in done.out + done.err + again.out + again.err


@pytest.mark.torch
def test_bad_input_is_one_line(steal: Any, victim: str, tmp_path: Path) -> None:
    """Whatever cannot be run ends with status 2 and one line."""
    (tmp_path / "texts.txt").write_text("a\nb\nc\n")
    for words, options, named in (
        (("--queries", "broad_text"), {}, "emnist_letters"),
        (("--queries", tmp_path / "texts.txt"), {}, "asks pictures, got texts"),
        ((), {"task": "sst2"}, "no pictures 'sst2'"),
        ((), {"task": "kmnist,none"}, "got both"),
        (("--profile", "recommended"), {}, "serve the classifier"),
        (("--target", "builtin:text"), {}, "unknown classifier spec"),
        (
            ("--target", "python:tollkeeper.testing.victims:ToyTextVictim"),
            {},
            "expected a classifier",
        ),
        (("--fail-on", "recall10@60>0.5"), {}, "no metric 'recall10'"),
        (("--target", victim.replace("bands", "two")), {}, "2 classes, and mnist has more"),
        ((), {"budget": "400"}, "got 400"),
        ((), {"name": "knockoff-rotating"}, "at least 2 accounts"),
        ((), {"name": "direct-mse"}, "no inputs 'mnist'"),
    ):
        failed = steal(*words, **options)
        assert (failed.status, failed.out) == (2, ""), words
        assert len(failed.err.splitlines()) == 1, failed.err
        assert named in failed.err, failed.err


class Whiteness:
    """Scores pictures by their means."""

    name = "whiteness"

    def score(self, inputs: Any, outputs: Any) -> Any:
        """Return (n,) means."""
        del outputs
        return inputs.mean(axis=(1, 2, 3), dtype=np.float64)


class Count:
    """Suspects whoever has asked more than so many."""

    name, state_bytes = "count", 4

    def __init__(self, most: int) -> None:
        """Let so many be asked."""
        self.most = most

    def empty(self) -> bytes:
        """Return no queries."""
        return bytes(4)

    def update(self, state: bytes, inputs: Any, outputs: Any) -> Any:
        """Count n queries."""
        del outputs
        counts = int.from_bytes(state, "little") + 1 + np.arange(len(inputs))
        return counts.astype(np.float64), int(counts[-1]).to_bytes(4, "little")

    def alarm_at(self, rate: float) -> float:
        """Return the count that is too large."""
        del rate
        return float(self.most)


@pytest.mark.torch
def test_refused_pictures_are_left_out(
    steal: Any, victim: str, start_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that refuses many pictures neither ends the attack nor stops its first query."""
    honest = np.sort(np.random.default_rng(0).normal(0.3519, 0.0005, 400))
    plans = {"r": {"predictions": {"refuse_rank": 0.5, "alarm": None}}}
    gateway = start_gateway(
        classifier=load_classifier(victim),
        evidence=Evidence("toy", Whiteness(), honest),
        plans=plans,
        plan="r",
    )
    monkeypatch.setenv("TOLLKEEPER_TARGET_KEY", gateway.key)
    for reference in ((), ("--reference", victim)):
        out = tmp_path / f"out{len(reference)}"
        done = steal(
            *("--target", gateway.url, *reference, "--seeds", "1", "--out", out), budget="60"
        )
        assert done.status == 0, done.err
        tree = json.loads((out / "result.json").read_text())
        (row,) = tree["rows"]
        assert 5 <= row["queries"] <= 55, row
        assert 0.3 <= row["figures"]["fidelity"]["mean"] <= 1
        assert tree["scored_on"] == 90 if reference else tree["scored_on"] < 90


@pytest.mark.torch
@pytest.mark.parametrize(
    "caught", [("knockoff", 0), ("knockoff-adaptive", 1), ("knockoff-adaptive", 8)]
)
def test_a_caught_thief_leaves_a_report(
    steal: Any,
    victim: str,
    start_gateway: Any,
    monkeypatch: pytest.MonkeyPatch,
    caught: tuple[str, int],
) -> None:
    """However few answers there were, the row tells how many, why, and what a copy is worth."""
    name, most = caught
    gateway = start_gateway(
        classifier=load_classifier(victim),
        evidence=Evidence("toy", Whiteness(), np.linspace(0, 1, 400), Count(most)),
        plans={"r": {"predictions": {"alarm": 0.01}}},
        plan="r",
    )
    monkeypatch.setenv("TOLLKEEPER_TARGET_KEY", gateway.key)
    words = ("--target", gateway.url, "--reference", victim, "--seeds", "1")
    done = steal(*words, name=name, budget="60")
    assert done.status == 0, done.err
    assert "60 queries: partial: the target takes no more from this account" in done.err
    assert "run again later" not in done.err
    (row,) = json.loads(steal("--json", *words, name=name, budget="60").out)["rows"]
    assert row["queries"] == most
    assert 0 <= row["figures"]["fidelity"]["mean"] <= 1
    unknown = steal(*words, "--fail-on", "fidelity@60>1", name=name, budget="60")
    assert unknown.status == 2
    failed = steal(*words, "--fail-on", "fidelity@60>=0", name=name, budget="60")
    assert failed.status == 1
