"""Promises of encoder specs."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import httpx2
import numpy as np
import pytest

import tollkeeper.encoders
from tollkeeper.encoders.base import RowsIndependent
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.load import KNOWN_SPECS, builtin_calibration_path, load_encoder
from tollkeeper.encoders.onnx_encoder import OnnxEncoder
from tollkeeper.encoders.upstream import UpstreamEncoder
from tollkeeper.errors import ConfigurationError

FIXTURES = Path(__file__).parent / "fixtures"


class Squares:
    """A callable with a width that embeds tokens."""

    dim = 1
    accepts = frozenset({"tokens"})

    def __call__(self, batch: list[list[int]]) -> list[list[int]]:
        """Return the sum of squares of each list."""
        return [[sum(token**2 for token in tokens)] for tokens in batch]


class Independent(Squares):
    """A callable that promises independent rows."""

    rows_independent = True


def plain(batch: list[str]) -> list[list[float]]:
    """An embedding function that says nothing about itself."""
    return [[float(len(text)), 1.0] for text in batch]


def no_width(batch: object) -> object:
    """Return its argument; not a factory and no encoder."""
    return batch


def fail() -> object:
    """Fail as a factory may."""
    raise RuntimeError("no GPU")


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Put a module of a user's making among the importable ones."""
    module = types.ModuleType("user_models")
    vars(module).update(
        encoder=CallableEncoder(lambda batch: [[0.0]] * len(batch), dim=1, name="ready"),
        squares=Squares(),
        Squares=Squares,
        Independent=Independent,
        promising=CallableEncoder(lambda _: [[0.0]], dim=1, rows_independent=True),
        make=lambda: CallableEncoder(lambda batch: [[0.0]] * len(batch), dim=1, name="made"),
        no_width=no_width,
        plain=plain,
        fail=fail,
        number=3,
    )
    monkeypatch.setitem(sys.modules, "user_models", module)
    return module


@pytest.mark.parametrize(("kind", "accepts"), [("text", {"text"}), ("image", {"image"})])
def test_builtin_specs(kind: str, accepts: set[str]) -> None:
    """Both built-in encoders load by name, and their calibration lies where it is said to."""
    encoder = load_encoder(f"builtin:{kind}")
    assert encoder.accepts == accepts
    path = builtin_calibration_path(f"builtin:{kind}")
    assert path is not None
    assert path.is_file()


@pytest.mark.parametrize("spec", ["builtin:audio", "onnx:text.onnx", "http://host/v1", ""])
def test_other_specs_have_no_calibration(spec: str) -> None:
    """Only the built-in encoders ship one."""
    assert builtin_calibration_path(spec) is None


def test_onnx_spec() -> None:
    """`onnx:PATH` loads a graph, also from a path with a colon or blank in it."""
    encoder = load_encoder(f"onnx:{FIXTURES / 'strings.onnx'}")
    assert isinstance(encoder, OnnxEncoder)
    with pytest.raises(ConfigurationError, match=r"a b:c\.onnx"):
        load_encoder("onnx:a b:c.onnx")


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("python:user_models:encoder", "ready"),
        ("python:user_models:squares", "squares"),
        ("python:user_models:Squares", "Squares"),
        ("python:user_models:make", "made"),
        ("python:user_models:plain", "plain"),
        ("torch:user_models:make", "made"),
        ("torch:user_models:Squares", "Squares"),
    ],
)
def test_python_specs(spec: str, name: str) -> None:
    """An encoder, a callable with a width, or a factory of either is taken, named after itself."""
    assert load_encoder(spec).name == name


@pytest.mark.usefixtures("user_module")
def test_a_callable_says_what_it_accepts() -> None:
    """The attributes `dim` and `accepts` of a callable are kept."""
    encoder = load_encoder("python:user_models:squares")
    assert (encoder.dim, encoder.accepts) == (1, frozenset({"tokens"}))
    np.testing.assert_array_equal(encoder.embed([[1, 2], [3]]), [[5], [9]])


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("spec", "independent"),
    [
        ("builtin:text", True),
        ("builtin:image", True),
        (f"onnx:{FIXTURES / 'strings.onnx'}", True),
        ("python:user_models:encoder", False),
        ("python:user_models:promising", True),
        ("python:user_models:squares", False),
        ("python:user_models:Independent", True),
        ("torch:user_models:Squares", False),
        ("torch:user_models:Independent", True),
    ],
)
def test_specs_keep_what_is_declared(spec: str, independent: bool) -> None:
    """Independence of rows is what the encoder or callable says, and nobody else's guess."""
    encoder = load_encoder(spec)
    assert isinstance(encoder, RowsIndependent)
    assert encoder.rows_independent == independent


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("python:user_models:no_width", r"shape \(1, d\)"),
        ("python:user_models:fail", "no GPU"),
        ("python:user_models:number", "expected an encoder"),
        ("python:user_models:missing", "missing"),
        ("python:no_such_module:x", r"no_such_module.*PYTHONPATH"),
        ("python:user_models", "expected module:attribute"),
        ("python::x", "expected module:attribute"),
        ("torch:user_models:encoder", "expected an encoder"),
        ("torch:user_models:number", "expected an encoder"),
    ],
)
def test_python_specs_that_fail(spec: str, words: str) -> None:
    """Whatever goes wrong in a user's module is one line that names the spec."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_encoder(spec)
    assert spec in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "missing", "extra"),
    [
        ("lab:x.pt", "torch", "lab"),
        ("simsiam:x.pt", "torch", "lab"),
        ("dino:x.pt", "torch", "lab"),
        ("timm:resnet18", "torch", "timm"),
        ("st:all-MiniLM-L6-v2", "torch", "text"),
        pytest.param("timm:resnet18", "timm", "timm", marks=pytest.mark.torch),
        pytest.param("st:small", "sentence_transformers", "text", marks=pytest.mark.torch),
    ],
)
def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, spec: str, missing: str, extra: str
) -> None:
    """Specs that need more than serving does say which extra to install."""
    if missing != "torch":
        pytest.importorskip("torch")
    # As if the room had never been imported; put back after the test.
    monkeypatch.delattr(tollkeeper.encoders, "lab", raising=False)
    for name in [name for name in sys.modules if name.startswith("tollkeeper.encoders.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    words = rf"needs the package {missing}; pip install 'tollkeeper\[{extra}\]'$"
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_encoder(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["", "text", "builtin:", "builtin:audio", "onnx:", "lab:", "st:", "http:", "ftp://x"]
)
def test_unknown_specs_list_the_known_ones(spec: str) -> None:
    """One line names the spec and every form there is."""
    with pytest.raises(ConfigurationError, match="unknown encoder spec") as caught:
        load_encoder(spec)
    assert all(known in str(caught.value) for known in KNOWN_SPECS)


def test_an_upstream_spec_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """`http(s)://host/v1#model` splits into address and model; options reach the upstream."""
    seen: list[httpx2.Request] = []

    def serve(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"data": [{"embedding": [1.0, 2.0]}]})

    client = httpx2.Client(transport=httpx2.MockTransport(serve))
    monkeypatch.setattr("tollkeeper.encoders.upstream.httpx2.Client", lambda **_: client)
    encoder = load_encoder("https://host/v1#org/model", api_key="sk-x", concurrency=3)
    assert isinstance(encoder, UpstreamEncoder)
    assert (encoder.name, encoder.dim, encoder.concurrency) == ("org/model", 2, 3)
    assert str(seen[0].url) == "https://host/v1/embeddings"
    assert seen[0].headers["authorization"] == "Bearer sk-x"
    encoder.close()
