"""From SPECs to classifiers, and users' own Python as classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.errors import ConfigurationError, EncoderError, InputError

FIXTURES = Path(__file__).parent / "fixtures"

MODULE = """
import numpy as np

def brightness(pictures):
    white = pictures.mean(axis=(1, 2, 3))
    return np.stack([1 - white, white], axis=1)

brightness.classes = ("black", "white")
brightness.input_shape = (1, 2, 2)

def length(texts):
    if "bad" in texts:
        raise RuntimeError(texts)
    return [[1, 0] if len(text) < 3 else [0, 1.5 * (len(text) < 9)] for text in texts]

length.classes = ["short", "long"]

class Own:
    name, dim, accepts = "own", 2, frozenset({"tensor"})
    classes, input_shape = ("a", "b"), (1, 2, 2)
    def embed(self, inputs):
        return np.full((len(inputs), 2), 0.5, np.float32)

def lonely(texts):
    return [[1] for _ in texts]

lonely.classes = ["only"]

def flat(pictures):
    return pictures

flat.classes, flat.input_shape = ("a", "b"), (28, 28)

number = 3

def breaks():
    raise RuntimeError("no weights")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a user's module on the path."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_function_with_classes_is_a_classifier(module: str) -> None:
    """A function of stacked pictures is served with the classes and the shape that it tells."""
    classifier = load_classifier(f"python:{module}:brightness")
    assert (classifier.name, classifier.classes) == ("brightness", ("black", "white"))
    assert (classifier.input_shape, classifier.dim) == ((1, 2, 2), 2)
    white = np.full((2, 2, 3), 255, np.uint8)
    assert classifier.embed([white, white]).tolist() == [[0, 1], [0, 1]]
    assert classifier.embed([]).shape == (0, 2)
    with pytest.raises(InputError, match="shape"):
        classifier.embed([np.zeros((1, 3, 3), np.float32)])


def test_a_function_of_texts_is_a_classifier(module: str) -> None:
    """Without a shape a function gets the list of texts; what it does wrong is its failure."""
    classifier = load_classifier(f"python:{module}:length")
    assert classifier.accepts == {"text"}
    assert classifier.input_shape is None
    assert classifier.embed(["a"]).tolist() == [[1, 0]]
    with pytest.raises(EncoderError, match="sum to 1"):
        classifier.embed(["long"])
    with pytest.raises(EncoderError, match=r"failed with RuntimeError$"):
        classifier.embed(["bad"])
    with pytest.raises(InputError):
        classifier.embed([[1, 2]])


def test_a_classifier_or_its_factory_is_taken_as_it_is(module: str) -> None:
    """A class that makes a classifier is called once."""
    classifier = load_classifier(f"python:{module}:Own")
    assert classifier.name == "own"


def test_an_onnx_file_is_a_classifier() -> None:
    """`onnx:PATH` runs a graph."""
    classifier = load_classifier(f"onnx:{FIXTURES / 'classify.onnx'}")
    assert classifier.name == "classify"


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("number", "expected a classifier"),
        ("lonely", "at least 2 classes"),
        ("flat", r"\(c, h, w\)"),
        ("breaks", "RuntimeError: no weights"),
        ("missing", "AttributeError"),
        ("", "module:attribute"),
    ],
)
def test_python_that_is_no_classifier_is_refused(module: str, attribute: str, message: str) -> None:
    """What cannot classify is refused with the SPEC and the reason."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_classifier(f"python:{module}:{attribute}")
    assert f"python:{module}" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown classifier spec"),
        ("builtin:text", "unknown classifier spec"),
        ("onnx:", "unknown classifier spec"),
        ("kserve:http://host", "no model"),
        ("kserve:http://host?labels=a#m", "labels"),
        ("kserve:http://host?outputs=votes#m", "votes"),
        ("kserve:http://host?batch=0#m", "batch"),
        ("kserve:http://host?classes#m", "options"),
        ("kserve:http://host?classes=/none/at/all#m", "cannot read"),
        ("kserve:ftp://host#m", "https://host"),
    ],
)
def test_unusable_specs_are_refused(spec: str, message: str) -> None:
    """A SPEC that names nothing usable is refused before anything is asked."""
    with pytest.raises(ConfigurationError, match=message):
        load_classifier(spec)
