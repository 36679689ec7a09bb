"""Promises of `tollkeeper detectors`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.detectors.bundle import load_bundle  # noqa: E402
from tollkeeper.detectors.history import History  # noqa: E402
from tollkeeper.encoders.classifiers.load import load_classifier  # noqa: E402
from tollkeeper.lab.exporting import export_graph  # noqa: E402

SHAPE, CLASSES = (1, 20, 20), 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, honest tensors with their labels, and noise."""
    folder = tmp_path_factory.mktemp("detectors")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(400, CLASSES))
    (folder / "victim.onnx").write_bytes(export_graph(network, SHAPE, outputs=("logits",)))
    (folder / "victim.json").write_text('{"outputs": "logits"}')
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 2000)
    images = np.zeros((2000, *SHAPE), np.float32)
    for place, label in enumerate(labels):
        images[place, 0, 6 * label : 6 * label + 6] = rng.random((6, 20))
    np.save(folder / "honest.npy", images)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "noise.npy", rng.random((50, *SHAPE), dtype=np.float32))
    return folder


def words(made: Path, honest: str, *more: str | Path) -> tuple[str | Path, ...]:
    """Return the command that fits on a file of the folder."""
    spec = f"onnx:{made / 'victim.onnx'}"
    data = ("--classifier", spec, "--honest", made / honest)
    return ("detectors", "fit", *data, "-o", made / "made.tkd", *more)


def test_fitted_detectors_guard_their_victim(cli: Callable[..., Any], made: Path) -> None:
    """The file is for its victim, tells noise from honest inputs, and `show` tells of it."""
    more = ("--labels", made / "labels.npy", "--auxiliary", made / "noise.npy", "--epochs", "1")
    done = cli(*words(made, "honest.npy", *more, "--json"))
    assert done.status == 0, done.err
    told = json.loads(done.out)
    bundle = load_bundle(made / "made.tkd")
    bundle.check_victim(load_classifier(f"onnx:{made / 'victim.onnx'}"))

    assert told["recommended"] == bundle.recommended == "fused"
    assert told["auxiliary"]["fused"] == 1
    assert {one["name"] for one in told["detectors"]} == set(bundle.detectors)
    assert all(one["honest"] == 700 for one in told["detectors"])

    shown = cli("detectors", "show", made / "made.tkd", "--json")
    assert json.loads(shown.out) == {key: told[key] for key in told if key != "auxiliary"}
    prose = cli("detectors", "show", made / "made.tkd").out
    assert "* fused" in prose
    assert "for victim (1 x 20 x 20, 3 classes)" in prose


def test_a_detector_is_recommended_and_responses_are_packed(
    cli: Callable[..., Any], made: Path
) -> None:
    """`--recommend` picks one, which accounts are followed by; `--responses` adds networks."""
    more = ("--recommend", "max-softmax", "--responses", "--auxiliary", made / "noise.npy")
    done = cli(*words(made, "honest.npy", *more, "--epochs", "1"))
    assert done.status == 0, done.err
    bundle = load_bundle(made / "made.tkd")
    assert bundle.recommended == "max-softmax"
    assert isinstance(bundle.account, History)
    assert bundle.account.detector.name == "max-softmax"
    assert sorted(bundle.graphs) == ["misinformer", "surrogate"]
    assert "consider --recommend" in done.err
    assert len(done.err.splitlines()) == 1


def test_the_detectors_of_a_built_in_classifier_are_shown(cli: Callable[..., Any]) -> None:
    """Nobody has to know where the file lies."""
    assert "* fused" in cli("detectors", "show", "builtin:digits").out
    assert "* same" in cli("detectors", "show", "builtin:digits#same").out
    assert "expected a detector of fused" in cli("detectors", "show", "builtin:digits#x").err


@pytest.mark.parametrize(
    ("honest", "more", "words_"),
    [
        ("noise.npy", (), "at least 2,000 honest inputs, got 50"),
        ("none", (), "unknown image data set"),
        ("labels.npy", (), "expected a picture of 20 x 20 pixels"),
        ("victim.json", (), "expected images"),
        ("honest.npy", ("--labels", "noise.npy"), "expected 2000 whole numbers from 0 to 2"),
    ],
)
def test_bad_input_is_one_clear_line(
    cli: Callable[..., Any], made: Path, honest: str, more: tuple[str, ...], words_: str
) -> None:
    """Too little, unreadable or misfitting data ends with status 2 and one line."""
    options = [made / one if one.endswith(".npy") else one for one in more]
    command = [*words(made, honest, *options)]
    if honest == "none":
        command[command.index(made / "none")] = "none"
    done = cli(*command)

    assert done.status == 2
    assert words_ in done.err
    assert done.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_told_at_once(cli: Callable[..., Any], made: Path) -> None:
    """Nobody trains for minutes to learn that the result cannot be kept."""
    done = cli(*words(made, "honest.npy")[:-1], made / "no" / "x.tkd")

    assert done.status == 2
    assert "there is no such folder" in done.err


def test_showing_what_is_no_detector_file_fails(cli: Callable[..., Any], made: Path) -> None:
    """Another file is refused by its name."""
    done = cli("detectors", "show", made / "victim.onnx")

    assert done.status == 2
    assert "cannot use the detector file" in done.err
