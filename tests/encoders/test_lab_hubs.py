"""Promises of timm and sentence-transformers models: fakes always, the real ones where installed."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.Image import Resampling

from tollkeeper.encoders.lab.pixels import Pixels
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.testing import check_encoder

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.encoders.lab.resnet import resnet  # noqa: E402 - needs torch
from tollkeeper.encoders.lab.seeding import seeded  # noqa: E402

_RNG = np.random.default_rng(0)
IMAGES = [_RNG.integers(0, 256, (20 + i, 29 - i, 3), dtype=np.uint8) for i in range(3)]
TEXTS = ["bank", "a", "I still have not received my card", "Füße 北京"]

FAKE_CONFIG = {
    "input_size": (3, 28, 28),
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "crop_pct": 0.9,
    "crop_mode": "center",
}


def fake_network() -> Any:
    """Return a tiny network."""
    with seeded(0):
        return resnet(18, stem="small", width=2).eval()


class FakeTimm(types.ModuleType):
    """Stands for timm: one tiny model with a data configuration."""

    def __init__(self, **config: Any) -> None:
        """Change some of the configuration."""
        super().__init__("timm")
        self.asked: dict[str, Any] = {}
        self.data = types.SimpleNamespace(
            resolve_model_data_config=lambda _: {**FAKE_CONFIG, **config}
        )

    def create_model(self, name: str, **options: Any) -> Any:
        """Note what was asked for."""
        if name == "missing":
            raise RuntimeError("Unknown model\n(missing)")
        self.asked = {"name": name, **options}
        return fake_network()


class FakeSentenceTransformer:
    """Stands for a sentence-transformers model: lengths and counts of letters."""

    def __init__(self, name: str, device: str) -> None:
        """Know no model but one."""
        if "missing" in name:
            raise OSError("no such\nmodel")

    def encode(self, texts: list[str], **options: Any) -> Any:
        """Return (n, 2) numbers."""
        assert options["show_progress_bar"] is False
        if "fail" in texts:
            raise ValueError("secret text")
        return np.array([[len(text), text.count("a")] for text in texts], np.float32)


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> FakeTimm:
    """Put the fake in timm's place."""
    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@pytest.fixture
def fake_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fake in sentence-transformers' place."""
    fake = types.ModuleType("sentence_transformers")
    vars(fake)["SentenceTransformer"] = FakeSentenceTransformer
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)


def test_a_timm_model(fake_timm: FakeTimm) -> None:
    """Pretrained weights without a classifier are asked for; images go as the model says."""
    encoder = load_encoder("timm:hf-hub:owner/some.model")
    assert fake_timm.asked == {
        "name": "hf-hub:owner/some.model",
        "pretrained": True,
        "num_classes": 0,
    }
    assert (encoder.name, encoder.dim) == ("some.model", 16)
    check_encoder(encoder, IMAGES)
    pixels = Pixels(28, 31, (0.5,) * 3, (0.25,) * 3, filter=Resampling.BICUBIC)
    with torch.inference_mode():
        expected = fake_network()(torch.from_numpy(pixels(IMAGES))).numpy()
    np.testing.assert_allclose(encoder.embed(IMAGES), expected, rtol=1e-4, atol=1e-6)


def test_a_timm_model_that_squashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model's own pipeline ignores the shape of an image, so does ours."""
    monkeypatch.setitem(sys.modules, "timm", FakeTimm(crop_mode="squash"))
    encoder = load_encoder("timm:some")
    assert vars(encoder)["pixels"].keeps_ratio is False


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"input_size": (1, 28, 28)}, r"square RGB images .* got input size \(1, 28, 28\)"),
        ({"input_size": (3, 28, 30)}, r"got input size \(3, 28, 30\)"),
        ({"crop_mode": "border"}, "crop mode 'border'"),
        ({"interpolation": "random"}, "unknown interpolation 'random'"),
    ],
)
def test_unusual_timm_models_are_refused(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], words: str
) -> None:
    """A pipeline that ours cannot follow is named, not approximated."""
    monkeypatch.setitem(sys.modules, "timm", FakeTimm(**config))
    with pytest.raises(ConfigurationError, match=words):
        load_encoder("timm:some")


@pytest.mark.usefixtures("fake_sentences")
def test_a_sentence_model() -> None:
    """A text model is named after its last part and embeds as it is."""
    encoder = load_encoder("st:owner/small-model/")
    assert (encoder.name, encoder.dim) == ("small-model", 2)
    assert encoder.accepts == {"text"}
    check_encoder(encoder, TEXTS)
    assert encoder.embed(["banana"]).tolist() == [[6.0, 3.0]]
    with pytest.raises(InputError):
        encoder.embed(IMAGES)
    with pytest.raises(EncoderError, match=r"failed with ValueError$"):
        encoder.embed(["fail"])


@pytest.mark.usefixtures("fake_timm", "fake_sentences")
@pytest.mark.parametrize("spec", ["timm:missing", "st:missing"])
def test_models_that_do_not_exist_are_one_line(spec: str) -> None:
    """Whatever a hub says is told in one line with the SPEC."""
    with pytest.raises(ConfigurationError, match=f"cannot load {spec}: ") as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


def installed(name: str) -> Any:
    """Import an optional package as it warns, or skip."""
    pytest.importorskip(name)
    return importlib.import_module(name)


@pytest.mark.filterwarnings("ignore")
def test_a_real_timm_model(tmp_path: Path) -> None:
    """A model folder that timm wrote gives the embeddings that timm gives."""
    timm = installed("timm")
    with torch.random.fork_rng():
        model = timm.create_model("resnet10t", num_classes=0).eval()
    config = {**model.pretrained_cfg, "input_size": (3, 64, 64)}
    timm.models.save_for_hf(model, tmp_path, model_config={"pretrained_cfg": config})
    encoder = load_encoder(f"timm:local-dir:{tmp_path}")
    check_encoder(encoder, IMAGES)
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, config))
    seen = torch.stack([transform(Image.fromarray(image)) for image in IMAGES])
    with torch.inference_mode():
        expected = model(seen).numpy()
    np.testing.assert_allclose(encoder.embed(IMAGES), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_real_sentence_model(tmp_path: Path) -> None:
    """A tiny random BERT that sentence-transformers wrote gives the embeddings that it gives."""
    sentence_transformers = installed("sentence_transformers")
    folder = tiny_bert(tmp_path / "bert")
    # A folder without modules.json becomes that model with mean pooling.
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model.save(str(tmp_path / "tiny"))
    encoder = load_encoder(f"st:{tmp_path / 'tiny'}")
    assert (encoder.name, encoder.dim) == ("tiny", 8)
    check_encoder(encoder, TEXTS)
    np.testing.assert_allclose(encoder.embed(TEXTS), model.encode(TEXTS), rtol=1e-4, atol=1e-6)


def tiny_bert(folder: Path) -> Path:
    """Write a random BERT of width 8 with a vocabulary of letters."""
    transformers = installed("transformers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with torch.random.fork_rng():
        transformers.BertModel(config).save_pretrained(folder)
    words = {word: position for position, word in enumerate(vocabulary)}
    transformers.BertTokenizerFast(vocab=words).save_pretrained(folder)
    return folder
